"""Building an executor: progress, one small model end to end, and weights that cannot be packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketlm import _native
from pocketlm.errors import ModelFileError
from pocketlm.gguf import BlockType, TensorData, write_gguf
from pocketlm.models import open_model
from pocketlm.models.build import build_executor
from pocketlm.models.memory import Capacity, core_memory, kv_pages
from pocketlm.progress import Progress

from .synthetic import VOCAB, gguf

Array = np.ndarray[Any, np.dtype[np.float32]]


def write_random(path: Path, **replaced: Array) -> Path:
    """A random two-layer Llama; ``replaced`` names tensors with __ for dots."""
    rng = np.random.default_rng(0)
    synthetic = gguf("llama")
    tensors = []
    for name, info in synthetic.tensors.items():
        values = rng.standard_normal(info.shape, dtype=np.float32)
        values = replaced.get(name.replace(".", "__"), values)
        tensors.append(TensorData(name, BlockType.F32, info.shape, values))
    write_gguf(path, synthetic.metadata, tensors)
    return path


def test_progress_counts_every_parameter_once(tmp_path: Path) -> None:
    spec = open_model(write_random(tmp_path / "m.gguf"))
    reports: list[Progress] = []
    build_executor(spec, threads=2, progress=reports.append)
    done = [report.done for report in reports]
    assert done == sorted(done)
    assert done[-1] == spec.parameters == reports[-1].total


def test_the_file_may_be_closed_once_it_is_built(tmp_path: Path) -> None:
    spec = open_model(write_random(tmp_path / "m.gguf"))
    executor = build_executor(spec, threads=1)
    spec.close()
    (tmp_path / "m.gguf").unlink()
    executor.allocate(8, 1, 2, [1], "f32")
    one, zero = np.ones(1, dtype=np.int32), np.zeros(1, dtype=np.int32)
    tokens, rows = np.arange(3, dtype=np.int32), np.array([2, 0], dtype=np.int32)
    logits = executor.step(tokens, 3 * one, zero, zero[None, None], zero, rows)
    assert logits.shape == (2, VOCAB)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("kv", ["f16", "q8", "f32"])
def test_memory_is_known_beforehand(kv: str, tmp_path: Path) -> None:
    spec = open_model(write_random(tmp_path / "m.gguf"))
    capacity = Capacity(tokens=8, sequences=2, rows=3, context=100, kv=kv, threads=2)
    promised = core_memory(spec, capacity)
    executor = build_executor(spec, threads=2)
    needed = executor.requirements(8, 2, 3, kv_pages(executor.windows, capacity), kv)
    assert vars(promised) == needed


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_norms_that_are_not_finite(value: float, tmp_path: Path) -> None:
    norm = np.ones(64, dtype=np.float32)
    norm[3] = value
    path = write_random(tmp_path / "m.gguf", blk__1__ffn_norm__weight=norm)
    with pytest.raises(ModelFileError, match=r"blk\.1\.ffn_norm\.weight"):
        build_executor(open_model(path), threads=1)


def test_a_planned_weight_has_a_size_and_nothing_else() -> None:
    weight = _native.Weight.plan(int(BlockType.Q4_0), 20, 64)
    data = np.zeros(20 * 2 * 18, np.uint8)
    assert weight.nbytes == _native.Weight.pack(int(BlockType.Q4_0), 20, 64, data).nbytes
    with pytest.raises(ValueError, match="no such row"):
        weight.row(0)
    executor = _native.Executor(1)
    x, y = executor.buffer(64), executor.buffer(20)
    executor.input(x)
    executor.linear(x, [(weight, y, 0, None)], False, "block")
    executor.finish_stage()
    assert executor.requirements(1, 1, 1, [], "f16")["weights"] == weight.nbytes
    with pytest.raises(ValueError, match="planned weights"):
        executor.allocate(1, 1, 1, [], "f16")


def test_packing_says_when_pages_were_read() -> None:
    rows, cols = 3 * 4096 + 5, 1024  # 50 MB of F32: four slices
    data = np.arange(rows * cols, dtype=np.float32)
    calls: list[None] = []
    weight = _native.Weight.pack(
        0, rows, cols, data.view(np.uint8), threads=2, read=lambda: calls.append(None)
    )
    assert len(calls) == 4
    for row in (0, 4095, 4096, rows - 1):
        np.testing.assert_array_equal(weight.row(row), data.reshape(rows, cols)[row])

    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _native.Weight.pack(0, rows, cols, data.view(np.uint8), read=fail)
