"""Importance matrices: their arithmetic, both file forms, and files that lie."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketlm.errors import (
    CapacityError,
    ModelFileError,
    PocketLMError,
    RequestError,
    UnsupportedError,
)
from pocketlm.gguf import BlockType, GGUFFile, TensorData, write_gguf
from pocketlm.quantize.importance import Importance

SUMS: dict[str, tuple[Any, int]] = {
    "blk.0.ffn_up.weight": (np.array([8.0, 0.0, 2.0]), 4),
    "blk.0.attn_q.weight": (np.array([1e9, 3.0]), 6),
}


def measured() -> Importance:
    return Importance.from_sums(SUMS, datasets=("a.txt", "ü.txt"), chunks=3, chunk_size=2)


def legacy(*entries: tuple[bytes, int, list[float]], rest: bytes = b"") -> bytes:
    parts = [struct.pack("<i", len(entries))]
    for name, calls, values in entries:
        parts.append(struct.pack("<i", len(name)) + name)
        parts.append(struct.pack(f"<ii{len(values)}f", calls, len(values), *values))
    return b"".join(parts) + rest


def gguf(path: Path, **changed: Any) -> Path:
    """A file as llama.cpp's tool writes it, statistics included, with something changed."""
    sums = changed.pop("sums", np.array([[8.0, 0.0, 2.0]], np.float32))
    count = changed.pop("count", np.array([[4.0]], np.float32))
    metadata: dict[str, Any] = {
        "general.type": "imatrix",
        "imatrix.datasets": ["a.txt"],
        "imatrix.chunk_count": 3,
        "imatrix.chunk_size": 2,
    } | {key.replace("_", ".", 1): value for key, value in changed.items()}
    of = BlockType.F32 if sums.dtype == np.float32 else BlockType.F16
    tensors = [TensorData("x.weight.in_sum2", of, sums.shape, sums)]
    if count is not None:
        tensors.append(TensorData("x.weight.counts", BlockType.F32, count.shape, count))
    stats = np.full(12, np.nan, np.float32)
    tensors.append(TensorData("x.weight.stats", BlockType.F32, stats.shape, stats))
    write_gguf(path, metadata, tensors)
    return path


def test_means_are_sums_over_counts() -> None:
    found = measured()
    assert found.means["blk.0.ffn_up.weight"].tolist() == [2.0, 0.0, 0.5]
    assert found.means["blk.0.ffn_up.weight"].dtype == np.float32
    assert found.counts == {"blk.0.ffn_up.weight": 4, "blk.0.attn_q.weight": 6}


def test_for_matrix() -> None:
    found = measured()
    columns = found.for_matrix("blk.0.ffn_up.weight", 3)
    assert columns is not None
    assert columns.tolist() == [2.0, 0.0, 0.5]
    assert found.for_matrix("blk.1.ffn_up.weight", 3) is None
    with pytest.raises(RequestError, match=r"3 columns for 'blk.0.ffn_up.weight'.* has 4"):
        found.for_matrix("blk.0.ffn_up.weight", 4)


def test_inputs_that_were_all_zero_say_nothing() -> None:
    zero = Importance.from_sums(
        {"a": (np.zeros(4), 9), "b": (np.ones(4), 0)}, datasets=(), chunks=1, chunk_size=9
    )
    assert zero.for_matrix("a", 4) is None
    assert zero.for_matrix("b", 4) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 1e40])
def test_activations_that_are_no_numbers_are_refused(bad: float) -> None:
    with pytest.raises(ModelFileError, match="input 1 of 'a'"):
        Importance.from_sums({"a": (np.array([1.0, bad]), 1)}, datasets=(), chunks=1, chunk_size=1)


@pytest.mark.parametrize("name", ["i.gguf", "i.imatrix", "i.dat"])
def test_what_is_saved_is_loaded(tmp_path: Path, name: str) -> None:
    before = measured()
    before.save(tmp_path / name)
    after = Importance.load(tmp_path / name)
    assert after.means.keys() == before.means.keys()
    for matrix, means in before.means.items():
        np.testing.assert_allclose(after.means[matrix], means, rtol=2e-7)
        assert name.endswith(".dat") or after.means[matrix].tobytes() == means.tobytes()
    assert after.chunks == 3
    if name.endswith(".dat"):  # which knows calls, not tokens, and one name
        assert after.counts == {"blk.0.ffn_up.weight": 2, "blk.0.attn_q.weight": 3}
        assert (after.datasets, after.chunk_size) == (("a.txt, ü.txt",), 0)
    else:
        assert after.counts == before.counts
        assert (after.datasets, after.chunk_size) == (before.datasets, 2)


def test_gguf_has_llama_cpps_names_and_shapes(tmp_path: Path) -> None:
    measured().save(tmp_path / "i.gguf")
    with GGUFFile.open(tmp_path / "i.gguf") as file:
        assert file.metadata["general.type"] == "imatrix"
        assert file.tensor("blk.0.ffn_up.weight.in_sum2").tolist() == [[8.0, 0.0, 2.0]]
        assert file.tensor("blk.0.ffn_up.weight.counts").tolist() == [[4.0]]


