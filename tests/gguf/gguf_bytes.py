"""GGUF files put together by hand, right or wrong: what the format's own tests read.

Written out apart from the package's writer, so that a mistake there cannot hide itself.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return u64(len(data)) + data


def entry(key: str | bytes, type: int, payload: bytes) -> bytes:
    return text(key) + u32(type) + payload


def array(key: str, type: int, count: int, payload: bytes) -> bytes:
    return entry(key, ARRAY, u32(type) + u64(count) + payload)


def tensor(
    name: str | bytes,
    ne: Sequence[int] = (32,),
    type: int = 0,
    offset: int = 0,
    *,
    n_dims: int | None = None,
) -> bytes:
    """`ne` is in the file's order: the length of a row first."""
    dims = b"".join(map(u64, ne))
    return text(name) + u32(len(ne) if n_dims is None else n_dims) + dims + u32(type) + u64(offset)


def gguf(
    entries: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_tensors: int | None = None,
    n_kv: int | None = None,
    alignment: int = 32,
) -> bytes:
    head = magic + u32(version)
    head += u64(len(tensors) if n_tensors is None else n_tensors)
    head += u64(len(entries) if n_kv is None else n_kv)
    head += b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % alignment) + data


def everything() -> bytes:
    """A sound file of about 700 bytes with every type of value and three tensors."""
    entries = [
        entry("general.architecture", STRING, text("llama")),
        entry("u8", U8, b"\xfe"),
        entry("i8", I8, b"\xfe"),
        entry("u16", U16, b"\xfe\xff"),
        entry("i16", I16, b"\xfe\xff"),
        entry("u32", U32, u32(7)),
        entry("i32", I32, struct.pack("<i", -7)),
        entry("i32.positive", I32, u32(7)),
        entry("f32", F32, struct.pack("<f", 0.1)),
        entry("yes", BOOL, b"\x01"),
        entry("no", BOOL, b"\x00"),
        entry("u64", U64, u64(2**64 - 1)),
        entry("u64.small", U64, u64(5)),
        entry("i64", I64, struct.pack("<q", -(2**63))),
        entry("f64", F64, struct.pack("<d", 0.1)),
        array("strings", STRING, 3, text("a") + text("") + text("é\0z")),
        array("no strings", STRING, 0, b""),
        array("bools", BOOL, 3, b"\x00\x01\x01"),
        array("i16s", I16, 2, struct.pack("<2h", -1, 2)),
        array("f32s", F32, 2, struct.pack("<2f", 1.5, -2.5)),
        array("u64s", U64, 1, u64(2**63)),
        array("no numbers", F64, 0, b""),
    ]
    tensors = [
        tensor("a.weight", (4, 3), 0, 0),
        tensor("b.weight", (32, 2), 8, 64),
        tensor("c", (2, 1, 1, 3), 1, 160),
    ]
    data = struct.pack("<12f", *range(12)) + bytes(16)
    data += (b"\x00\x3c" + bytes(range(32))) * 2 + bytes(28)
    data += struct.pack("<6e", *range(6)) + bytes(20)
    return gguf(entries, tensors, data)
