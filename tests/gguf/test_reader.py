"""The reader on sound files: what it gives, and how long what it gave stays valid."""

from __future__ import annotations

import gc
import os
import sys
import tracemalloc
from pathlib import Path

import gguf_bytes as b
import numpy as np
import pytest

from pocketlm.errors import (
    ModelFileError,
    NotFoundError,
    RequestError,
    SourceError,
    UnsupportedError,
)
from pocketlm.gguf import (
    BlockType,
    GGUFFile,
    TensorData,
    TensorInfo,
    release_pages,
    write_gguf,
)
from pocketlm.gguf.metadata import value_type


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(b.everything())
    return path


def test_metadata_values_and_types(path: Path) -> None:
    with GGUFFile.open(path) as file:
        metadata = dict(file.metadata)
    arrays = {key: metadata.pop(key) for key in ("bools", "i16s", "f32s", "u64s", "no numbers")}
    assert metadata == {
        "general.architecture": "llama",
        "u8": 254,
        "i8": -2,
        "u16": 65534,
        "i16": -2,
        "u32": 7,
        "i32": -7,
        "i32.positive": 7,
        "f32": float(np.float32(0.1)),
        "yes": True,
        "no": False,
        "u64": 2**64 - 1,
        "u64.small": 5,
        "i64": -(2**63),
        "f64": 0.1,
        "strings": ["a", "", "é\0z"],
        "no strings": [],
    }
    assert type(metadata["yes"]) is bool
    assert type(metadata["u32"]) is int
    wanted = {"bools": "?", "i16s": "<i2", "f32s": "<f4", "u64s": "<u8", "no numbers": "<f8"}
    for key, values in arrays.items():
        assert values.dtype == wanted[key]
        assert values.flags.aligned
        assert not values.flags.writeable
    assert arrays["bools"].tolist() == [False, True, True]
    assert arrays["i16s"].tolist() == [-1, 2]
    assert arrays["f32s"].tolist() == [1.5, -2.5]
    assert arrays["u64s"].tolist() == [2**63]
    names = ["u8", "i8", "u16", "i16", "u32", "i32", "i32.positive", "u64.small", "f64"]
    assert [value_type(metadata[name]) for name in names] == [0, 1, 2, 3, 4, 5, 5, 10, 12]


def test_tensors(path: Path) -> None:
    with GGUFFile.open(path) as file:
        assert list(file.tensors) == ["a.weight", "b.weight", "c"]
        info = file.tensors["b.weight"]
        base = file.tensors["a.weight"].offset
        assert info == TensorInfo("b.weight", BlockType.Q8_0, (2, 32), base + 64, 68)
        assert base % 32 == 0
        assert file.tensor_bytes("b.weight").tobytes() == (b"\x00\x3c" + bytes(range(32))) * 2
        assert file.tensor("a.weight").tolist() == np.arange(12.0).reshape(3, 4).tolist()
        assert file.tensor("b.weight").tolist() == [list(range(32))] * 2
        assert file.tensor("c").shape == (3, 1, 1, 2)
        assert file.tensor("c").ravel().tolist() == list(range(6))
        assert file.tensor("c").dtype == np.float32
        with pytest.raises(ModelFileError, match="'d' is missing") as caught:
            file.tensor("d")
        assert caught.value.path == path


def test_views_are_read_only_and_outlive_the_file(path: Path) -> None:
    file = GGUFFile.open(path)
    view = file.tensor_bytes("a.weight")
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    file.close()
    file.close()
    del file
    path.unlink()
    gc.collect()
    assert view.view("<f4").tolist() == list(range(12))


def test_a_closed_file_refuses_but_keeps_its_facts(path: Path) -> None:
    with GGUFFile.open(path) as file:
        pass
    assert file.metadata["u32"] == 7
    assert file.tensors["c"].nbytes == 12
    for read in (file.tensor_bytes, file.tensor):
        with pytest.raises(RequestError, match="closed"):
            read("c")


def test_closing_unmaps(path: Path) -> None:
    def mapped() -> bool:
        return str(path) in Path("/proc/self/maps").read_text()

    if not Path("/proc/self/maps").exists():
        pytest.skip("no /proc on this system")
    file = GGUFFile.open(path)
    assert mapped()
    file.close()
    assert not mapped()


def test_facts_cannot_be_changed(path: Path) -> None:
    with GGUFFile.open(path) as file:
        with pytest.raises(TypeError):
            file.metadata["x"] = 1  # type: ignore[index]
        with pytest.raises(TypeError):
            del file.tensors["c"]  # type: ignore[attr-defined]


