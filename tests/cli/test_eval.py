"""``pocketlm eval``: what it writes, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.tiny_file import write_tiny_model

from .conftest import Outcome

TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom. " * 3
Run = Callable[..., Outcome]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.gguf")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT + "\n", encoding="utf-8")
    return path


@pytest.fixture
def task(tmp_path: Path) -> Path:
    path = tmp_path / "task.jsonl"
    lines = [{"question": f"Q{i}?", "choices": ["yes", "no"], "answer": i % 2} for i in range(5)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_json_is_what_python_gives(pocketlm: Run, model: Path, text: Path, task: Path) -> None:
    import pocketlm as package

    options: dict[str, Any] = {"context": 40, "stride": 30, "max_tokens": 200, "kv": "f32"}
    spelled = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    done = pocketlm(
        "eval", model, "--text", text, "--reference", model, "--task", task, "--threads", 1,
        *spelled, "--json",
    )  # fmt: skip
    assert done.code == 0
    expected = package.evaluate(
        str(model), text=text, reference=str(model), task=task, threads=1, **options
    )
    assert done.json() == dataclasses.asdict(expected)
    assert done.json()["perplexity"]["tokens"] == 199
    assert done.json()["divergence"]["mean"] == 0


def test_bits_per_byte_are_of_the_bytes_that_count(model: Path, text: Path) -> None:
    """With a stride all of the text counts but its first token."""
    import pocketlm as package

    words = text.read_text("utf-8")[:300].strip()
    found = package.evaluate(str(model), text=words, context=40, stride=20, threads=1)
    assert found.perplexity is not None
    bits = found.perplexity.nll * found.perplexity.tokens / math.log(2)
    assert found.bits_per_byte is not None
    assert bits / len(words.encode()) <= found.bits_per_byte <= bits / (len(words.encode()) - 20)


def test_people_read_lines(pocketlm: Run, model: Path, text: Path, task: Path) -> None:
    done = pocketlm("eval", model, "--text", text, "--context", 40, "--threads", 1)
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines] == [str(model), "text", "perplexity", "bits"]
    assert "95 tokens counted in 5 windows of 40" in lines[1]
    assert " ± " in lines[2]
    done = pocketlm("eval", model, "--reference", model, "--text", text, "--task", task,
                    "--context", 200, "--threads", 1)  # fmt: skip
    assert "mean KL        0.000000 nats" in done.out  # one window: no error to tell
    assert "same top token 100.00 %" in done.out
    assert "flips          0 right to wrong, 0 wrong to right; 0 answers changed" in done.out
    assert "acc            " in done.out
    assert "cut " not in done.out


def test_cut_questions_are_said(pocketlm: Run, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"question": "x" * 300, "choices": ["a", "b"], "answer": "a"}))
    done = pocketlm("eval", model, "--task", path, "--threads", 1)
    assert "2 choices exceed the model's context" in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Give --text FILE or --task FILE"),
        (["--text", "none.txt"], 1, "no such file"),
        (["--text", "."], 2, "folder"),
        (["--text", "TEXT"], 2, "has 237 tokens, but a window of the context needs 256"),
        (["--text", "TEXT", "--context", "999"], 2, "made for 256"),
        (["--text", "TEXT", "--context", "40", "--stride", "40"], 2, "below --context"),
        (["--text", "LATIN"], 2, "not UTF-8: byte 0xfc"),
        (["--task", "TEXT"], 2, "line 1: not JSON"),
        (["--text", "TEXT", "--context", "40", "--reference", "nothing:1b"], 1, "nothing:1b"),
    ],
)
def test_refusals(
    pocketlm: Run,
    model: Path,
    text: Path,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    (tmp_path / "latin.txt").write_bytes("für".encode("latin-1"))
    files = {"TEXT": str(text), "LATIN": str(tmp_path / "latin.txt")}
    done = pocketlm("eval", model, *(files.get(a, a) for a in arguments))
    assert (done.code, done.out) == (code, "")
    assert message in done.err
