"""The metadata of a GGUF file: its types of values, from bytes to Python and back.

A value is a Python ``bool``, ``int``, ``float`` or ``str``, a ``list[str]``, or a one-dimensional
numpy array of numbers or bools. GGUF has eight types of integers and two of floats, Python one of
each. One rule ties them together, in both directions:

- a plain ``int`` is u32 if it fits, else u64; a negative one is i32 if it fits, else i64;
- a plain ``float`` is f32, the only float that llama.cpp accepts for its keys;
- any other type has a class of its own below, such as ``Int32(5)``, which still is an ``int``.

So a value that was read is written back with the type it had. A numpy scalar is written with its
own type. Strings are UTF-8 as the format demands: bytes that are not are refused, so that no string
from a file can fail to print or to encode later. Format: docs/gguf.md of ggml.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pocketlm.errors import RequestError
from pocketlm.gguf.cursor import Cursor

Value: TypeAlias = bool | int | float | str | list[str] | npt.NDArray[Any]

# Far above every real file; a hostile one of many gigabytes cannot ask for more than this.
MAX_KEYS = 1 << 16
MAX_KEY_BYTES = (1 << 16) - 1
MAX_STRING_BYTES = 1 << 28
MAX_STRINGS = 1 << 24
MAX_NUMBERS = 1 << 30

SMALLEST_ENTRY = 8 + 1 + 4 + 1  # key length, key, type, value


class ValueType(IntEnum):
    """What kind of value follows, with the ids that stand in a file."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


class Uint8(int):
    """An int that is written as u8."""


class Int8(int):
    """An int that is written as i8."""


class Uint16(int):
    """An int that is written as u16."""


class Int16(int):
    """An int that is written as i16."""


class Uint32(int):
    """An int that is written as u32."""


class Int32(int):
    """An int that is written as i32."""


class Uint64(int):
    """An int that is written as u64."""


class Int64(int):
    """An int that is written as i64."""


class Float64(float):
    """A float that is written as f64."""


# A type: (struct format, numpy dtype), both little-endian
_NUMBERS: dict[ValueType, tuple[struct.Struct, np.dtype[Any]]] = {
    ValueType.UINT8: (struct.Struct("<B"), np.dtype("<u1")),
    ValueType.INT8: (struct.Struct("<b"), np.dtype("<i1")),
    ValueType.UINT16: (struct.Struct("<H"), np.dtype("<u2")),
    ValueType.INT16: (struct.Struct("<h"), np.dtype("<i2")),
    ValueType.UINT32: (struct.Struct("<I"), np.dtype("<u4")),
    ValueType.INT32: (struct.Struct("<i"), np.dtype("<i4")),
    ValueType.FLOAT32: (struct.Struct("<f"), np.dtype("<f4")),
    ValueType.BOOL: (struct.Struct("<B"), np.dtype("<u1")),
    ValueType.UINT64: (struct.Struct("<Q"), np.dtype("<u8")),
    ValueType.INT64: (struct.Struct("<q"), np.dtype("<i8")),
    ValueType.FLOAT64: (struct.Struct("<d"), np.dtype("<f8")),
}
_TYPE_OF_DTYPE = {
    dtype.str[1:]: type for type, (_, dtype) in _NUMBERS.items() if type is not ValueType.BOOL
} | {"b1": ValueType.BOOL}
_CLASSES: dict[ValueType, type[int] | type[float]] = {
    ValueType.UINT8: Uint8,
    ValueType.INT8: Int8,
    ValueType.UINT16: Uint16,
    ValueType.INT16: Int16,
    ValueType.UINT32: Uint32,
    ValueType.INT32: Int32,
    ValueType.UINT64: Uint64,
    ValueType.INT64: Int64,
    ValueType.FLOAT64: Float64,
}
_TYPE_OF_CLASS = {cls: type for type, cls in _CLASSES.items()}


def read_metadata(cursor: Cursor, count: int) -> dict[str, Value]:
    """`count` entries from the cursor on, in the file's order.

    Raises:
        ModelFileError: an entry breaks the format or a limit above.
    """
    metadata: dict[str, Value] = {}
    for index in range(count):
        at = cursor.offset
        key = cursor.string(f"metadata key {index}", limit=MAX_KEY_BYTES)
        if not key:
            raise cursor.error(f"metadata key {index} is empty", at=at)
        if key in metadata:
            raise cursor.error(f"metadata key {key!r} stands twice in the file", at=at)
        metadata[key] = _read_value(cursor, key)
    return metadata


def _read_type(cursor: Cursor, what: str) -> ValueType:
    at = cursor.offset
    id = cursor.u32(what)
    if id > ValueType.FLOAT64:
        raise cursor.error(f"{what} is {id}, not one of 0 to {int(ValueType.FLOAT64)}", at=at)
    return ValueType(id)


