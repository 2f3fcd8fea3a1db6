"""Building an executor: progress, one small model end to end, and weights that cannot be packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketlm.errors import ModelFileError
from pocketlm.gguf import BlockType, TensorData, write_gguf
from pocketlm.models import open_model
from pocketlm.models.build import build_executor
from pocketlm.models.memory import estimate
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
    executor.allocate(8, 1, 2, 1, "f32")
    one, zero = np.ones(1, dtype=np.int32), np.zeros(1, dtype=np.int32)
    tokens, rows = np.arange(3, dtype=np.int32), np.array([2, 0], dtype=np.int32)
    logits = executor.step(tokens, 3 * one, zero, zero[None], zero, rows)
    assert logits.shape == (2, VOCAB)
    assert np.isfinite(logits).all()


def test_memory_is_known_beforehand(tmp_path: Path) -> None:
    spec = open_model(write_random(tmp_path / "m.gguf"))
    promised = estimate(spec, positions=100, kv="f32")
    needed = build_executor(spec, threads=1).requirements(8, 1, 1, 4, "f32")
    assert (promised.weights, promised.kv) == (needed["weights"], needed["kv"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_norms_that_are_not_finite(value: float, tmp_path: Path) -> None:
    norm = np.ones(64, dtype=np.float32)
    norm[3] = value
    path = write_random(tmp_path / "m.gguf", blk__1__ffn_norm__weight=norm)
    with pytest.raises(ModelFileError, match=r"blk\.1\.ffn_norm\.weight"):
        build_executor(open_model(path), threads=1)
