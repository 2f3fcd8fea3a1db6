"""The writer: typed values, streamed tensors, all or nothing. Round trips against the reader."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf_bytes as b
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketlm.errors import RequestError
from pocketlm.gguf import (
    BlockType,
    GGUFFile,
    TensorData,
    block_elements,
    gguf_nbytes,
    tensor_nbytes,
    write_gguf,
)
from pocketlm.gguf import metadata as values
from pocketlm.gguf.metadata import Value, ValueType, value_type


def tensors_of(file: GGUFFile) -> list[TensorData]:
    return [
        TensorData(i.name, i.type, i.shape, file.tensor_bytes(i.name))
        for i in file.tensors.values()
    ]


def floats(name: str = "t", count: int = 8) -> TensorData:
    return TensorData(name, BlockType.F32, (count,), np.arange(count, dtype=np.float32))


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (True, ValueType.BOOL),
        (0, ValueType.UINT32),
        (2**32 - 1, ValueType.UINT32),
        (2**32, ValueType.UINT64),
        (2**64 - 1, ValueType.UINT64),
        (-1, ValueType.INT32),
        (-(2**31), ValueType.INT32),
        (-(2**31) - 1, ValueType.INT64),
        (-(2**63), ValueType.INT64),
        (0.5, ValueType.FLOAT32),
        ("", ValueType.STRING),
        ([], ValueType.ARRAY),
        (np.zeros(2), ValueType.ARRAY),
        (values.Uint8(3), ValueType.UINT8),
        (values.Int64(3), ValueType.INT64),
        (values.Uint32(3), ValueType.UINT32),
        (values.Float64(0.5), ValueType.FLOAT64),
        (np.int16(3), ValueType.INT16),
        (np.float64(0.5), ValueType.FLOAT64),
        (np.float32(0.5), ValueType.FLOAT32),
        (np.bool_(True), ValueType.BOOL),
    ],
)
def test_rule_of_value_types(value: Value, wanted: ValueType) -> None:
    assert value_type(value) is wanted


@pytest.mark.parametrize(
    "value",
    [
        2**64,
        -(2**63) - 1,
        None,
        {},
        b"bytes",
        (1, 2),
        [1, 2],
        ["a", 1],
        np.zeros((2, 2)),
        np.zeros(2, complex),
        np.zeros(2, "S3"),
        np.array(["a"]),
        np.float16(1),
        values.Uint8(256),
        values.Int8(-129),
        1e300,
        "\ud800",
        ["\udcff"],
    ],
    ids=repr,
)
def test_values_that_gguf_cannot_hold(value: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="metadata 'k'"):
        write_gguf(tmp_path / "m.gguf", {"k": value}, [])
    assert not list(tmp_path.iterdir())


def test_typed_values_survive_pickling() -> None:
    again = pickle.loads(pickle.dumps(values.Int8(-3)))
    assert again == -3
    assert value_type(again) is ValueType.INT8


def test_big_endian_and_strided_arrays_are_written_by_value(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, {"a": np.arange(6, dtype=">i4")[::2], "b": np.array([True, False])}, [])
    file = GGUFFile.open(path)
    assert file.metadata["a"].tolist() == [0, 2, 4]  # type: ignore[union-attr]
    assert file.metadata["b"].tolist() == [True, False]  # type: ignore[union-attr]


# --- round trips --------------------------------------------------------------------------------


def test_read_and_written_again_is_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    file = GGUFFile.parse(b.everything())
    write_gguf(path, file.metadata, tensors_of(file))
    assert path.read_bytes() == b.everything()


@pytest.mark.real
def test_a_real_file_written_again_is_the_same_bytes(
    real_model: Callable[[str], Path], tmp_path: Path
) -> None:
    source, copy = real_model("smollm2:135m"), tmp_path / "m.gguf"
    file = GGUFFile.open(source)
    write_gguf(copy, file.metadata, tensors_of(file))
    size = source.stat().st_size
    assert copy.stat().st_size == size
    assert np.array_equal(np.memmap(source, np.uint8), np.memmap(copy, np.uint8))


_numbers = st.builds(
    lambda dtype, data: np.frombuffer(data[: len(data) // 8 * 8], dtype),
    st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]),
    st.binary(max_size=64),
)
_bools = st.lists(st.booleans(), max_size=9).map(lambda bools: np.array(bools, np.bool_))
_values = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(width=32, allow_nan=False),
    st.text(max_size=20),
    st.lists(st.text(max_size=8), max_size=6),
    _numbers,
    _bools,
    st.integers(-128, 127).map(values.Int8),
    st.integers(0, 2**64 - 1).map(values.Uint64),
    st.integers(-(2**63), 2**63 - 1).map(values.Int64),
    st.integers(0, 2**16 - 1).map(values.Uint16),
    st.floats(allow_nan=False).map(values.Float64),
)
_metadata = st.dictionaries(
    st.text(min_size=1, max_size=20).filter(
        lambda k: k not in ("general.alignment", "split.count")
    ),
    _values,
    max_size=8,
)


@st.composite
def _tensors(draw: st.DrawFn) -> list[TensorData]:
    names = draw(st.lists(st.text(min_size=1, max_size=15), unique=True, max_size=5))
    made = []
    for name in names:
        type = draw(st.sampled_from(BlockType))
        rest = draw(st.lists(st.integers(1, 3), max_size=3))
        shape = (*rest, draw(st.integers(1, 3)) * block_elements(type))
        size = tensor_nbytes(type, shape)
        made.append(TensorData(name, type, shape, bytes(i % 251 for i in range(size))))
    return made


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(_metadata, _tensors(), st.sampled_from([8, 32, 256]))
def test_what_is_written_is_read(
    tmp_path: Path, metadata: dict[str, Value], tensors: list[TensorData], alignment: int
) -> None:
    path, again = tmp_path / "m.gguf", tmp_path / "again.gguf"
    write_gguf(path, metadata, tensors, alignment=alignment)
    with GGUFFile.open(path) as file:
        read = dict(file.metadata)
        assert file.alignment == alignment
        assert read.pop("general.alignment", 32) == alignment
        assert list(read) == list(metadata)
        for key, value in metadata.items():
            assert value_type(read[key]) is value_type(value)
            if isinstance(value, np.ndarray):
                assert read[key].dtype == value.dtype  # type: ignore[union-attr]
                assert read[key].tobytes() == value.tobytes()  # type: ignore[union-attr]
            else:
                assert read[key] == value
        assert list(file.tensors) == [tensor.name for tensor in tensors]
        for tensor in tensors:
            info = file.tensors[tensor.name]
            assert (info.type, info.shape) == (tensor.type, tuple(tensor.shape))
            assert info.offset % alignment == 0
            assert file.tensor_bytes(tensor.name).tobytes() == tensor.data
        write_gguf(again, file.metadata, tensors_of(file))
    assert again.read_bytes() == path.read_bytes()


# --- tensors ------------------------------------------------------------------------------------


def test_data_comes_as_bytes_arrays_chunks_or_functions(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    array = np.arange(12, dtype=np.float32)
    raw = array.tobytes()
    forms: dict[str, Any] = {
        "bytes": raw,
        "bytearray": bytearray(raw),
        "memoryview": memoryview(array),
        "array": array.reshape(3, 4),
        "not contiguous": np.repeat(array, 2)[::2],
        "list": [raw[:5], raw[5:], b""],
        "generator": (raw[i : i + 7] for i in range(0, 48, 7)),
        "function": lambda: raw,
        "function of arrays": lambda: iter([array[:5], array[5:]]),
    }
    tensors = [TensorData(n, BlockType.F32, (3, 4), data) for n, data in forms.items()]
    halves = array.astype(ml_dtypes.bfloat16)
    tensors.append(TensorData("bfloat16", BlockType.BF16, (12,), halves))
    write_gguf(path, {}, iter(tensors))
    with GGUFFile.open(path) as file:
        for name in forms:
            assert file.tensor(name).tolist() == array.reshape(3, 4).tolist(), name
        assert file.tensor("bfloat16").tolist() == array.tolist()


def test_one_tensor_at_a_time_is_in_memory(tmp_path: Path) -> None:
    alive: list[str] = []

    def data(name: str) -> Callable[[], Iterator[bytes]]:
        def chunks() -> Iterator[bytes]:
            assert not alive
            alive.append(name)
            yield bytes(16)
            yield bytes(16)
            alive.remove(name)

        return chunks

    tensors = [TensorData(n, BlockType.F32, (8,), data(n)) for n in ("a", "b", "c")]
    write_gguf(tmp_path / "m.gguf", {}, tensors)
    assert len(GGUFFile.open(tmp_path / "m.gguf").tensors) == 3


@pytest.mark.parametrize(
    ("tensor", "match"),
    [
        (TensorData("t", BlockType.F32, (2,), bytes(7)), "takes 8 bytes as F32 .* has 7"),
        (TensorData("t", BlockType.F32, (2,), bytes(9)), "has at least 9"),
        (TensorData("t", BlockType.F32, (2,), [bytes(8), bytes(8)]), "has at least 16"),
        (TensorData("t", BlockType.F32, (2,), np.zeros(2)), "has at least 16"),
        (TensorData("", BlockType.F32, (2,), bytes(8)), "has 0 bytes, expected 1 to 63"),
        (TensorData("n" * 64, BlockType.F32, (2,), bytes(8)), "has 64 bytes"),
        (TensorData("\udcff", BlockType.F32, (2,), bytes(8)), "UTF-8"),
        (TensorData("t", BlockType.F32, (), b""), "no weights"),
        (TensorData("t", BlockType.F32, (2, 0), b""), "no weights"),
        (TensorData("t", BlockType.F32, (1,) * 5, bytes(4)), "5 dimensions"),
        (TensorData("t", BlockType.Q4_K, (32,), bytes(18)), "Q4_K blocks of 256"),
        (TensorData("t", BlockType.F32, (1 << 62, 4), b""), "takes 73,786"),
        (TensorData("t", BlockType.TQ1_0, (1 << 70,), b""), "takes 249"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_tensors_that_cannot_be_written(tensor: TensorData, match: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"old")
    with pytest.raises(RequestError, match=match):
        write_gguf(path, {}, [floats("first"), tensor])
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_names_must_differ(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="'t' is given twice"):
        write_gguf(tmp_path / "m.gguf", {}, [floats(), floats()])


def test_keys_have_a_length(tmp_path: Path) -> None:
    for key in ("", "k" * 65536):
        with pytest.raises(RequestError, match="1 to 65535 bytes"):
            write_gguf(tmp_path / "m.gguf", {key: 1}, [])
    with pytest.raises(RequestError, match="UTF-8"):
        write_gguf(tmp_path / "m.gguf", {"\udcff": 1}, [])


# --- alignment ----------------------------------------------------------------------------------


def test_alignment(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"

    def written(metadata: dict[str, Value], alignment: int | None) -> tuple[object, int, int]:
        write_gguf(path, metadata, [floats("a", 1), floats("b", 1)], alignment=alignment)
        with GGUFFile.open(path) as file:
            gap = file.tensors["b"].offset - file.tensors["a"].offset
            return file.metadata.get("general.alignment"), file.alignment, gap

    assert written({}, None) == (None, 32, 32)
    assert written({}, 64) == (64, 64, 64)
    assert written({"general.alignment": 128}, None) == (128, 128, 128)
    assert written({"general.alignment": 128}, 64) == (64, 64, 64)
    for bad in (0, 4, 24, 1 << 21, -32):
        with pytest.raises(RequestError, match="alignment is"):
            written({}, bad)
    with pytest.raises(RequestError, match=r"general.alignment is '32'"):
        written({"general.alignment": "32"}, None)


# --- the file ---------------------------------------------------------------------------------


def test_an_open_file_can_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, {}, [floats("t", 8)])
    with GGUFFile.open(path) as old:
        write_gguf(path, {}, [TensorData("t", BlockType.F32, (2,), bytes(8))])
        assert old.tensor("t").tolist() == list(range(8))
    assert GGUFFile.open(path).tensor("t").tolist() == [0, 0]


def test_block_sizes_reach_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    tensors = [
        TensorData(
            t.name, t, (2, block_elements(t)), bytes(tensor_nbytes(t, (2, block_elements(t))))
        )
        for t in BlockType
    ]
    write_gguf(path, {}, tensors)
    with GGUFFile.open(path) as file:
        assert [info.type for info in file.tensors.values()] == list(BlockType)


@pytest.mark.parametrize("alignment", [None, 8, 256])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_size_is_known_without_data(alignment: int | None, count: int, tmp_path: Path) -> None:
    tensors = [floats(f"t{i}", 3 + i) for i in range(count)]
    metadata: dict[str, Value] = {"general.architecture": "x", "tokens": ["a", "ü", ""]}
    write_gguf(tmp_path / "m.gguf", metadata, tensors, alignment=alignment)
    bare = [TensorData(t.name, t.type, t.shape, b"") for t in tensors]
    size = gguf_nbytes(metadata, bare, alignment=alignment)
    assert size == (tmp_path / "m.gguf").stat().st_size
    with pytest.raises(RequestError, match="given twice"):
        gguf_nbytes(metadata, [floats("same"), floats("same")])
