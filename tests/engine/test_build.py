"""Whether a model fits is known before anything of it is in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import pocketlm
from pocketlm.engine import build
from pocketlm.engine.build import build_engine, require_memory
from pocketlm.engine.machine import Memory
from pocketlm.engine.options import EngineOptions
from pocketlm.errors import CapacityError, NotFoundError, RequestError, UnsupportedError
from pocketlm.models import open_model
from pocketlm.models.memory import tokenizer_memory
from pocketlm.text import Tokenizer

from .tiny_file import CONTEXT, write_tiny_model

OPTIONS = EngineOptions(context=CONTEXT, threads=1, sequences=3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.gguf")


def leave(monkeypatch: pytest.MonkeyPatch, available: int) -> None:
    monkeypatch.setattr(build, "available_memory", lambda: Memory(available, "RAM"))


@pytest.mark.parametrize("window", [0, 40, CONTEXT])
def test_what_is_promised_is_what_is_built(window: int, path: Path) -> None:
    spec = open_model(write_tiny_model(path, window=window))
    promised = require_memory(spec, OPTIONS)
    built = build_engine(spec, frozenset(), OPTIONS).memory
    assert promised.total == built.total + tokenizer_memory(spec).kept
    assert (promised.weights, promised.kv) == (built.weights, built.kv)
    with pocketlm.load(path, context=CONTEXT, threads=1, sequences=3) as model:
        assert model.memory == promised


def test_layers_with_a_window_take_less(path: Path) -> None:
    options = replace(OPTIONS, step_tokens=64, output_rows=4)
    plain = build_engine(open_model(path), frozenset(), options)
    windowed = open_model(write_tiny_model(path, window=40))
    built = build_engine(windowed, frozenset(), options)
    assert [pool.count for pool in plain.engine.cache.pools] == [24]
    assert [pool.count for pool in built.engine.cache.pools] == [11]
    assert built.memory.kv * 24 == plain.memory.kv * 11
    wide = require_memory(open_model(write_tiny_model(path, window=CONTEXT)), options)
    assert wide.kv == plain.memory.kv


def test_a_model_that_just_fits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = open_model(path)
    total = require_memory(spec, OPTIONS).total
    leave(monkeypatch, total)
    assert require_memory(spec, OPTIONS).total == total
    leave(monkeypatch, total - 1)
    with pytest.raises(CapacityError, match=r"needs .* \+ workspace .* \+ tokenizer .* of RAM"):
        require_memory(spec, OPTIONS)


def test_refused_before_the_tokenizer_is_built(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the tokenizer was built")

    monkeypatch.setattr(Tokenizer, "from_gguf", never)
    leave(monkeypatch, 1000)
    with pytest.raises(CapacityError):
        pocketlm.load(path, threads=1)


def test_building_a_tokenizer_can_be_what_takes_most(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = open_model(path)
    tokens = [f"<{i}>" for i in range(200_000)]
    spec.tokenizer_source = {"tokenizer.ggml.tokens": tokens}
    building, total = tokenizer_memory(spec).building, require_memory(spec, OPTIONS).total
    assert building > total
    leave(monkeypatch, (building + total) // 2)
    with pytest.raises(CapacityError):
        require_memory(spec, OPTIONS)


def test_a_context_beyond_the_models(path: Path) -> None:
    with pytest.raises(RequestError, match="made for 256"):
        require_memory(open_model(path), EngineOptions(context=CONTEXT + 1))


def test_a_draft_model_is_part_of_the_plan(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, draft = open_model(path), open_model(path)
    alone = require_memory(spec, OPTIONS)
    both = require_memory(spec, OPTIONS, draft=draft)
    assert both.draft > alone.weights + alone.kv
    assert both.total == alone.total + both.draft
    leave(monkeypatch, both.total - 1)
    with pytest.raises(CapacityError, match=r"\+ draft model .* of RAM"):
        require_memory(spec, OPTIONS, draft=draft)


def test_a_draft_model_with_other_tokens_is_refused(path: Path, tmp_path: Path) -> None:
    control = ["<|endoftext|>", "<|im_start|>", "<|other|>"]
    other = write_tiny_model(tmp_path / "other.gguf", control=control)
    with pytest.raises(
        UnsupportedError, match=r"token 259 is '<\|other\|>' there, '<\|im_end\|>' h"
    ):
        pocketlm.load(path, threads=1, speculate=str(other))


def test_speculation_is_on_off_or_a_model(path: Path) -> None:
    with pytest.raises(RequestError, match="speculate is 'on', expected ngram or off"):
        EngineOptions(speculate="on")
    with pytest.raises(NotFoundError):
        pocketlm.load(path, threads=1, speculate="./not-there.gguf")


def test_sequences_may_share_a_smaller_cache(path: Path) -> None:
    options = replace(OPTIONS, kv_tokens=CONTEXT + 40)
    built = build_engine(open_model(path), frozenset(), options)
    assert [pool.count for pool in built.engine.cache.pools] == [10]
    assert built.memory.kv * 24 == require_memory(open_model(path), OPTIONS).kv * 10
    with pytest.raises(
        RequestError, match="kv_tokens is 255, expected at least the context of 256"
    ):
        require_memory(open_model(path), replace(OPTIONS, kv_tokens=255))
