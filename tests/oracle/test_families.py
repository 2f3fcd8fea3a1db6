"""Logits of every family against transformers, on tiny random models.

Each model is opened as a Hugging Face folder and as a GGUF file that is written here as llama.cpp's
converter writes it. The bound is the contract's: max |Δlogit| <= 2e-4 with float32 weights and KV.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketlm.models import open_model

from .conftest import Run
from .tiny import (
    TINY,
    Tiny,
    gguf_tensors,
    logits_of,
    random_model,
    random_tokens,
    write_tiny_gguf,
)

pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("quiet_torch")]

BOUND = 2e-4
GGUF_NAMES = [name for name, make in TINY.items() if make().arch]

Array = np.ndarray[Any, np.dtype[Any]]


@cache
def model_of(name: str) -> tuple[Tiny, Any]:
    tiny = TINY[name]()
    return tiny, random_model(tiny.config)


@cache
def expected(name: str, length: int) -> Array:
    return logits_of(model_of(name)[1], random_tokens(length))


@pytest.mark.parametrize("name", TINY)
def test_folder_agrees_with_transformers(name: str, run: Run, tmp_path: Path) -> None:
    tiny, model = model_of(name)
    model.save_pretrained(tmp_path)
    spec = open_model(tmp_path)
    assert spec.parameters == sum(p.numel() for p in model.parameters())
    for length in tiny.lengths:
        found = run(spec, random_tokens(length))
        assert np.abs(found - expected(name, length)).max() <= BOUND


@pytest.mark.parametrize("name", GGUF_NAMES)
def test_gguf_agrees_with_transformers(name: str, run: Run, tmp_path: Path) -> None:
    tiny, model = model_of(name)
    write_tiny_gguf(tmp_path / "tiny.gguf", tiny, gguf_tensors(model, tiny.arch))
    spec = open_model(tmp_path / "tiny.gguf")
    assert spec.parameters == sum(p.numel() for p in model.parameters())
    for length in tiny.lengths:
        found = run(spec, random_tokens(length))
        assert np.abs(found - expected(name, length)).max() <= BOUND
