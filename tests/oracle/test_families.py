"""Logits of every family against transformers, on tiny random models.

Each model is opened as a Hugging Face folder and as a GGUF file that is written here as llama.cpp's
converter writes it. The bound is the contract's: max |Δlogit| <= 2e-4 with float32 weights and KV.
"""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from pocketlm.models import open_model

from .conftest import Run
from .native import NativeSequence
from .tiny import (
    LENGTH,
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["llama3", "qwen2", "gemma3-linear", "phi3-window"])
def test_half_precision_folders(name: str, dtype: torch.dtype, run: Run, tmp_path: Path) -> None:
    """The same bound: 16-bit weights are widened, activations stay in float32."""
    tiny, _ = model_of(name)
    model = random_model(tiny.config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype))
        if "gemma" in name:  # transformers rounds the scale to the weights' dtype
            scale = model.model.embed_tokens.embed_scale
            scale.copy_(scale.to(dtype))
    copy.deepcopy(model).to(dtype).save_pretrained(tmp_path)
    tokens = random_tokens(LENGTH)
    found = run(open_model(tmp_path), tokens)
    assert np.abs(found - logits_of(model, tokens)).max() <= BOUND


def test_text_model_inside_a_multimodal_folder(run: Run, tmp_path: Path) -> None:
    """Gemma 3's bigger models nest config and names; the vision tower is left alone."""
    text = TINY["gemma3-linear"]().config
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = transformers.Gemma3Config(
        text_config=text.to_dict(), vision_config=vision, mm_tokens_per_image=4
    )
    torch.manual_seed(0)
    whole = transformers.Gemma3ForConditionalGeneration(config).eval()
    inner = random_model(text)
    whole.model.language_model.load_state_dict(inner.model.state_dict())
    whole.save_pretrained(tmp_path)
    tokens = random_tokens(LENGTH)
    found = run(open_model(tmp_path), tokens)
    assert np.abs(found - logits_of(inner, tokens)).max() <= BOUND


CHUNKS = {
    "one by one": [1] * LENGTH,
    "at a page": [31, 1, 1, 223, 1, 1, LENGTH - 258],
    "past a page": [33, 224, 1, LENGTH - 258],
    "halves": [LENGTH // 2, LENGTH - LENGTH // 2],
}


@pytest.mark.parametrize("kv", ["f32", "f16"])
@pytest.mark.parametrize("name", ["llama3", "qwen3", "gemma3-linear", "phi3-longrope"])
def test_chunks_change_no_bit(name: str, kv: str, tmp_path: Path) -> None:
    model_of(name)[1].save_pretrained(tmp_path)
    spec = open_model(tmp_path)
    tokens = random_tokens(LENGTH)
    whole = NativeSequence(spec, kv=kv, variant=1).feed(tokens)
    for label, chunks in CHUNKS.items():
        sequence = NativeSequence(spec, kv=kv, variant=1, threads=2)
        parts = np.split(tokens, np.cumsum(chunks)[:-1])
        found = np.concatenate([sequence.feed(part) for part in parts])
        assert np.array_equal(found, whole), label
