"""I2_S tensors in a file: taken for what they are only where nothing speaks against it."""

from __future__ import annotations

import gguf_bytes as b
import numpy as np
import pytest

from pocketlm.errors import ModelFileError, RequestError, UnsupportedError
from pocketlm.gguf import BlockType, GGUFFile, dequantize

I2_S = int(BlockType.I2_S)
BITNET = b.entry("general.architecture", b.STRING, b.text("bitnet-b1.58"))
LLAMA = b.entry("general.architecture", b.STRING, b.text("llama"))
ROW = 1024  # weights: 288 bytes of I2_S, 576 of IQ4_NL_4_4


def data(scale: float = 0.5) -> bytes:
    """A row of the codes 0, 1, 2, 0: by their bits 00 01 10 00."""
    return bytes([0b00_01_10_00]) * (ROW // 4) + np.float32(scale).tobytes() + bytes(28)


def file(entry: bytes, tensors: list[bytes], contents: bytes) -> GGUFFile:
    return GGUFFile.parse(b.gguf([entry], tensors, contents))


def test_weights_and_bytes() -> None:
    opened = file(BITNET, [b.tensor("t", (ROW,), I2_S)], data())
    assert opened.tensors["t"].nbytes == opened.tensor_bytes("t").size == ROW // 4 + 32
    block = np.repeat(np.array([-0.5, 0, 0.5, -0.5], dtype=np.float32), 32)
    np.testing.assert_array_equal(opened.tensor("t"), np.tile(block, ROW // 128))


def test_neighbours() -> None:
    tensors = [b.tensor("a", (ROW,), I2_S), b.tensor("b", (ROW,), I2_S, offset=288)]
    opened = file(BITNET, tensors, data(0.5) + data(3.0))
    assert float(opened.tensor("a").max()) == 0.5
    assert float(opened.tensor("b").max()) == 3.0


def test_other_architectures_never_had_it() -> None:
    with pytest.raises(UnsupportedError, match=r"'t' has block type 36, .* this is not I2_S"):
        file(LLAMA, [b.tensor("t", (ROW,), I2_S)], data())


@pytest.mark.parametrize("last", [False, True])
def test_tensors_with_the_room_of_the_older_type(last: bool) -> None:
    tensors = [b.tensor("t", (ROW,), I2_S)]
    if not last:
        tensors.append(b.tensor("next", (8,), offset=576))
    with pytest.raises(UnsupportedError, match="IQ4_NL_4_4"):
        file(BITNET, tensors, bytes(576 + 32 * (not last)))


@pytest.mark.parametrize("missing", [1, 32, 200])
def test_cut_off(missing: int) -> None:
    with pytest.raises(ModelFileError, match="ends at byte"):
        file(BITNET, [b.tensor("t", (ROW,), I2_S)], data()[:-missing])


def test_half_a_block() -> None:
    with pytest.raises(ModelFileError, match="not a whole number of I2_S blocks of 128"):
        file(BITNET, [b.tensor("t", (ROW + 64,), I2_S)], data() + bytes(64))


def test_too_few_bytes_to_decode() -> None:
    with pytest.raises(RequestError, match="takes 288 bytes, found 256"):
        dequantize(BlockType.I2_S, np.zeros(256, dtype=np.uint8), (ROW,))
