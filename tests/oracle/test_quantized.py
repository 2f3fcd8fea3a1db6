"""Quantized tiny models against transformers on the dequantized weights.

What differs is the activations: 8 bits per block of 32 in the core, float32 in transformers. The
bound is on the root mean square of the difference, relative to that of the logits.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from pocketlm.gguf import BlockType, TensorData, write_gguf
from pocketlm.models import open_model
from pocketlm.models.build import build_executor
from pocketlm.models.memory import Capacity, core_memory

from .conftest import run_native, run_reference
from .quantized import quantize
from .tiny import (
    VOCAB,
    Tiny,
    gguf_metadata,
    gguf_tensors,
    logits_of,
    random_model,
    random_tokens,
)

pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("quiet_torch")]

TYPES = [
    BlockType.Q4_0,
    BlockType.Q4_1,
    BlockType.Q5_0,
    BlockType.Q5_1,
    BlockType.Q8_0,
    BlockType.Q2_K,
    BlockType.Q3_K,
    BlockType.Q4_K,
    BlockType.Q5_K,
    BlockType.Q6_K,
    BlockType.TQ1_0,
    BlockType.TQ2_0,
]
RELATIVE = 0.03
EXACT = 1e-5
LENGTH = 100


@cache
def qwen3() -> tuple[Tiny, Any]:
    """Untied, so that the embedding and the output may differ in type; no permutation of rows."""
    config = transformers.Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=512,
        tie_word_embeddings=False,
    )
    return Tiny(config, "qwen3"), random_model(config)


@pytest.mark.parametrize("type", TYPES, ids=lambda type: type.name)
def test_quantized_weights(type: BlockType, tmp_path: Path) -> None:
    tiny, model = qwen3()
    written, meant = [], {}
    for seed, (name, values) in enumerate(gguf_tensors(model, "qwen3").items()):
        data, stored = values.view(np.uint8).reshape(-1), BlockType.F32
        if values.ndim == 2:
            (data, values), stored = quantize(values, type, seed), type
        meant[name] = values
        written.append(TensorData(name, stored, values.shape, data))
    path = tmp_path / "quantized.gguf"
    write_gguf(path, gguf_metadata(tiny), written)
    expected = logits_of(with_weights(model, meant), random_tokens(LENGTH))
    spec = open_model(path)
    promised = core_memory(spec, Capacity(tokens=1, sequences=1, rows=1, context=1))
    assert vars(promised) == build_executor(spec, threads=1).requirements(1, 1, 1, [1], "f16")
    found = run_native(spec, random_tokens(LENGTH))
    assert rms(found - expected) <= RELATIVE * rms(expected)
    # with the same 8 bits in NumPy, positions agree but for activations at the edge of two codes
    reference = run_reference(spec, random_tokens(LENGTH), activations=True)
    assert np.abs(found - reference)[:8].max(axis=1).min() <= EXACT
    assert rms(found - reference) <= rms(found - expected)


def with_weights(model: Any, tensors: dict[str, Any]) -> Any:
    """A copy of the model with the values of GGUF tensors."""
    copied = type(model)(model.config).eval()
    names = list(gguf_tensors(model, "qwen3"))
    state = dict(
        zip(model.state_dict(), (torch.from_numpy(tensors[n]) for n in names), strict=True)
    )
    copied.load_state_dict(state)
    copied.set_attn_implementation("eager")
    return copied


def rms(values: Any) -> float:
    return float(np.sqrt((values.astype(np.float64) ** 2).mean()))
