"""Files that lie: each is refused with the right error, the field's name and its byte offset.

The table holds the handcrafted bad files of llama.cpp's own format test and the published ways
around its checks (names of CVEs and issues beside them); truncation and mutation cover the rest.
"""

from __future__ import annotations

import struct
import time
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path

import gguf_bytes as b
import numpy as np
import pytest

from pocketlm.errors import ModelFileError, PocketLMError, UnsupportedError
from pocketlm.gguf import GGUFFile

ARCHITECTURE = b.entry("general.architecture", b.STRING, b.text("llama"))
HEAD = 24  # magic, version, n_tensors, n_kv
AFTER_ARCHITECTURE = HEAD + len(ARCHITECTURE)
INT64_MAX = 2**63 - 1


@dataclass(frozen=True)
class Bad:
    """One bad file, what its error says, and the byte it points at."""

    name: str
    data: bytes = field(repr=False)
    match: str
    offset: int | None
    error: type[PocketLMError] = ModelFileError


def bad_entry(name: str, entry: bytes, match: str, at: int, **more: object) -> Bad:
    """The entry is the second one; `at` counts from its first byte."""
    data = b.gguf([ARCHITECTURE, entry], [], bytes(64))
    return Bad(name, data, match, AFTER_ARCHITECTURE + at, **more)  # type: ignore[arg-type]


def bad_tensor(name: str, tensor: bytes, match: str, at: int, **more: object) -> Bad:
    """The tensor is the only one; `at` counts from its first byte."""
    return Bad(name, b.gguf([], [tensor], bytes(64)), match, HEAD + at, **more)  # type: ignore[arg-type]


def aligned_to(type: int, payload: bytes, match: str, name: str) -> Bad:
    entry = b.entry("general.alignment", type, payload)
    return Bad(name, b.gguf([entry], [b.tensor("t")], bytes(256)), match, HEAD + len(entry))


# a tensor called "t": its n_dims stand 9 bytes after its start, its dimensions 13
N_DIMS, DIMS = 9, 13

HEADERS = [
    Bad("empty", b"", "the magic takes 4 bytes, but 0 are left", 0),
    Bad("half a magic", b"GG", "the magic takes 4 bytes", 0),
    Bad("bad magic", b.gguf(magic=b"FUGG"), "starts with b'FUGG', not b'GGUF'", 0),
    Bad("older format", b.gguf(magic=b"ggjt"), "it is no GGUF file", 0),
    Bad("version 0", b.gguf(version=0), "version is 0, expected 2 or 3", 4),
    Bad("version 1", b.gguf(version=1), "version is 1, expected", 4, UnsupportedError),
    Bad("version 4", b.gguf(version=4), "version is 4, expected", 4, UnsupportedError),
    Bad("version huge", b.gguf(version=2**32 - 1), "version is 4,294,967,295", 4),
    Bad("big-endian", b.gguf(version=3 << 24), "big-endian", 4, UnsupportedError),
    Bad("version only", b"GGUF" + b.u32(3), "n_tensors takes 8 bytes", 8),
    Bad("CVE-2024-21836 n_tensors", b.gguf(n_tensors=2**63), "n_tensors is 9,223,3", 8),
    Bad("n_tensors -1", b.gguf(n_tensors=2**64 - 1), "n_tensors is .* limit", 8),
    Bad("n_tensors over bytes", b.gguf([], [], bytes(64), n_tensors=9), "hold at most 2", 8),
    Bad(
        "n_tensors one more", b.gguf([], [b.tensor("t")], n_tensors=2), "n_tensors|length of", None
    ),
    Bad("CVE-2024-23605 n_kv", b.gguf(n_kv=2**64 - 1), "n_kv is .* limit", 16),
    Bad("n_kv over bytes", b.gguf(n_kv=3), "n_kv is 3, but the 8 bytes left hold at most 0", 16),
    Bad("n_kv one more", b.gguf([ARCHITECTURE], [], bytes(32), n_kv=2), "key 1 is empty", None),
]

