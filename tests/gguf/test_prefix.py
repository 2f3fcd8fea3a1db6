"""A GGUF file read from its first bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pocketlm.errors import ModelFileError
from pocketlm.gguf import BlockType, GGUFFile, TensorData, write_gguf
from pocketlm.gguf.prefix import TooShortError, parse_prefix


@pytest.fixture
def path(tmp_path: Path) -> Path:
    weight = np.zeros((4, 320), np.float32)
    write_gguf(
        tmp_path / "m.gguf",
        {
            "general.architecture": "llama",
            "tokens": ["a", "bc", "", "a longer token"],
            "scores": np.arange(5, dtype=np.float32),
            "llama.block_count": 7,
        },
        [
            TensorData("token_embd.weight", BlockType.F32, weight.shape, weight),
            TensorData("output_norm.weight", BlockType.F32, (320,), weight[0]),
        ],
    )
    return tmp_path / "m.gguf"


def test_every_prefix_is_too_short_or_says_the_same(path: Path) -> None:
    data = path.read_bytes()
    with GGUFFile.open(path) as file:
        first = min(info.offset for info in file.tensors.values())
        for end in range(first + 1):
            try:
                part = parse_prefix(data[:end], len(data), path)
            except TooShortError:
                short = end
                continue
            assert dict(part.tensors) == dict(file.tensors)
            assert list(part.metadata) == list(file.metadata)
    assert first - 32 < short + 1 <= first


def test_what_breaks_the_format_is_an_error_and_not_too_short(path: Path) -> None:
    data = bytearray(path.read_bytes())
    with pytest.raises(ModelFileError, match="ends at byte"):
        parse_prefix(bytes(data[:1000]), 1000, path)
    data[8:16] = (1 << 60).to_bytes(8, "little")
    with pytest.raises(ModelFileError, match="n_tensors"):
        parse_prefix(bytes(data[:100]), len(data), path)
    with pytest.raises(ModelFileError, match="no GGUF file"):
        parse_prefix(b"PK\3\4" + bytes(96), len(data), path)
