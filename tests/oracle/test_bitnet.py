"""BitNet against transformers, in every form that its checkpoints come in.

Activations are rounded to 8 bits before each product, so a value that float32 puts a hair to the
other side of a half moves one activation by a whole step, and the logits of that position and of
the ones after it by up to a few hundredths. The sequences here are short and their seeds are chosen
so that no value is so near to a half; there the agreement is that of floats.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pocketlm.gguf import BlockType
from pocketlm.models import open_model

from .bitnet import write_online, write_packed, write_scaled_gguf
from .conftest import Run
from .tiny import logits_of, random_tokens

pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("quiet_torch")]

BOUND = 2e-4
FLIP = 0.15  # what single steps of activations amount to here
TOKENS = random_tokens(64, seed=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_online(dtype: torch.dtype, run: Run, tmp_path: Path) -> None:
    model = write_online(tmp_path, dtype)
    spec = open_model(tmp_path)
    assert np.abs(run(spec, TOKENS) - logits_of(model, TOKENS)).max() <= BOUND
    packed = spec.source.matrix("blk.0.ffn_up.weight").type
    assert packed == (BlockType.F32 if dtype == torch.float32 else BlockType.TQ2_0)


def test_packed(run: Run, tmp_path: Path) -> None:
    model = write_packed(tmp_path, inverse=False)
    spec = open_model(tmp_path)
    assert spec.parameters == sum(p.numel() for p in model.parameters())
    assert np.abs(run(spec, TOKENS) - logits_of(model, TOKENS)).max() <= BOUND


def test_packed_with_inverse_scale(run: Run, tmp_path: Path) -> None:
    """float16 rounds the inverse of the scale, which moves some activations by a step."""
    model = write_packed(tmp_path, inverse=True)
    spec = open_model(tmp_path)
    difference = np.abs(run(spec, TOKENS) - logits_of(model, TOKENS))
    assert difference.max() <= FLIP
    assert spec.source.matrix("blk.0.ffn_up.weight").type == BlockType.TQ2_0


def test_gguf_with_scales(run: Run, tmp_path: Path) -> None:
    """A float32 scale that float16 does not hold keeps the matrix in float32."""
    model = write_scaled_gguf(tmp_path / "bitnet.gguf")
    spec = open_model(tmp_path / "bitnet.gguf")
    assert np.abs(run(spec, TOKENS) - logits_of(model, TOKENS)).max() <= BOUND
    assert spec.source.matrix("blk.0.ffn_up.weight").type == BlockType.F32