ENTRIES = [
    bad_entry("bad key size", b.u64(2**60) + b"k", "length of metadata key 1 is 1,152", 0),
    bad_entry("key size over bytes", b.u64(60_000) + b"k", "length of metadata key 1 is 60,000", 0),
    bad_entry("empty key", b.entry("", b.U8, b"\0"), "metadata key 1 is empty", 0),
    bad_entry("key not UTF-8", b.entry(b"\xff\xfe", b.U8, b"\0"), "key 1 is not UTF-8", 0),
    bad_entry("key too long", b.entry("k" * 65536, b.U8, b"\0"), "65,536, more than the limit", 0),
    bad_entry("duplicate key", ARCHITECTURE, "'general.architecture' stands twice", 0),
    bad_entry("bad value type", b.entry("k", 13, b"\0"), "value type of 'k' is 13", 9),
    bad_entry("value type -1", b.entry("k", 2**32 - 1, b"\0"), "value type of 'k' is 4,?294", 9),
    bad_entry("bool 2", b.entry("k", b.BOOL, b"\2"), "'k' is a bool of value 2", 13),
    bad_entry("string not UTF-8", b.entry("k", b.STRING, b.text(b"\xc3(")), "'k' is not UTF-8", 13),
    bad_entry(
        "surrogate in a string", b.entry("k", b.STRING, b.text(b"\xed\xa0\x80")), "not UTF-8", 13
    ),
    bad_entry("1 GiB string", b.entry("k", b.STRING, b.u64(1 << 30)), "1,073,741,824, more", 13),
    bad_entry("string over bytes", b.entry("k", b.STRING, b.u64(999)), "length of 'k' is 999", 13),
    bad_entry("string -1", b.entry("k", b.STRING, b.u64(2**64 - 1)), "more than the limit", 13),
    bad_entry("array of arrays", b.array("k", b.ARRAY, 1, bytes(12)), "an array of arrays", 13),
    bad_entry("bad element type", b.array("k", 13, 1, b"\0"), "element type of 'k' is 13", 13),
    bad_entry("array length -1", b.array("k", b.U8, 2**64 - 1, b""), "array length of 'k'", 17),
    bad_entry("ggml#1516 1 GiB array", b.array("k", b.U8, 1 << 30, b""), "hold at most", 17),
    # 2^61 elements of 8 bytes are 2^64 bytes: 0 where the product wraps
    bad_entry("array bytes wrap", b.array("k", b.U64, 1 << 61, b""), "array length of 'k'", 17),
    bad_entry("array over bytes", b.array("k", b.U64, 20, bytes(8)), "hold at most", 17),
    bad_entry("strings wrap", b.array("k", b.STRING, 1 << 61, b""), "array length of 'k'", 17),
    bad_entry("strings over bytes", b.array("k", b.STRING, 99, b""), "hold at most", 17),
    bad_entry(
        "CVE-2025-49847 token length", b.array("k", b.STRING, 1, b.u64(2**63)), "its length is", 25
    ),
    bad_entry(
        "second string over bytes",
        b.array("k", b.STRING, 2, b.text("x") + b.u64(1 << 40)),
        "'k': string 1 of 2",
        25,
    ),
    bad_entry(
        "string of an array not UTF-8", b.array("k", b.STRING, 1, b.text(b"\xff")), "not UTF-8", 25
    ),
    bad_entry("bools of 2", b.array("k", b.BOOL, 3, b"\0\1\2"), "neither 0 nor 1", 17),
]

ALIGNMENTS = [
    aligned_to(b.U32, b.u32(0), "general.alignment is 0, expected a power of two", "align 0"),
    aligned_to(b.U32, b.u32(13), "general.alignment is 13", "bad align"),
    aligned_to(b.U32, b.u32(4), "general.alignment is 4", "align too small"),
    aligned_to(b.U32, b.u32(1 << 30), "1,073,741,824, expected", "ggml#1516 align 2^30"),
    aligned_to(b.U64, b.u64(32), "UINT64, expected a UINT32", "#25596 wrong-typed align"),
    aligned_to(b.I32, b.u32(32), "INT32, expected a UINT32", "align i32"),
    aligned_to(b.STRING, b.text("32"), "STRING, expected a UINT32", "align string"),
    aligned_to(b.BOOL, b"\1", "BOOL, expected a UINT32", "align bool"),
    aligned_to(b.ARRAY, b.u32(4) + b.u64(0), "ARRAY, expected a UINT32", "align array"),
]

