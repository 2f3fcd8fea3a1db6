"""On a real quantized file our logits are no farther from float32 than llama.cpp's are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.oracle, pytest.mark.real]


def test_divergence_is_no_greater_than_that_of_llama_cpp(
    real_model: Callable[[str], Path], tmp_path: Path
) -> None:
    pages = sorted((ROOT / "docs").rglob("*.md"))
    text = tmp_path / "prose.txt"
    text.write_text("\n\n".join(page.read_text(encoding="utf-8") for page in pages), "utf-8")
    program = [sys.executable, str(ROOT / "benchmarks" / "fidelity.py")]
    arguments = [str(real_model("smollm2:135m")), str(text), "--tokens", "1024", "--json"]
    done = subprocess.run([*program, *arguments], check=True, capture_output=True, text=True)
    scores = json.loads(done.stdout)
    ours, theirs = scores["pocketlm"], scores["llama.cpp"]
    assert ours["tokens"] == 1024
    assert ours["mean"] <= theirs["mean"]
    assert ours["top1"] >= theirs["top1"] - 0.01
