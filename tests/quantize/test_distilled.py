"""Distilling a tiny model: what changes, what does not, and what an interruption leaves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pocketlm import _native
from pocketlm.errors import CapacityError, RequestError, UnsupportedError
from pocketlm.gguf import BlockType, GGUFFile, TensorData, write_gguf
from pocketlm.models import open_model
from pocketlm.progress import Progress
from pocketlm.quantize import distilled
from pocketlm.quantize.block_scales import TUNABLE, factorize
from pocketlm.quantize.distilled import Distillation, distil
from pocketlm.quantize.schedule import Schedule
from pocketlm.quantize.tuning import Tuning, load, save

WIDTH, VOCAB, LAYERS, LENGTH = 256, 120, 1, 24
TYPES = {
    "token_embd.weight": BlockType.Q4_1,
    "blk.0.attn_q.weight": BlockType.Q4_0,
    "blk.0.attn_k.weight": BlockType.Q3_K,
    "blk.0.attn_v.weight": BlockType.F16,
    "blk.0.attn_output.weight": BlockType.Q5_1,
    "blk.0.ffn_gate.weight": BlockType.Q2_K,
    "blk.0.ffn_up.weight": BlockType.Q4_K,
    "blk.0.ffn_down.weight": BlockType.Q2_K,
}
METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "tiny",
    "llama.block_count": LAYERS,
    "llama.context_length": 64,
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": WIDTH,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}
SCHEDULE = Schedule(learning_rate=0.03, batch=2, epochs=2)
_RNG = np.random.default_rng(5)
# a few tokens that come again and again: there is something to learn that holds elsewhere
TRAIN, HELD_OUT = (_RNG.integers(0, 10, (n, LENGTH), dtype=np.int32) for n in (8, 3))


def _shape(name: str) -> tuple[int, ...]:
    if name.endswith("norm.weight"):
        return (WIDTH,)
    rows = {"token_embd.weight": VOCAB, "blk.0.attn_k.weight": 128, "blk.0.attn_v.weight": 128}
    return rows.get(name, WIDTH), WIDTH


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A float32 model and the same with the types above."""
    folder = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(0)
    norms = ["output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"]
    floats, blocks = [], []
    for name in [*TYPES, *norms]:
        shape = _shape(name)
        values = (1 + rng.standard_normal(shape) / 10).astype(np.float32)
        if name in TYPES:
            values = (rng.standard_normal(shape) / 8).astype(np.float32)
        floats.append(TensorData(name, BlockType.F32, shape, values))
        type = TYPES.get(name, BlockType.F32)
        data: Any = values
        if name in TYPES:
            raw = values.reshape(-1).view(np.uint8)
            data = _native.quantize(0, raw, *shape, int(type), "nearest", None, 1)
        blocks.append(TensorData(name, type, shape, data))
    paths = folder / "original.gguf", folder / "quantized.gguf"
    write_gguf(paths[0], METADATA, floats)
    write_gguf(paths[1], METADATA, blocks)
    return paths


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(files: tuple[Path, Path], out: Path, **changes: Any) -> Distillation:
    options = {
        "train": TRAIN,
        "held_out": HELD_OUT,
        "work": out.with_suffix(".work"),
        "threads": 1,
        "schedule": SCHEDULE,
    }
    return distil(*files, out, **(options | changes))