TENSORS = [
    bad_tensor("name too long", b.tensor("n" * 65), "length of name of tensor 0 is 65", 0),
    bad_tensor("name huge", b.u64(2**64 - 1) + bytes(40), "length of name of tensor 0", 0),
    bad_tensor("name empty", b.tensor("") + b"\0", "the name of tensor 0 is empty", 0),
    bad_tensor("name not UTF-8", b.tensor(b"\xff"), "name of tensor 0 is not UTF-8", 0),
    bad_tensor("n_dims 0", b.tensor("t", n_dims=0), "has 0 dimensions", N_DIMS),
    bad_tensor("n_dims 5", b.tensor("t", (1,) * 5), "has 5 dimensions", N_DIMS),
    bad_tensor("CVE-2024-21825 n_dims", b.tensor("t", n_dims=2**32 - 1), "4,294,967,295", N_DIMS),
    bad_tensor("zero dim", b.tensor("t", (32, 0)), "zero dimension", DIMS),
    bad_tensor("negative dim", b.tensor("t", (2**64 - 32,)), "more than 2\\^63 weights", DIMS),
    bad_tensor("ne too big", b.tensor("t", (2**62, 2)), "more than 2\\^63 weights", DIMS),
    bad_tensor("ne wraps to 0", b.tensor("t", (2**32, 2**32)), "more than 2\\^63", DIMS),
    bad_tensor("#27203 INT64_MAX x 2", b.tensor("t", (INT64_MAX, 2, 1, 1), 24), "2\\^63", DIMS),
    # SIZE_MAX / 4 floats: their bytes, padded, wrap to 0
    bad_tensor("#24759 padding wraps", b.tensor("t", (2**62 - 1,)), "ends at byte 18,446", 25),
    bad_tensor("CVE-2026-33298 nbytes", b.tensor("t", (2**61, 3)), "ends at byte", 33),
    bad_tensor("#18674 stride wraps", b.tensor("t", (32, 2**42 + 1), 8), "ends at byte", 33),
    bad_tensor("bad type", b.tensor("t", type=1000), "'t': block type 1000 is unknown", 21),
    bad_tensor("type -1", b.tensor("t", type=2**32 - 1), "block type 4294967295 is unknown", 21),
    bad_tensor("type 43", b.tensor("t", type=43), "may be newer", 21),
    bad_tensor("removed type", b.tensor("t", type=4), "has removed", 21, error=UnsupportedError),
    bad_tensor("I2_S half a block", b.tensor("t", (64,), 36), "I2_S blocks of 128", 21),
    bad_tensor("I2_S without its scale", b.tensor("t", (256,), 36), "ends at byte 160, but", 25),
    bad_tensor("ik type", b.tensor("t", (256,), 137), "ik_llama", 21, error=UnsupportedError),
    bad_tensor("half a block", b.tensor("t", (48,), 2), "rows of 48 .* Q4_0 blocks of 32", 21),
    bad_tensor("half a K block", b.tensor("t", (32,), 12), "Q4_K blocks of 256", 21),
    bad_tensor("offset unaligned", b.tensor("t", (4,), offset=4), "not a multiple of 32", 25),
    bad_tensor("offset past the end", b.tensor("t", (1,), offset=4096), "ends at byte", 25),
    bad_tensor("offset -32", b.tensor("t", (1,), offset=2**64 - 32), "ends at byte", 25),
    bad_tensor("not enough data", b.tensor("t", (17,)), "ends at byte 132, but .* 128", 25),
    Bad(
        "CVE-2026-7482 size past EOF",
        b.gguf([ARCHITECTURE], [b.tensor("t", (1 << 40,))], bytes(64)),
        "ends at byte 4,398",
        AFTER_ARCHITECTURE + 25,
    ),
    Bad(
        "duplicate tensor",
        b.gguf([], [b.tensor("t", (8,)), b.tensor("t", (8,), offset=32)], bytes(64)),
        "tensor 't' stands twice",
        HEAD + len(b.tensor("t")),
    ),
    Bad(
        "overlap",
        b.gguf([], [b.tensor("s", (9,)), b.tensor("t", (8,), offset=32)], bytes(64)),
        "tensor 't' shares bytes with tensor 's'",
        96 + 32,
    ),
    Bad(
        "same bytes twice",
        b.gguf([], [b.tensor("s", (8,)), b.tensor("t", (8,))], bytes(64)),
        "tensor 't' shares bytes with tensor 's'",
        96,
    ),
    Bad(
        "offset for another alignment",
        b.gguf(
            [b.entry("general.alignment", b.U32, b.u32(64))],
            [b.tensor("s", (8,)), b.tensor("t", (8,), offset=32)],
            bytes(256),
            alignment=64,
        ),
        "'t' has offset 32, not a multiple of 64",
        None,
    ),
]

