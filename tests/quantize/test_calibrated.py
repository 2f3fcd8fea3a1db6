"""The calibrated method on small models: better outputs, kept work, honest refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pocketlm.errors import UnsupportedError
from pocketlm.gguf import BlockType, tensor_nbytes
from pocketlm.models import ModelSpec, open_model
from pocketlm.quantize import calibrated
from pocketlm.quantize.calibrated import Calibration
from pocketlm.quantize.layer_inputs import LayerInputs, Settings
from pocketlm.quantize.workfolder import WorkFolder

from .small import random_tokens, write_model


def types_of(spec: ModelSpec, type: BlockType) -> dict[str, BlockType]:
    return {n: type for n, shape in spec.program.shapes().items() if len(shape) == 2}


def calibration(spec: ModelSpec, work: WorkFolder, type: BlockType = BlockType.Q3_K) -> Calibration:
    tokens = random_tokens(16, 64)
    return Calibration(spec, types_of(spec, type), tokens[:14], tokens[14:], work, threads=2)


@pytest.mark.parametrize("arch", ["llama", "gemma3", "phi3"])
def test_layers_lose_less_than_with_search(tmp_path: Path, arch: str) -> None:
    spec = open_model(write_model(tmp_path / "m.gguf", arch))
    task = calibration(spec, WorkFolder(tmp_path / "work", "task"))
    blocks = task.run()
    shapes = spec.program.shapes()
    assert set(blocks) == {name for name in shapes if len(shapes[name]) == 2}
    for name, data in blocks.items():
        assert data.size == tensor_nbytes(BlockType.Q3_K, shapes[name])
    errors = np.array([[o.error, o.searched] for o in task.outcomes.values()])
    assert (errors[:, 0] <= errors[:, 1]).all()
    assert errors[:, 0].sum() < 0.95 * errors[:, 1].sum()
    spec.close()


def test_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = open_model(write_model(tmp_path / "m.gguf"))
    whole = calibration(spec, WorkFolder(tmp_path / "one", "task")).run()

    rounded = 0

    def interrupted(*args: object, **options: object) -> object:
        nonlocal rounded
        rounded += 1
        if rounded == 6:
            raise KeyboardInterrupt
        return compensated(*args, **options)  # type: ignore[arg-type]

    compensated = calibrated.compensated
    monkeypatch.setattr(calibrated, "compensated", interrupted)
    with pytest.raises(KeyboardInterrupt):
        calibration(spec, WorkFolder(tmp_path / "two", "task")).run()
    again = calibration(spec, WorkFolder(tmp_path / "two", "task")).run()
    assert rounded == 6 + len(whole) - 1 - 5  # the embedding is not rounded, five were done
    for name, data in whole.items():
        np.testing.assert_array_equal(again[name], data)
    spec.close()


def test_another_task_finds_nothing(tmp_path: Path) -> None:
    first = WorkFolder(tmp_path / "work", "a task")
    first.save("m", np.arange(5, dtype=np.uint8), {"kept": "search"})
    found = WorkFolder(tmp_path / "work", "a task").load("m")
    assert found is not None
    assert found[0].tolist() == [0, 1, 2, 3, 4]
    assert WorkFolder(tmp_path / "work", "another task").load("m") is None
    first.remove()
    assert not (tmp_path / "work").exists()


def test_bitnet_has_nothing_to_calibrate(tmp_path: Path) -> None:
    spec = open_model(write_model(tmp_path / "m.gguf", "bitnet-b1.58"))
    with pytest.raises(UnsupportedError, match="ternary"):
        calibration(spec, WorkFolder(tmp_path / "work", "task"))
    spec.close()


def test_the_whole_correction_restores_outputs() -> None:
    rng = np.random.default_rng(0)
    original = rng.standard_normal((4096, 64), dtype=np.float32)
    quantized = original @ (np.eye(64) + rng.standard_normal((64, 64)) / 40).astype(np.float32)
    drift = rng.standard_normal((64, 32), dtype=np.float32) / 30
    weights = rng.standard_normal((32, 64), dtype=np.float32)
    inputs = LayerInputs(original, quantized, 4000, Settings(damping=1e-6, correction=1.0))
    lost = original @ drift
    corrected = inputs.corrected(weights, lost)
    assert inputs.held_out_error(weights, corrected, lost) < 1e-6
    assert inputs.held_out_error(weights, weights, lost) > 1e-3