def test_the_divergence_falls_and_only_fields_change(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.gguf"
    reports: list[Progress] = []
    result = run(files, out, progress=reports.append)
    assert result.kept
    assert result.after < 0.9 * result.before
    assert (result.steps, result.tokens) == (8, 8 * 2 * LENGTH)
    assert [r.done for r in reports] == [2 * LENGTH * (i + 1) for i in range(8)]
    with GGUFFile.open(files[1]) as before, GGUFFile.open(out) as after:
        assert dict(before.metadata) == dict(after.metadata)
        assert list(before.tensors) == list(after.tensors)
        for name, info in before.tensors.items():
            assert after.tensors[name] == info
            old, new = before.tensor_bytes(name), after.tensor_bytes(name)
            if info.type in TUNABLE:
                one, other = (factorize(info.type, data, *info.shape) for data in (old, new))
                assert np.array_equal(one.u, other.u)
                assert (one.scale != other.scale).mean() > 0.5
                assert one.minimum is None or (one.minimum != other.minimum).mean() > 0.5
            else:
                assert np.array_equal(old, new)
    assert not out.with_suffix(".work").exists()


def test_what_is_reported_is_true_of_the_file(files: tuple[Path, Path], tmp_path: Path) -> None:
    """The written file, judged again as an input, stands where the result says."""
    out = tmp_path / "out.gguf"
    result = run(files, out)
    again = run((files[0], out), tmp_path / "again.gguf", schedule=replace(SCHEDULE, epochs=1))
    assert again.before == pytest.approx(result.after, rel=1e-6)


def test_an_interrupted_run_goes_on_to_the_same_file(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distilled, "_SAVE_SECONDS", 0.0)
    whole = run(files, tmp_path / "whole.gguf")
    steps = 0

    def stop(progress: Progress) -> None:
        nonlocal steps
        steps += 1
        if steps == 4:
            raise KeyboardInterrupt

    out = tmp_path / "out.gguf"
    with pytest.raises(KeyboardInterrupt):
        run(files, out, progress=stop)
    assert not out.exists()
    seen: list[Progress] = []
    result = run(files, out, progress=seen.append)
    assert seen[0].done == 4 * 2 * LENGTH  # the third step was the last that was saved
    assert replace(result, seconds=0) == replace(whole, seconds=0)
    assert out.read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_another_task_does_not_take_up_the_state(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distilled, "_SAVE_SECONDS", 0.0)
    work = tmp_path / "work"

    def stop(progress: Progress) -> None:
        if progress.done > 2 * 2 * LENGTH:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(files, tmp_path / "out.gguf", work=work, progress=stop)
    seen: list[Progress] = []
    other = replace(SCHEDULE, seed=1)
    run(files, tmp_path / "out.gguf", work=work, schedule=other, progress=seen.append)
    assert seen[0].done == 2 * LENGTH


@pytest.mark.parametrize("rate", [30.0, 1e30], ids=["too large", "no numbers"])
def test_no_gain_writes_the_input(files: tuple[Path, Path], tmp_path: Path, rate: float) -> None:
    """Steps far too large: it stops, the file is the input's, and the result says so."""
    out = tmp_path / "out.gguf"
    result = run(files, out, schedule=replace(SCHEDULE, learning_rate=rate))
    assert not result.kept
    assert result.after > result.before
    assert np.isinf(result.after) == (rate > 1e9)
    assert result.steps < SCHEDULE.steps(len(TRAIN))
    assert out.read_bytes() == files[1].read_bytes()


def test_a_failing_write_leaves_nothing(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise CapacityError("the disk is full")

    monkeypatch.setattr(distilled, "write_gguf", full)
    work = tmp_path / "work"
    with pytest.raises(CapacityError):
        run(files, tmp_path / "out.gguf", work=work)
    assert [p.name for p in tmp_path.iterdir()] == ["work"]
    assert (work / "state.pt").exists()  # nothing that was computed is lost


def test_a_step_does_not_depend_on_when_it_was_resumed() -> None:
    chosen = [SCHEDULE.chosen(step, 7) for step in range(7)]
    assert sorted(np.concatenate(chosen)) == sorted(2 * list(range(7)))
    assert np.array_equal(SCHEDULE.chosen(3, 7), chosen[3])
    assert SCHEDULE.rate(6, 7) < SCHEDULE.rate(3, 7) < SCHEDULE.rate(1, 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": TRAIN.astype(np.int64)}, "int64"),
        ({"train": TRAIN[0]}, "sequences, length"),
        ({"train": TRAIN[:1]}, "do not fill a batch"),
        ({"held_out": HELD_OUT[:0]}, "held-out tokens are int32"),
        ({"held_out": TRAIN[2:3]}, "among those to train on"),
        ({"train": TRAIN + np.int32(VOCAB)}, "vocabulary"),
    ],
)
def test_bad_tokens(
    changes: dict[str, npt.NDArray[Any]],
    message: str,
    files: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    with pytest.raises(RequestError, match=message):
        run(files, tmp_path / "out.gguf", **changes)
    assert not list(tmp_path.iterdir())


def test_nothing_to_tune(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="block scales"):
        run((files[0], files[0]), tmp_path / "out.gguf")


def test_the_original_is_not_overwritten(files: tuple[Path, Path]) -> None:
    before = files[0].read_bytes()
    with pytest.raises(RequestError, match="replace the original"):
        run(files, files[0])
    assert files[0].read_bytes() == before


def test_torch_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, pocketlm.quantize.distilled; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_torch(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distilled.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match=r"pocketlm\[distill\]"):
        run(files, tmp_path / "out.gguf")


def test_a_saved_state_has_all_that_the_next_step_depends_on(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    one, other = (open_model(path) for path in files)
    straight = Tuning(one, other, TRAIN, SCHEDULE, threads=1)
    straight.advance()
    save(tmp_path / "state.pt", straight.state())
    resumed = Tuning(one, other, TRAIN, SCHEDULE, threads=1)
    state = load(tmp_path / "state.pt")
    assert state is not None
    resumed.load_state(state)
    assert straight.advance() == resumed.advance()
    for name, delta in straight.deltas().items():
        assert torch.equal(delta, resumed.deltas()[name]), name
    assert load(tmp_path / "none.pt") is None
