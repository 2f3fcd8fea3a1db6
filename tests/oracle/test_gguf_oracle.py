"""The GGUF floor against two other implementations: the `gguf` package and ggml's own C code.

ggml's functions are called in the shared object of the xllamacpp wheel, which exports them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketlm.gguf import (
    BlockType,
    GGUFFile,
    TensorData,
    block_bytes,
    block_elements,
    decodable,
    dequantize,
    tensor_nbytes,
    write_gguf,
)
from pocketlm.gguf.metadata import Float64, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint64, Value

pytestmark = pytest.mark.oracle

gguf = pytest.importorskip("gguf")

GGML = [type for type in BlockType if type is not BlockType.I2_S]  # which is bitnet.cpp's
DECODED = [type for type in GGML if decodable(type)]
# where the f16 scales of a block lie
SCALES = {
    BlockType.Q4_0: [0],
    BlockType.Q4_1: [0, 2],
    BlockType.Q5_0: [0],
    BlockType.Q5_1: [0, 2],
    BlockType.Q8_0: [0],
    BlockType.Q2_K: [80, 82],
    BlockType.Q3_K: [108],
    BlockType.Q4_K: [0, 2],
    BlockType.Q5_K: [0, 2],
    BlockType.Q6_K: [208],
    BlockType.TQ1_0: [52],
    BlockType.TQ2_0: [64],
}
# 1, 0, -0, the smallest, the largest subnormal, the largest, infinities, a NaN
ODD_SCALES = [0x3C00, 0x0000, 0x8000, 0x0001, 0x83FF, 0x7BFF, 0x7C00, 0xFC00, 0x7E01]


def blocks(type: BlockType, *, odd: bool) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Random bytes, [blocks, bytes]: tame scales that stay finite, or every odd scale."""
    random = np.random.default_rng(int(type))
    count = 40 if odd else 500
    out = random.integers(0, 256, (count, block_bytes(type)), np.uint8)
    for place in SCALES.get(type, []):
        scales = random.normal(0, 0.02, count).astype("<f2").view("<u2")
        if odd:
            scales = random.choice(np.array(ODD_SCALES, "<u2"), count)
        out[:, place : place + 2] = scales.astype("<u2").view(np.uint8).reshape(count, 2)
    return out


def assert_same_bits(found: Any, wanted: Any) -> None:
    """Equal bit for bit; NaNs need only be in the same places."""
    found, wanted = np.ravel(found), np.ravel(wanted).astype(np.float32)
    nan = np.isnan(wanted)
    np.testing.assert_array_equal(np.isnan(found), nan)
    np.testing.assert_array_equal(found.view("<u4")[~nan], wanted.view("<u4")[~nan])


