"""Safetensors headers and folders: what good ones give, and every way a bad one is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketlm.errors import ModelFileError, UnsupportedError
from pocketlm.gguf import BlockType
from pocketlm.models.safetensors import FolderSource, read_folder, read_header, read_json


def write(path: Path, header: object, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + text + data)
    return path


def tensor(dtype: Any = "F32", shape: Any = (2, 2), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_float_types_are_read(tmp_path: Path) -> None:
    values = np.array([[1.0, -2.5], [3.0, 0.0]], dtype=np.float32)
    bf16 = (values.view(np.uint32) >> 16).astype("<u2")
    data = values.tobytes() + values.astype("<f2").tobytes() + bf16.tobytes()
    header = {
        "__metadata__": {"format": "pt"},
        "a": tensor(),
        "b": tensor("F16", (2, 2), (16, 24)),
        "c": tensor("BF16", (4,), (24, 32)),
    }
    write(tmp_path / "model.safetensors", header, data)
    source = FolderSource(tmp_path, read_folder(tmp_path), {"a": "token_embd.weight"})
    assert set(source.names()) == {"token_embd.weight", "b", "c"}
    matrix = source.matrix("token_embd.weight")
    assert (matrix.type, matrix.rows, matrix.cols) == (BlockType.F32, 2, 2)
    assert matrix.data.tobytes() == values.tobytes()
    assert source.type("b") == BlockType.F16
    np.testing.assert_array_equal(source.vector("b"), values.ravel())
    np.testing.assert_array_equal(source.vector("c"), values.ravel())
    with pytest.raises(ModelFileError, match="'d' is missing"):
        source.vector("d")


BAD_ENTRIES = [
    5,
    {},
    tensor(dtype=7),
    tensor(shape=[2, -2]),
    tensor(shape=[2, 2.0]),
    tensor(shape=[True, 4]),
    tensor(shape=[1] * 9),
    tensor(shape=[2**62, 4]),
    tensor(shape=[3, 2]),
    tensor(shape="22"),
    tensor(offsets=[0]),
    tensor(offsets=[0, 17]),
    tensor(offsets=[16, 0]),
    tensor(offsets=[-16, 0]),
    tensor(offsets=[0, 2**63]),
    tensor(offsets=None),
]


@pytest.mark.parametrize("entry", BAD_ENTRIES, ids=str)
def test_bad_entry_names_its_tensor(entry: object, tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", {"layer.w": entry}, bytes(16))
    with pytest.raises(ModelFileError, match=r"tensor 'layer\.w'"):
        read_header(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x05",
        (2**63).to_bytes(8, "little") + b"{}",
        (200).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{]",
        (4).to_bytes(8, "little") + b"\xff\xfe{}",
        (100_000).to_bytes(8, "little") + b"[" * 100_000,
    ],
    ids=range(8),
)
def test_bad_header(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="header"):
        read_header(path)


def test_overlapping_tensors(tmp_path: Path) -> None:
    header = {"a": tensor(), "b": tensor(offsets=(8, 24))}
    with pytest.raises(ModelFileError, match="'a' and 'b' overlap"):
        read_header(write(tmp_path / "m.safetensors", header, bytes(24)))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_mutation_is_read_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    write(path, {"a": tensor(), "b": tensor("BF16", (4,), (16, 24))}, bytes(24))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        entries = read_header(path)
    except ModelFileError:
        return
    size = path.stat().st_size
    assert all(0 <= e.begin <= e.end <= size for e in entries.values())


def sharded(folder: Path, weight_map: object) -> None:
    write(folder / "one.safetensors", {"a": tensor()}, bytes(16))
    write(folder / "two.safetensors", {"b": tensor()}, bytes(16))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards(tmp_path: Path) -> None:
    sharded(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    entries = read_folder(tmp_path)
    assert {n: e.file.name for n, e in entries.items()} == {
        "a": "one.safetensors",
        "b": "two.safetensors",
    }


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        (None, "weight_map"),
        ({"a": 1}, "weight_map"),
        ({"a": "../one.safetensors"}, r"\.\./one"),
        ({"a": "/etc/passwd"}, "/etc/passwd"),
        ({"a": "..\\one.safetensors"}, "one"),
        ({"a": "one.bin"}, "one.bin"),
        ({"a": "two.safetensors"}, "'a' is not in"),
        ({"a": "three.safetensors"}, "cannot be read"),
    ],
)
def test_hostile_index(weight_map: object, message: str, tmp_path: Path) -> None:
    sharded(tmp_path, weight_map)
    with pytest.raises(ModelFileError, match=message):
        read_folder(tmp_path)


def test_folders_without_safetensors(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"no model\.safetensors"):
        read_folder(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(UnsupportedError, match="pickled"):
        read_folder(tmp_path)


def test_quantized_dtype_names_its_tensor(tmp_path: Path) -> None:
    header = {"w": tensor("F8_E4M3", (4, 4), (0, 16))}
    write(tmp_path / "model.safetensors", header, bytes(16))
    source = FolderSource(tmp_path, read_folder(tmp_path), {})
    with pytest.raises(UnsupportedError, match="'w' holds F8_E4M3"):
        source.matrix("w")


@pytest.mark.parametrize("text", ["", "[1]", "{", "\x00", "[" * 100_000, '{"a": ' * 50_000])
def test_hostile_json(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ModelFileError):
        read_json(path)
