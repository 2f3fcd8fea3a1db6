"""Codes and grids of blocks against what the blocks decode to."""

from __future__ import annotations

import numpy as np
import pytest

from pocketlm import _native
from pocketlm.gguf import BlockType, dequantize
from pocketlm.quantize.codes import LAYOUTS, grid, put_codes

ROWS, COLS = 3, 512
TYPES = pytest.mark.parametrize("type", sorted(LAYOUTS), ids=lambda t: t.name)


def encoded(type: BlockType) -> np.ndarray:
    values = np.random.default_rng(7).standard_normal(ROWS * COLS, dtype=np.float32)
    return _native.quantize(
        BlockType.F32, values.view(np.uint8), ROWS, COLS, type, "nearest", None, 1
    )


@TYPES
def test_weights_are_offset_plus_scale_times_code(type: BlockType) -> None:
    layout, blocks = LAYOUTS[type], encoded(type)
    rng = np.random.default_rng(1)
    codes = rng.integers(layout.smallest, layout.largest + 1, (ROWS, COLS)).astype(np.uint8)
    scale, offset = (np.repeat(part, layout.group, axis=1) for part in grid(type, blocks, ROWS))
    decoded = dequantize(type, put_codes(type, blocks, codes), (ROWS, COLS))
    np.testing.assert_allclose(offset + scale * codes, decoded, rtol=1e-6, atol=1e-6)


@TYPES
def test_every_code_is_reached(type: BlockType) -> None:
    layout, blocks = LAYOUTS[type], encoded(type)
    decoded = set()
    for code in range(layout.smallest, layout.largest + 1):
        same = put_codes(type, blocks, np.full((ROWS, COLS), code, np.uint8))
        decoded.add(float(dequantize(type, same, (ROWS, COLS))[0, 0]))
    assert len(decoded) == layout.largest - layout.smallest + 1


@TYPES
def test_scales_stay(type: BlockType) -> None:
    blocks = encoded(type)
    changed = put_codes(type, blocks, np.full((ROWS, COLS), 1, np.uint8))
    for before, after in zip(grid(type, blocks, ROWS), grid(type, changed, ROWS), strict=True):
        np.testing.assert_array_equal(before, after)
