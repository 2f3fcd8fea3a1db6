"""From a worker's order to a running model: what it will take first, then the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pocketlm.engine.build import build_engine, choose_context, plan_memory
from pocketlm.engine.constraint import grammars_memory
from pocketlm.engine.engine import Engine
from pocketlm.engine.options import EngineOptions
from pocketlm.engine.prompts import TextSide, text_side
from pocketlm.models import ModelSpec, open_model
from pocketlm.serve.worker.order import Order
from pocketlm.store.setup import Setup
from pocketlm.text import fill_tokens

# Positions of the KV cache for all answers together where it is not said: few need a whole context.
_SHARED_POSITIONS = 8192


@dataclass(frozen=True)
class Opened:
    """A file that was read so far as to know what it takes; ``spec`` is to be closed."""

    spec: ModelSpec
    options: EngineOptions
    memory: int


@dataclass(frozen=True)
class Running:
    """A model that can be asked."""

    setup: Setup
    texts: TextSide
    engine: Engine
    defaults: Mapping[str, float]
    facts: Mapping[str, Any]
    kv_tokens: int
    threads: int


def open_order(order: Order) -> Opened:
    """Reads the file's header. A context beyond the model's is lowered to the model's.

    Raises ModelFileError, UnsupportedError, NotFoundError.
    """
    spec = open_model(Path(order.path))
    options = EngineOptions(**order.engine)
    trained = spec.config.context
    if options.context is not None and options.context > trained:
        options = replace(options, context=trained)
    context = choose_context(options.context, trained)
    shared = options.kv_tokens or _SHARED_POSITIONS
    options = replace(options, context=context, kv_tokens=max(context, shared))
    memory = plan_memory(spec, options).total + grammars_memory(spec.config.vocab)
    return Opened(spec, options, memory)


def load(order: Order, opened: Opened) -> Running:
    """Loads what was opened. Raises CapacityError where there is less memory now."""
    spec = opened.spec
    setup = Setup(**order.setup)
    texts = text_side(spec, order.name, setup.template)
    built = build_engine(spec, texts.tokenizer.eos_ids, opened.options)
    facts = _facts(order, spec, texts, built.context)
    spec.close()
    pages = max(built.engine.runner.pages)
    tokens = pages * built.engine.runner.page_positions
    return Running(setup, texts, built.engine, spec.generation, facts, tokens, built.threads)


def _facts(order: Order, spec: ModelSpec, texts: TextSide, context: int) -> dict[str, Any]:
    """The fields of ``generation.ModelFacts``, as JSON."""
    tokenizer, template = texts.tokenizer, texts.template
    ids = sorted(tokenizer.special_ids)
    special = dict(zip(tokenizer.special_texts, ids, strict=True))
    return {
        "name": order.name,
        "digest": order.digest,
        "family": spec.config.family,
        "parameters": spec.parameters,
        "quantization": order.quantization or _quantization(Path(order.path)),
        "context": context,
        "trained_context": spec.config.context,
        "vocab": spec.config.vocab,
        "width": spec.config.hidden,
        "template": None if template is None else template.source,
        "capabilities": sorted(_capabilities(texts)),
        "special_texts": special,
        "eos_text": next((text for text, id in special.items() if id == tokenizer.eos_id), ""),
    }


def _quantization(path: Path) -> str:
    from pocketlm.store.describe import describe_path

    return describe_path(path).quantization


def _capabilities(texts: TextSide) -> set[str]:
    found = {"completion", "embedding"}
    if fill_tokens(texts.tokenizer) is not None:
        found.add("insert")
    if texts.template is not None and texts.template.supports_tools:
        found.add("tools")
    if texts.template is not None and texts.template.supports_thinking:
        found.add("thinking")
    return found