def test_a_file_of_llama_cpp(tmp_path: Path) -> None:
    found = Importance.load(gguf(tmp_path / "i.gguf"))
    assert {name: means.tolist() for name, means in found.means.items()} == {
        "x.weight": [2.0, 0.0, 0.5]
    }
    assert (found.counts["x.weight"], found.datasets) == (4, ("a.txt",))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"general_type": "model"}, "general.type is 'model'"),
        ({"imatrix_datasets": 3}, "imatrix.datasets is 3"),
        ({"imatrix_chunk_count": "x"}, "imatrix.chunk_count is 'x'"),
        ({"imatrix_chunk_size": -1}, "imatrix.chunk_size is -1"),
        ({"count": None}, "'x.weight.counts' is missing"),
        ({"count": np.array([[np.nan]], np.float32)}, "'x.weight.counts' is nan"),
        ({"count": np.array([[-1.0]], np.float32)}, "'x.weight.counts' is -1"),
        ({"sums": np.array([[1.0, 2.0]], np.float16)}, "is F16, expected F32"),
        ({"sums": np.array([[1.0, np.nan]], np.float32)}, "input 1 of 'x.weight' is nan"),
        ({"sums": np.array([[-1.0, 1.0]], np.float32)}, "input 0 of 'x.weight' is -"),
    ],
)
def test_gguf_files_that_lie(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path = gguf(tmp_path / "i.gguf", **changed)
    with pytest.raises(ModelFileError, match=message) as caught:
        Importance.load(path)
    assert caught.value.path == path


@pytest.mark.parametrize(
    "changed", [{"sums": np.ones((2, 3), np.float32)}, {"count": np.ones((2, 1), np.float32)}]
)
def test_mixtures_of_experts_are_not_supported(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match="experts"):
        Importance.load(gguf(tmp_path / "i.gguf", **changed))


def test_a_model_is_no_importance_matrix(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", {"general.architecture": "llama"}, [])
    with pytest.raises(ModelFileError, match="'llama'"):
        Importance.load(tmp_path / "m.gguf")


def test_legacy_files(tmp_path: Path) -> None:
    path = tmp_path / "any.name"
    entries = ((b"a", 2, [2.0, 4.0]), (b"b", 0, [3.0]))
    path.write_bytes(legacy(*entries, rest=struct.pack("<ii", 5, 4) + b"text"))
    found = Importance.load(path)
    assert (found.means["a"].tolist(), found.means["b"].tolist()) == ([1.0, 2.0], [3.0])
    assert (found.chunks, found.datasets) == (5, ("text",))
    for rest in (b"", struct.pack("<i", 5), struct.pack("<ii", 5, 0)):
        path.write_bytes(legacy(*entries, rest=rest))
        assert Importance.load(path).datasets == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\1", "the number of entries takes 4 bytes"),
        (legacy(), "the number of entries is 0"),
        (b"\xff\xff\xff\x7f" * 8, "the number of entries is 2,147,483,647"),
        (legacy((b"", 1, [1.0, 1.0])), "empty name"),
        (legacy((b"a", 1, [1.0]), (b"a", 1, [1.0])), "entry 1 has an empty name or another's: 'a'"),
        (legacy((b"\xff", 1, [1.0])) + b"\0" * 8, "name of entry 0 is not UTF-8"),
        (legacy((b"abcd", 1, []))[:8], "the number of entries is 1, expected 1 to 0"),
        (legacy((b"a", -1, [1.0])), "the calls of 'a' are -1"),
        (legacy((b"abcdef", 1, [])), "the columns of 'abcdef' is 0"),
        (legacy((b"a", 1, [1.0, 2.0]))[:-1], "the columns of 'a' is 2, expected 1 to 1"),
        (legacy((b"a", 1, [1.0, float("nan")])), "input 1 of 'a' is nan"),
        (legacy((b"a", 1, [-2.0])), "input 0 of 'a' is -2"),
        (legacy((b"a", 1, [1.0]), rest=struct.pack("<i", -1)), "number of chunks is -1"),
        (legacy((b"a", 1, [1.0]), rest=struct.pack("<ii", 1, 9)), "the name of the data set"),
        (legacy((b"a", 1, [1.0]), rest=struct.pack("<ii", 1, 0) + b"x"), "1 bytes follow"),
    ],
)
def test_legacy_files_that_lie(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "i.dat"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=message) as caught:
        Importance.load(path)
    assert caught.value.path == path


@pytest.mark.parametrize("form", ["i.gguf", "i.dat"])
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_files_are_read_or_refused(tmp_path: Path, form: str, data: st.DataObject) -> None:
    path, whole = tmp_path / f"damaged-{form}", tmp_path / form
    if not whole.exists():
        measured().save(whole)
    content = bytearray(whole.read_bytes())
    end = data.draw(st.integers(1, len(content)))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[:end] + data.draw(st.binary(max_size=8)))
    try:
        found = Importance.load(path)
    except PocketLMError:
        return
    for means in found.means.values():
        assert np.isfinite(means).all()
        assert (means >= 0).all()


@pytest.mark.parametrize("name", ["i.gguf", "i.dat"])
def test_failed_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    measured().save(path)
    before = path.read_bytes()

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(CapacityError):
        measured().save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_measured_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="empty"):
        Importance.from_sums({}, datasets=(), chunks=0, chunk_size=0).save(tmp_path / "i.gguf")


def test_a_matrix_of_another_model_is_refused() -> None:
    known = Importance.from_sums(
        {"blk.0.attn_q.weight": (np.ones(8), 2)}, datasets=(), chunks=1, chunk_size=2
    )
    known.require_match({"blk.0.attn_q.weight": 8, "token_embd.weight": 8})
    known.require_match({})
    with pytest.raises(RequestError, match=r"8 columns for 'blk\.0\.attn_q\.weight'.*has 16"):
        known.require_match({"blk.0.attn_q.weight": 16})
    with pytest.raises(RequestError, match=r"'blk\.0\.attn_q\.weight', the model .*'enc\.0"):
        known.require_match({"enc.0.weight": 8})