def _read_value(cursor: Cursor, key: str) -> Value:
    type = _read_type(cursor, f"value type of {key!r}")
    if type is ValueType.STRING:
        return cursor.string(repr(key), limit=MAX_STRING_BYTES)
    if type is ValueType.ARRAY:
        return _read_array(cursor, key)
    at = cursor.offset
    value = cursor.unpack(_NUMBERS[type][0], repr(key))
    if type is ValueType.BOOL:
        if value > 1:
            raise cursor.error(f"{key!r} is a bool of value {value}, not 0 or 1", at=at)
        return bool(value)
    if type is ValueType.FLOAT32 or type is _plain_int(value):
        return value
    return _CLASSES[type](value)


def _read_array(cursor: Cursor, key: str) -> Value:
    at = cursor.offset
    type = _read_type(cursor, f"element type of {key!r}")
    if type is ValueType.ARRAY:
        raise cursor.error(f"{key!r} is an array of arrays, which GGUF does not have", at=at)
    what = f"array length of {key!r}"
    if type is ValueType.STRING:
        return cursor.strings(cursor.count(what, each=8, limit=MAX_STRINGS), repr(key))
    dtype = _NUMBERS[type][1]
    at = cursor.offset
    count = cursor.count(what, each=dtype.itemsize, limit=MAX_NUMBERS)
    values = cursor.numbers(dtype, count, repr(key))
    if type is ValueType.BOOL:
        if count and values.max() > 1:
            raise cursor.error(f"{key!r} has a bool that is neither 0 nor 1", at=at)
        return values.view(np.bool_)
    return values


def _plain_int(value: int | float) -> ValueType | None:
    """The type of a plain int; None for a float and where no type of GGUF is wide enough."""
    if isinstance(value, float):
        return None
    if value >= 0:
        if value < 1 << 32:
            return ValueType.UINT32
        return ValueType.UINT64 if value < 1 << 64 else None
    if value >= -1 << 31:
        return ValueType.INT32
    return ValueType.INT64 if value >= -1 << 63 else None


def value_type(value: Value) -> ValueType:
    """The type that a value is written with, by the rule above.

    Raises:
        RequestError: GGUF has no type for it.
    """
    if isinstance(value, str):
        return ValueType.STRING
    if isinstance(value, list | np.ndarray):
        return ValueType.ARRAY
    if isinstance(value, np.generic):
        found = _TYPE_OF_DTYPE.get(value.dtype.str[1:])
    elif isinstance(value, bool):
        found = ValueType.BOOL
    elif type(value) in _TYPE_OF_CLASS:
        found = _TYPE_OF_CLASS[type(value)]
    elif isinstance(value, float):
        found = ValueType.FLOAT32
    else:
        found = _plain_int(value) if isinstance(value, int) else None
    if found is None:
        raise RequestError(f"GGUF has no type for {value!r:.80} ({type(value).__name__})")
    return found


def encode_metadata(metadata: Mapping[str, Value]) -> bytes:
    """The entries as they stand in a file, in the mapping's order.

    Raises:
        RequestError: a key or a value that GGUF cannot hold.
    """
    return b"".join(_encode_entry(key, value) for key, value in metadata.items())


def _encode_entry(key: str, value: Value) -> bytes:
    try:
        name = encode_string(key)
        if not 0 < len(name) - 8 <= MAX_KEY_BYTES:
            raise RequestError(f"a key has 1 to {MAX_KEY_BYTES} bytes, found {len(name) - 8}")
        return name + _encode_value(value)
    except RequestError as error:
        raise RequestError(f"metadata {key!r:.80}: {error.message}") from None
    except (struct.error, OverflowError) as error:
        raise RequestError(f"metadata {key!r:.80}: {value!r:.80} does not fit its type") from error


def encode_string(text: str) -> bytes:
    """A u64 length and UTF-8. Raises RequestError for lone surrogates."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{text!r:.80} is not text that UTF-8 can hold") from error
    return struct.pack("<Q", len(data)) + data


def _encode_value(value: Value) -> bytes:
    type = value_type(value)
    head = struct.pack("<I", type)
    if isinstance(value, str):
        return head + encode_string(value)
    if isinstance(value, list):
        if not all(isinstance(item, str) for item in value):
            raise RequestError("a list holds strings; numbers go into a numpy array")
        head += struct.pack("<IQ", ValueType.STRING, len(value))
        return head + b"".join(map(encode_string, value))
    if isinstance(value, np.ndarray):
        element = _TYPE_OF_DTYPE.get(value.dtype.str[1:])
        if element is None or value.ndim != 1:
            raise RequestError(f"GGUF has no array of {value.dtype} in {value.ndim} dimensions")
        head += struct.pack("<IQ", element, value.size)
        numbers: bytes = value.astype(_NUMBERS[element][1]).tobytes()
        return head + numbers
    return head + _NUMBERS[type][0].pack(value)
