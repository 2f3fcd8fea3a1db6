"""Compensated rounding against plain search, on inputs that are correlated and that are not."""

from __future__ import annotations

import numpy as np
import pytest

from pocketlm import _native
from pocketlm.gguf import BlockType, block_elements, dequantize
from pocketlm.quantize.codes import LAYOUTS, Bytes, Floats
from pocketlm.quantize.rounding import Doubles, compensated, curvature

ROWS, COLS = 24, 512


def weights() -> Floats:
    return np.random.default_rng(3).standard_normal((ROWS, COLS), dtype=np.float32)


def correlated() -> Doubles:
    """Second moments of inputs that mostly lie in a few directions, as activations do."""
    rng = np.random.default_rng(4)
    spread = np.exp(-np.arange(COLS) / 40) + 0.02
    mixed = rng.standard_normal((4 * COLS, COLS)) * spread @ rng.standard_normal((COLS, COLS))
    return np.asarray(mixed.T @ mixed / len(mixed), np.float64)


def searched(values: Floats, type: BlockType, second: Doubles) -> Bytes:
    importance = np.diag(second).astype(np.float32)
    raw = values.reshape(-1).view(np.uint8)
    return _native.quantize(BlockType.F32, raw, ROWS, COLS, type, "search", importance, 1)


def output_error(values: Floats, type: BlockType, blocks: Bytes, second: Doubles) -> float:
    missed = (values - dequantize(type, blocks, values.shape)).astype(np.float64)
    return float(((missed @ second) * missed).sum())


@pytest.mark.parametrize("type", sorted(LAYOUTS), ids=lambda t: t.name)
def test_outputs_change_less(type: BlockType) -> None:
    values, second = weights(), correlated()
    blocks = compensated(values, curvature(second, block_elements(type), 0.01), type, threads=2)
    mine = output_error(values, type, blocks, second)
    assert mine < 0.8 * output_error(values, type, searched(values, type, second), second)


@pytest.mark.parametrize("type", [BlockType.Q4_0, BlockType.Q5_1])
def test_uncorrelated_inputs_need_no_compensation(type: BlockType) -> None:
    values = weights()
    second = np.eye(COLS)
    blocks = compensated(values, curvature(second, 32, 0.0), type, threads=1)
    plain = searched(values, type, second)
    shape = values.shape
    # the same scales; a weight in the middle between two codes may go either way
    np.testing.assert_allclose(
        np.abs(dequantize(type, blocks, shape) - values),
        np.abs(dequantize(type, plain, shape) - values),
        atol=1e-4,
    )


def test_inputs_that_never_fire(tmp_path: object) -> None:
    values, second = weights(), correlated()
    second[100:140] = second[:, 100:140] = 0
    blocks = compensated(values, curvature(second, 32, 0.01), BlockType.Q4_0, threads=1)
    assert np.isfinite(dequantize(BlockType.Q4_0, blocks, values.shape)).all()


def test_no_inputs_at_all() -> None:
    values = weights()
    blocks = compensated(
        values, curvature(np.zeros((COLS, COLS)), 32, 0.01), BlockType.Q4_0, threads=1
    )
    error = np.square(dequantize(BlockType.Q4_0, blocks, values.shape) - values).mean()
    assert error < 0.02
