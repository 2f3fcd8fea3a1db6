"""Fleets of real workers over a model of some kilobytes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from engine.tiny_file import write_tiny_model
from pocketlm.engine.options import EngineOptions
from pocketlm.serve.config import ServeConfig
from pocketlm.serve.fleet import WorkerFleet
from pocketlm.serve.fleet.process import COMMAND
from pocketlm.serve.generation import Generation, ServedModel, TextPrompt
from pocketlm.store import Store

DYING = (sys.executable, "-c", "raise SystemExit(3)")


def tiny_store(home: Path, *names: str) -> Store:
    """A store of models that differ in nothing but their bytes."""
    store = Store(home / "store")
    for i, name in enumerate(names):
        path = write_tiny_model(home / f"{name}.gguf", top_k=20 + i)
        store.import_path(path, name)
    return store


@asynccontextmanager
async def tiny_fleet(
    store: Store, *, command: Sequence[str] = COMMAND, sequences: int = 4, **options: Any
) -> AsyncIterator[WorkerFleet]:
    engine = EngineOptions(sequences=sequences, threads=1)
    fleet = WorkerFleet(store, ServeConfig(engine=engine, **options), command=command)
    try:
        yield fleet
    finally:
        await asyncio.wait_for(fleet.close(), 20)


def ask(text: str = "ab", *, tokens: int = 8, **fields: Any) -> Generation:
    """A greedy answer of exactly so many tokens."""
    options = {"temperature": 0, "max_tokens": tokens, "ignore_eos": True}
    given = fields.pop("options", {})
    return Generation(prompt=TextPrompt(text=text), options={**options, **given}, **fields)


async def tokens_of(model: ServedModel, generation: Generation) -> list[int]:
    async with model.answer(generation) as answer:
        return [token async for piece in answer for token in piece.tokens]
