"""Writing quantized files: their bytes, their metadata, and what is refused."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pocketlm import _native
from pocketlm.convert.stream import open_stream
from pocketlm.errors import CapacityError, ModelFileError, RequestError
from pocketlm.gguf import BlockType, GGUFFile, TensorData, write_gguf
from pocketlm.progress import Progress
from pocketlm.quantize import files
from pocketlm.quantize.files import encoder, write_quantized
from pocketlm.quantize.plan import plan
from pocketlm.quantize.quantization import make_recipe

from .small import write_model


def write(source: Path, out: Path, type: str, method: str = "nearest") -> files.Written:
    recipe = make_recipe(type)
    with open_stream(source) as stream:
        planned = plan(stream, recipe)
        encode = encoder(method, None, threads=2)
        return write_quantized(stream, planned, out, recipe=recipe, encode=encode)


def test_tensors_are_encoded_in_chunks_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_CHUNK_WEIGHTS", 3 * 512)
    source = write_model(tmp_path / "m.gguf")
    written = write(source, tmp_path / "q.gguf", "Q4_K_S")
    with GGUFFile.open(source) as before, GGUFFile.open(tmp_path / "q.gguf") as after:
        assert list(before.tensors) == list(after.tensors)
        for name, info in after.tensors.items():
            if len(info.shape) == 1:
                assert after.tensor_bytes(name).tobytes() == before.tensor_bytes(name).tobytes()
                continue
            rows, cols = info.shape
            whole = _native.quantize(
                BlockType.F32, before.tensor_bytes(name), rows, cols, info.type, "nearest", None, 1
            )
            assert after.tensor_bytes(name).tobytes() == whole.tobytes()
    assert written.size == (tmp_path / "q.gguf").stat().st_size
    assert written.bits_per_weight == 8 * written.size / written.weights


def test_metadata_says_what_the_file_is(tmp_path: Path) -> None:
    write(write_model(tmp_path / "m.gguf"), tmp_path / "q.gguf", "Q5_K_M")
    with GGUFFile.open(tmp_path / "q.gguf") as file:
        assert file.metadata["general.file_type"] == 17
        assert file.metadata["general.quantization_version"] == 2
        assert file.metadata["llama.block_count"] == 2


def test_the_source_is_never_overwritten(tmp_path: Path) -> None:
    source = write_model(tmp_path / "m.gguf")
    before = source.read_bytes()
    (tmp_path / "link.gguf").symlink_to(source)
    os.link(source, tmp_path / "hard.gguf")
    for out in (source, tmp_path / "link.gguf", tmp_path / "hard.gguf"):
        with pytest.raises(RequestError, match="the file that is read"):
            write(source, out, "Q8_0")
    with pytest.raises(RequestError, match="folder"):
        write(source, tmp_path, "Q8_0")
    with pytest.raises(RequestError, match="no such folder"):
        write(source, tmp_path / "no" / "q.gguf", "Q8_0")
    assert source.read_bytes() == before


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite(tmp_path: Path, value: float) -> None:
    weights = np.zeros((4, 64), np.float32)
    weights[2, 7] = value
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.attention.head_count": 1,
    }
    write_gguf(
        tmp_path / "m.gguf", metadata, [TensorData("a.weight", BlockType.F32, (4, 64), weights)]
    )
    with pytest.raises(ModelFileError, match=r"'a\.weight'.*row 2"):
        write(tmp_path / "m.gguf", tmp_path / "q.gguf", "Q8_0", "search")
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["m.gguf"]


@pytest.mark.parametrize("type", ["Q8_0", "F32"])
def test_a_vector_that_is_not_finite(tmp_path: Path, type: str) -> None:
    source = write_model(tmp_path / "m.gguf")
    with GGUFFile.open(source) as file:
        norm = file.tensors["blk.1.attn_norm.weight"]
    with source.open("r+b") as written:
        written.seek(norm.offset + 4 * 5)
        written.write(np.float32(np.nan).tobytes())
    with pytest.raises(ModelFileError, match=r"'blk\.1\.attn_norm\.weight'.*not a finite"):
        write(source, tmp_path / "q.gguf", type)
    assert list(tmp_path.iterdir()) == [source]


def test_pages_that_were_read_are_released_chunk_by_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_CHUNK_WEIGHTS", 16 * 256)
    released = 0

    def release() -> None:
        nonlocal released
        released += 1

    with open_stream(write_model(tmp_path / "m.gguf")) as stream:
        [embedding] = [t for t in stream.tensors if t.name == "token_embd.weight"]
        [planned] = plan(
            replace(stream, tensors=[replace(embedding, release=release)]), make_recipe("Q8_0")
        )
        chunks = list(encoder("nearest", None, threads=1)(planned))
    assert released == len(chunks) == 96 // 16


def test_progress_is_in_bytes_of_the_new_file(tmp_path: Path) -> None:
    heard: list[Progress] = []
    recipe = make_recipe("Q4_K_M")
    with open_stream(write_model(tmp_path / "m.gguf")) as stream:
        planned = plan(stream, recipe)
        encode = encoder("nearest", None, threads=1)
        out = tmp_path / "q.gguf"
        write_quantized(stream, planned, out, recipe=recipe, encode=encode, progress=heard.append)
    total = sum(item.nbytes for item in planned)
    assert {(report.task, report.total) for report in heard} == {("quantize m.gguf", total)}
    done = [report.done for report in heard]
    assert done == sorted(done)
    assert done[-1] == total


def test_a_disk_that_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_model(tmp_path / "m.gguf")
    usage = files.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(CapacityError, match="1,000 left"):
        write(source, tmp_path / "q.gguf", "Q8_0")


def test_a_disk_that_fills_up_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_model(tmp_path / "m.gguf")
    calls = 0
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(CapacityError):
        write(source, tmp_path / "q.gguf", "Q8_0")
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["m.gguf"]