SPLITS = [
    Bad(
        f"split.count {name}",
        b.gguf([b.entry("split.count", type, payload)], [], bytes(32)),
        match,
        None,
        error,
    )
    for name, type, payload, match, error in [
        ("2 in memory", b.U16, b"\2\0", "one of 2 files", UnsupportedError),
        ("huge", b.U64, b.u64(2**64 - 1), "expected an int from 0 to 4,096", ModelFileError),
        ("negative", b.I8, b"\xff", "split.count is -1", ModelFileError),
        ("string", b.STRING, b.text("2"), "split.count is '2'", ModelFileError),
    ]
]

TABLE = HEADERS + ENTRIES + ALIGNMENTS + TENSORS + SPLITS


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
def test_bad_file_is_refused(bad: Bad, tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(bad.data)
    tracemalloc.start()
    try:
        with pytest.raises(PocketLMError, match=bad.match) as caught:
            GGUFFile.parse(bad.data, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert type(caught.value) is bad.error
    assert caught.value.path == path
    if bad.offset is not None:
        assert caught.value.offset == bad.offset
    assert peak < 1 << 19
    if "split" not in bad.name:
        with pytest.raises(bad.error):
            GGUFFile.open(path)


def test_names_of_the_table_are_unique() -> None:
    names = [bad.name for bad in TABLE]
    assert len(set(names)) == len(names)


def test_truncation_at_every_byte() -> None:
    whole = b.everything()
    end = max(info.offset + info.nbytes for info in GGUFFile.parse(whole).tensors.values())
    for size in range(end):
        with pytest.raises(ModelFileError) as caught:
            GGUFFile.parse(whole[:size])
        assert caught.value.offset is not None
        assert caught.value.offset <= size
    for size in range(end, len(whole)):
        assert len(GGUFFile.parse(whole[:size]).tensors) == 3


def test_a_refused_file_is_unmapped(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(b.gguf([], [b.tensor("t", (17,))], bytes(64)))
    if not Path("/proc/self/maps").exists():
        pytest.skip("no /proc on this system")
    with pytest.raises(ModelFileError):
        GGUFFile.open(path)
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_many_entries_take_linear_time() -> None:
    entries = [b.entry(f"k{i}", b.U8, b"\0") for i in range(20_000)]
    tensors = [b.tensor(f"t{i}", (1,), offset=32 * i) for i in range(20_000)]
    data = b.gguf(entries, tensors, bytes(32 * 20_000))
    start = time.thread_time()
    assert len(GGUFFile.parse(data).tensors) == 20_000
    assert time.thread_time() - start < 5


def test_not_a_number_scales_decode_without_a_warning() -> None:
    blocks = b"".join(struct.pack("<H", scale) + bytes(32) for scale in (0x7E00, 0x7C00, 0xFC00))
    file = GGUFFile.parse(b.gguf([], [b.tensor("t", (96,), 8)], blocks))
    assert np.isnan(file.tensor("t")).all()
    doubles = struct.pack("<2d", 1e300, float("nan"))
    file = GGUFFile.parse(b.gguf([], [b.tensor("t", (2,), 28)], doubles))
    assert np.isinf(file.tensor("t")[0])
    assert np.isnan(file.tensor("t")[1])
