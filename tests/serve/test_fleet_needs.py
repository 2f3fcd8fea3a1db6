"""What is known of a model before it is loaded, and counted once it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.tiny_file import write_tiny_model
from pocketlm.errors import IntegrityError, NotFoundError
from pocketlm.serve.config import ServeConfig
from pocketlm.serve.fleet import WorkerFleet
from pocketlm.serve.generation import ChatPrompt, Generation
from pocketlm.store import Store


@asynccontextmanager
async def fleet_of(tmp_path: Path) -> AsyncIterator[WorkerFleet]:
    store = Store()
    store.import_path(write_tiny_model(tmp_path / "tiny.gguf"), "tiny")
    fleet = WorkerFleet(store, ServeConfig())
    try:
        yield fleet
    finally:
        await fleet.close()


def test_what_a_model_needs_is_what_it_then_takes(tmp_path: Path) -> None:
    async def run() -> None:
        async with fleet_of(tmp_path) as fleet:
            one, other = await asyncio.gather(fleet.needs("tiny"), fleet.needs("tiny:latest"))
            assert one == other > 0
            assert fleet.loaded() == []
            await fleet.load("tiny")
            (loaded,) = fleet.loaded()
            assert loaded.memory == one

    asyncio.run(run())


def test_a_file_that_is_broken_is_said_so_and_loads_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with fleet_of(tmp_path) as fleet:
            path = tmp_path / "tiny.gguf"
            path.write_bytes(b"FUGG" + path.read_bytes()[4:])
            with pytest.raises(IntegrityError, match="altered"):
                await fleet.needs("tiny")
            with pytest.raises(NotFoundError):
                await fleet.needs("none")
            assert fleet.loaded() == []

    asyncio.run(run())


def test_a_pin_is_given_kept_and_taken_away(tmp_path: Path) -> None:
    async def run() -> None:
        async with fleet_of(tmp_path) as fleet:
            seen = []
            for pin in (None, True, None, False):
                await fleet.load("tiny", pin=pin)
                (loaded,) = fleet.loaded()
                seen.append((loaded.pinned, loaded.expires is None))
            assert seen == [(False, False), (True, True), (True, True), (False, False)]

    asyncio.run(run())


def test_tokens_are_counted_since_the_load(tmp_path: Path) -> None:
    async def run() -> None:
        prompt = ChatPrompt(messages=[{"role": "user", "content": "hi"}])
        asked = Generation(prompt=prompt, options={"max_tokens": 5, "ignore_eos": True})
        async with fleet_of(tmp_path) as fleet:
            async with fleet.use("tiny") as model, model.answer(asked) as answer:
                async for _ in answer:
                    pass
            ended = answer.ended
            assert ended is not None
            (loaded,) = fleet.loaded()
            assert (loaded.prompt_tokens, loaded.output_tokens) == (ended.prompt_tokens, 5)

    asyncio.run(run())
