"""A walk over stages leaves the very bits that one step of the whole program leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pocketlm.models import open_model
from pocketlm.models.build import build_executor
from pocketlm.quantize.calibrated import OriginalWeights
from pocketlm.quantize.walk import Walk, stages

from .small import random_tokens, write_model


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3", "gemma3", "phi3"])
def test_hidden_states_equal_the_engine_s(tmp_path: Path, arch: str) -> None:
    spec = open_model(write_model(tmp_path / "m.gguf", arch))
    tokens = random_tokens(5, 40)
    walk = Walk(tokens, threads=2)
    steps = stages(spec.program)
    for stage in steps:
        walk.advance(stage, OriginalWeights(spec, 2))
    hidden = walk.rows[steps[-1].next.src]

    executor = build_executor(spec, threads=1)
    groups = len(executor.windows)
    executor.allocate(40, 1, 40, [2] * groups, "f32")
    zero = np.zeros(1, np.int32)
    pages = np.tile(np.arange(2, dtype=np.int32), (groups, 1, 1))
    rows = np.arange(40, dtype=np.int32)
    for i, sequence in enumerate(tokens):
        lengths = np.array([40], np.int32)
        expected = executor.step(sequence, lengths, zero, pages, zero, rows, True)
        np.testing.assert_array_equal(hidden[40 * i : 40 * i + 40], expected)
    spec.close()


def test_stages_meet_every_linear_layer_once(tmp_path: Path) -> None:
    spec = open_model(write_model(tmp_path / "m.gguf", layers=3))
    met = [part.weight for stage in stages(spec.program) for part in stage.next.parts]
    matrices = [name for name, shape in spec.program.shapes().items() if len(shape) == 2]
    assert met == [*matrices[1:], "token_embd.weight"]
    spec.close()