# --- decoding -----------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", [False, True], ids=["tame", "odd"])
@pytest.mark.parametrize("type", DECODED, ids=lambda type: type.name)
def test_decodes_as_the_gguf_package(type: BlockType, odd: bool) -> None:
    data = blocks(type, odd=odd)
    shape = (4, data.shape[0] // 4 * block_elements(type))
    found = dequantize(type, data.reshape(-1), shape)
    with np.errstate(all="ignore"):
        if type.name in ("I8", "I16", "I32", "I64", "F64"):  # the package leaves these alone
            numbers = data.reshape(-1).view(f"<{type.name[0].lower()}{block_bytes(type)}")
            wanted = numbers.astype(np.float32)
        else:
            wanted = gguf.quants.dequantize(data, gguf.GGMLQuantizationType(int(type)))
    assert_same_bits(found, wanted)


class Traits(ctypes.Structure):
    """ggml.h: struct ggml_type_traits."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
        ("from_float", ctypes.c_void_p),
    )


@pytest.fixture(scope="module")
def ggml() -> ctypes.CDLL:
    core = pytest.importorskip("xllamacpp.xllamacpp")
    library = ctypes.CDLL(core.__file__)
    if not hasattr(library, "ggml_get_type_traits"):
        pytest.skip("this build of xllamacpp does not export ggml")
    library.ggml_get_type_traits.restype = ctypes.POINTER(Traits)
    return library


@pytest.mark.parametrize("type", GGML, ids=lambda type: type.name)
def test_sizes_are_those_of_ggml(ggml: ctypes.CDLL, type: BlockType) -> None:
    traits = ggml.ggml_get_type_traits(int(type)).contents
    assert traits.type_name.decode().upper() == type.name
    assert traits.blck_size == block_elements(type)
    assert traits.type_size == block_bytes(type)


@pytest.mark.parametrize("odd", [False, True], ids=["tame", "odd"])
@pytest.mark.parametrize(
    "type",
    [t for t in DECODED if t.name not in ("F32", "F64", "I8", "I16", "I32", "I64")],
    ids=lambda type: type.name,
)
def test_decodes_as_ggml(ggml: ctypes.CDLL, type: BlockType, odd: bool) -> None:
    data = blocks(type, odd=odd)
    count = data.shape[0] * block_elements(type)
    wanted = np.empty(count, np.float32)
    to_float = ggml.ggml_get_type_traits(int(type)).contents.to_float
    to_float(data.ctypes.data, wanted.ctypes.data, count)
    assert_same_bits(dequantize(type, data.reshape(-1), (count,)), wanted)


# --- files --------------------------------------------------------------------------------------

METADATA: dict[str, Value] = {
    "general.architecture": "llama",
    "u8": Uint8(255),
    "i8": Int8(-128),
    "u16": Uint16(65535),
    "i16": Int16(-32768),
    "u32": 2**32 - 1,
    "i32": Int32(-(2**31)),
    "u64": Uint64(2**64 - 1),
    "i64": Int64(-(2**63)),
    "f32": 0.5,
    "f64": Float64(0.1),
    "yes": True,
    "no": False,
    "text": "naïve \U0001f999\n",
    "empty": "",
    "strings": ["a", "", "日本語"],
    "i32s": np.array([-1, 2, 3], np.int32),
    "f32s": np.array([0.5, -0.25], np.float32),
    "f64s": np.array([0.1], np.float64),
    "u8s": np.arange(5, dtype=np.uint8),
    "bools": np.array([True, False, True]),
}
SHAPES = {"one": (5,), "two": (3, 256), "three": (2, 3, 32), "four": (2, 1, 2, 256)}


def tensors() -> Iterator[TensorData]:
    random = np.random.default_rng(1)
    for name, shape in SHAPES.items():
        for type in GGML:
            if shape[-1] % block_elements(type) == 0:
                data = random.integers(0, 256, tensor_nbytes(type, shape), np.uint8)
                yield TensorData(f"{name}.{type.name}", type, shape, data)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    path = tmp_path / "ours.gguf"
    write_gguf(path, METADATA, tensors())
    return path


def test_the_package_reads_what_we_write(ours: Path) -> None:
    known = {int(type) for type in gguf.GGMLQuantizationType}
    kept = [t for t in tensors() if int(t.type) in known and t.type is not BlockType.Q8_1]
    write_gguf(ours, METADATA, kept)  # the package refuses types it does not know
    reader = gguf.GGUFReader(ours)
    for key, value in METADATA.items():
        found = reader.fields[key].contents()
        wanted = value.tolist() if isinstance(value, np.ndarray) else value
        if key in ("f32s", "f64s", "bools", "i32s", "u8s"):
            assert [float(item) for item in found] == [float(item) for item in wanted], key
        else:
            assert found == wanted, key
    read = {tensor.name: tensor for tensor in reader.tensors}
    assert list(read) == [tensor.name for tensor in kept]
    for tensor in kept:
        assert int(read[tensor.name].tensor_type) == tensor.type
        assert tuple(read[tensor.name].shape.tolist()[::-1]) == tuple(tensor.shape)
        assert read[tensor.name].data.tobytes() == bytes(tensor.data)  # type: ignore[arg-type]


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for kind in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"):
        value = int(np.iinfo(kind).min) + 7
        getattr(writer, f"add_{kind}")(f"k.{kind}", value)
    writer.add_float32("k.float32", 0.1)
    writer.add_float64("k.float64", 0.1)
    writer.add_bool("k.bool", True)
    writer.add_string("k.string", "héllo")
    writer.add_array("k.strings", ["x", "", "ÿ"])
    writer.add_array("k.ints", [1, -2, 3])
    writer.add_array("k.floats", [0.5, 0.1])
    writer.add_array("k.bools", [True, False])
    for type in (BlockType.Q4_K, BlockType.Q5_1, BlockType.TQ1_0):
        data = blocks(type, odd=False)[:6].reshape(3, -1)
        writer.add_tensor(type.name, data, raw_dtype=gguf.GGMLQuantizationType(int(type)))
    writer.add_tensor("floats", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_we_read_what_the_package_writes(theirs: Path) -> None:
    with GGUFFile.open(theirs) as file:
        found = {
            k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in file.metadata.items()
        }
        assert found == {
            "general.architecture": "llama",
            "k.uint8": 7,
            "k.int8": -121,
            "k.uint16": 7,
            "k.int16": -32761,
            "k.uint32": 7,
            "k.int32": -(2**31) + 7,
            "k.uint64": 7,
            "k.int64": -(2**63) + 7,
            "k.float32": float(np.float32(0.1)),
            "k.float64": 0.1,
            "k.bool": True,
            "k.string": "héllo",
            "k.strings": ["x", "", "ÿ"],
            "k.ints": [1, -2, 3],
            "k.floats": [0.5, float(np.float32(0.1))],
            "k.bools": [True, False],
        }
        assert file.tensor("floats").tolist() == [[0, 1, 2], [3, 4, 5]]
        for type in (BlockType.Q4_K, BlockType.Q5_1, BlockType.TQ1_0):
            assert file.tensors[type.name].shape == (3, 2 * block_elements(type))
            wanted = blocks(type, odd=False)[:6]
            assert file.tensor_bytes(type.name).tobytes() == wanted.tobytes()


def test_the_package_s_file_written_again_is_the_same_bytes(theirs: Path, tmp_path: Path) -> None:
    with GGUFFile.open(theirs) as file:
        infos = file.tensors.values()
        again = [TensorData(i.name, i.type, i.shape, file.tensor_bytes(i.name)) for i in infos]
        write_gguf(tmp_path / "again.gguf", file.metadata, again)
    assert (tmp_path / "again.gguf").read_bytes() == theirs.read_bytes()


@pytest.mark.real
@pytest.mark.parametrize("name", ["smollm2:135m", "gemma3:270m"])
def test_a_real_model_reads_as_with_the_package(
    name: str, real_model: Callable[[str], Path]
) -> None:
    path = real_model(name)
    reader = gguf.GGUFReader(path)
    with GGUFFile.open(path) as file:
        assert list(file.metadata) == [k for k in reader.fields if not k.startswith("GGUF.")]
        assert file.metadata["tokenizer.ggml.tokens"] == (
            reader.fields["tokenizer.ggml.tokens"].contents()
        )
        assert list(file.tensors) == [tensor.name for tensor in reader.tensors]
        smallest: dict[int, Any] = {}  # of each block type
        for tensor in sorted(reader.tensors, key=lambda tensor: -tensor.n_elements):
            info = file.tensors[tensor.name]
            assert (info.type, info.offset) == (tensor.tensor_type, tensor.data_offset)
            assert (info.shape[::-1], info.nbytes) == (tuple(tensor.shape), tensor.n_bytes)
            smallest[info.type] = tensor
        for tensor in smallest.values():
            wanted = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            assert_same_bits(file.tensor(tensor.name), wanted)


class InitParams(ctypes.Structure):
    """gguf.h: struct gguf_init_params."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def test_ggml_reads_what_we_write(ggml: ctypes.CDLL, ours: Path) -> None:
    pointer = ctypes.c_void_p
    results = {
        "gguf_init_from_file": pointer,
        "gguf_get_n_kv": ctypes.c_int64,
        "gguf_get_n_tensors": ctypes.c_int64,
        "gguf_find_key": ctypes.c_int64,
        "gguf_get_key": ctypes.c_char_p,
        "gguf_get_val_str": ctypes.c_char_p,
        "gguf_get_val_u64": ctypes.c_uint64,
        "gguf_get_val_f64": ctypes.c_double,
        "gguf_get_arr_n": ctypes.c_size_t,
        "gguf_get_tensor_name": ctypes.c_char_p,
        "gguf_get_tensor_type": ctypes.c_int,
        "gguf_get_tensor_size": ctypes.c_size_t,
        "gguf_get_tensor_offset": ctypes.c_size_t,
        "gguf_get_data_offset": ctypes.c_size_t,
    }
    for name, result in results.items():
        getattr(ggml, name).restype = result
    ggml.gguf_init_from_file.argtypes = [ctypes.c_char_p, InitParams]
    opened = ggml.gguf_init_from_file(bytes(ours), InitParams(True, None))
    assert opened, "ggml refused the file"
    file = pointer(opened)
    try:
        count = ggml.gguf_get_n_kv(file)
        keys = [ggml.gguf_get_key(file, ctypes.c_int64(i)).decode() for i in range(count)]
        assert keys == list(METADATA)

        def key(name: str) -> ctypes.c_int64:
            return ctypes.c_int64(ggml.gguf_find_key(file, name.encode()))

        assert ggml.gguf_get_val_str(file, key("text")).decode() == METADATA["text"]
        assert ggml.gguf_get_val_u64(file, key("u64")) == 2**64 - 1
        assert ggml.gguf_get_val_f64(file, key("f64")) == 0.1
        assert ggml.gguf_get_arr_n(file, key("strings")) == 3
        base = ggml.gguf_get_data_offset(file)
        infos = list(GGUFFile.open(ours).tensors.values())
        assert ggml.gguf_get_n_tensors(file) == len(infos)
        for i, info in enumerate(infos):
            index = ctypes.c_int64(i)
            assert ggml.gguf_get_tensor_name(file, index).decode() == info.name
            assert ggml.gguf_get_tensor_type(file, index) == info.type
            assert ggml.gguf_get_tensor_size(file, index) == info.nbytes
            assert base + ggml.gguf_get_tensor_offset(file, index) == info.offset
    finally:
        ggml.gguf_free(file)