def test_version_2_reads_the_same(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4] = 2
    file = GGUFFile.parse(bytes(data))
    assert file.version == 2
    assert file.tensors == GGUFFile.open(path).tensors


def test_the_last_padding_may_be_missing_and_more_may_follow() -> None:
    whole = b.everything()
    end = max(info.offset + info.nbytes for info in GGUFFile.parse(whole).tensors.values())
    assert end < len(whole)
    for data in (whole[:end], whole + b"more"):
        assert GGUFFile.parse(data).tensor("c").ravel().tolist() == list(range(6))


def test_gaps_and_any_order_of_tensors_are_accepted() -> None:
    infos = [b.tensor("second", (8,), offset=96), b.tensor("first", (8,), offset=0)]
    file = GGUFFile.parse(b.gguf([], infos, bytes(128)))
    assert list(file.tensors) == ["second", "first"]
    assert file.tensors["second"].offset - file.tensors["first"].offset == 96


def test_a_file_without_tensors_needs_no_padding() -> None:
    data = b.gguf([b.entry("k", b.U8, b"\x01")])
    file = GGUFFile.parse(data.rstrip(b"\0"))
    assert file.metadata == {"k": 1}
    assert not file.tensors


def test_alignment_from_the_metadata() -> None:
    entries = [b.entry("general.alignment", b.U32, b.u32(64))]
    infos = [b.tensor("a", (1,), offset=0), b.tensor("b", (1,), offset=64)]
    file = GGUFFile.parse(b.gguf(entries, infos, bytes(128), alignment=64))
    assert file.alignment == 64
    assert file.tensors["b"].offset % 64 == 0


def test_the_longest_name_and_the_oddest_key() -> None:
    name, key = "n" * 64, "ключ " + "k" * 1000
    file = GGUFFile.parse(b.gguf([b.entry(key, b.BOOL, b"\0")], [b.tensor(name)], bytes(128)))
    assert file.metadata == {key: False}
    assert list(file.tensors) == [name]


def test_a_type_without_decoder_can_be_listed() -> None:
    file = GGUFFile.parse(b.gguf([], [b.tensor("iq", (256,), BlockType.IQ4_XS)], bytes(136)))
    assert file.tensor_bytes("iq").size == 136
    with pytest.raises(UnsupportedError, match="IQ4_XS"):
        file.tensor("iq")


def test_files_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        GGUFFile.open(tmp_path / "none.gguf")
    with pytest.raises(ModelFileError, match="not a regular file"):
        GGUFFile.open(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ModelFileError, match="not a regular file"):
        GGUFFile.open(pipe)
    empty = tmp_path / "empty.gguf"
    empty.touch()
    with pytest.raises(ModelFileError, match="empty"):
        GGUFFile.open(empty)

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    empty.write_bytes(b"GGUF")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SourceError, match="Permission denied"):
        GGUFFile.open(empty)


def test_opening_takes_no_memory_for_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    path.write_bytes(b.gguf([], [b.tensor("w", (1 << 22,))]))
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size + (1 << 24))
    tracemalloc.start()
    try:
        with GGUFFile.open(path) as file:
            assert file.tensor_bytes("w").size == 1 << 24
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def _resident_kib(path: Path) -> int:
    """KiB of a mapped file that this process has in memory, as the kernel counts them."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    mapped = [next(x for x in lines if x.startswith("Rss:")) for y in lines if str(path) in y]
    return sum(int(line.split()[1]) for line in mapped)


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc what is in memory")
def test_released_pages_leave_memory_and_come_back(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).standard_normal((512, 1024), dtype=np.float32)
    path = tmp_path / "large.gguf"
    write_gguf(path, {}, [TensorData("w", BlockType.F32, weights.shape, weights)])
    with GGUFFile.open(path) as file:
        view = file.tensor_bytes("w")
        assert np.array_equal(view.view(np.float32), weights.reshape(-1))
        assert _resident_kib(path) >= weights.nbytes >> 10
        file.release_pages()
        assert _resident_kib(path) == 0
        assert np.array_equal(view.view(np.float32), weights.reshape(-1))


def test_bytes_that_map_no_file_have_no_pages_to_release() -> None:
    array = np.arange(8, dtype=np.uint8)
    release_pages(array)
    assert array.tolist() == list(range(8))
