"""``pocketlm run``: what goes to stdout, to stderr and into the exit code."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

import pocketlm
from engine.tiny_file import write_tiny_model
from pocketlm.cli import fetching
from pocketlm.cli.run import run
from pocketlm.errors import CapacityError, RequestError

Invoke = Callable[..., Result]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture
def invoke(path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """``run`` on the tiny model, without a terminal's progress."""
    app = typer.Typer()
    app.command()(run)
    monkeypatch.setattr(fetching, "load", lambda ref, **options: pocketlm.load(ref, **options))

    def call(*args: str, input: str | None = None) -> Result:
        return CliRunner().invoke(app, [str(path), *args, "--threads", "1"], input=input)

    return call


def answer_of(path: Path, prompt: Any, **options: Any) -> str:
    with pocketlm.load(path, threads=1) as model:
        return model.chat(prompt, **options).text


def test_the_answer_and_nothing_else_goes_to_stdout(invoke: Invoke, path: Path) -> None:
    result = invoke("hello", "--temperature", "0", "--max-tokens", "9")
    assert result.exit_code == 0
    want = answer_of(path, "hello", temperature=0, max_tokens=9)
    assert result.stdout == want.removesuffix("\n") + "\n"


@pytest.mark.parametrize("args", [[], ["-"]])
def test_the_prompt_may_come_from_stdin(invoke: Invoke, path: Path, args: list[str]) -> None:
    result = invoke(*args, "--temperature", "0", "--max-tokens", "9", input="hello\n")
    want = answer_of(path, "hello", temperature=0, max_tokens=9)
    assert result.stdout == want.removesuffix("\n") + "\n"


def test_an_empty_stdin_is_an_error(invoke: Invoke) -> None:
    result = invoke(input=" \n")
    assert isinstance(result.exception, RequestError)
    assert "empty" in str(result.exception)


def test_an_empty_prompt_is_an_error_but_for_a_raw_one(invoke: Invoke) -> None:
    assert "the prompt is empty" in str(invoke(" ").exception)
    assert invoke(" ", "--raw", "--max-tokens", "2").exit_code == 0


def test_every_option_reaches_the_model(invoke: Invoke, path: Path) -> None:
    result = invoke(
        "hello", "--system", "be brief", "--max-tokens", "20", "--temperature", "1.5", "--top-k",
        "50", "--top-p", "0.9", "--min-p", "0.01", "--typical-p", "0.95", "--seed", "4",
        "--repetition-penalty", "1.1", "--frequency-penalty", "0.1", "--presence-penalty", "0.1",
        "--stop", "zz", "--stop", "yy", "--context", "200", "--json",
    )  # fmt: skip
    record = json.loads(result.stdout)
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    assert record["text"] == answer_of(
        path, messages, max_tokens=20, temperature=1.5, top_k=50, top_p=0.9, min_p=0.01,
        typical_p=0.95, seed=4, repetition_penalty=1.1, frequency_penalty=0.1,
        presence_penalty=0.1, stop=["zz", "yy"],
    )  # fmt: skip
    assert record["stats"]["seed"] == 4
    assert record["stats"]["load_s"] > 0


def test_raw_continues_the_text(invoke: Invoke, path: Path) -> None:
    result = invoke("hello", "--raw", "--temperature", "0", "--max-tokens", "9", "--json")
    with pocketlm.load(path, threads=1) as model:
        want = model.generate("hello", temperature=0, max_tokens=9)
    assert json.loads(result.stdout)["text"] == want.text
    assert json.loads(result.stdout)["stats"]["prompt_tokens"] == 5
    refused = invoke("hello", "--raw", "--system", "x")
    assert isinstance(refused.exception, RequestError)


def test_stats_go_to_stderr(invoke: Invoke) -> None:
    result = invoke("hello", "--stats", "--max-tokens", "9", "--seed", "11")
    lines = result.stderr.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith("pocketlm:")] == [
        "load",
        "prefill",
        "decode",
        "memory",
    ]
    assert "seed 11" in result.stderr
    assert "seed 11" not in result.stdout


def test_a_cut_answer_is_said_to_be_cut(invoke: Invoke) -> None:
    short = invoke("hello", "--max-tokens", "2", "--temperature", "0")
    assert "cut at 2 tokens (--max-tokens)" in short.stderr
    full = invoke("hello", "--raw", "--max-tokens", "90", "--context", "10", "--temperature", "0",
                  "--on-overflow", "stop")  # fmt: skip
    assert "the context of 10 is full" in full.stderr


def test_an_overflow_is_an_error_unless_said_otherwise(invoke: Invoke) -> None:
    refused = invoke("hello", "--max-tokens", "400")
    assert isinstance(refused.exception, CapacityError)
    assert refused.stdout == ""
    dropped = invoke("x" * 300, "--raw", "--max-tokens", "6", "--on-overflow", "truncate")
    assert "left out 50 of the oldest tokens" in dropped.stderr


def test_a_bad_option_is_said_before_the_model_is_loaded(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "load", lambda *a, **k: pytest.fail("it was loaded"))
    assert isinstance(invoke("hello", "--top-p", "2").exception, RequestError)
    assert invoke("hello", "--on-overflow", "maybe").exit_code == 2


def test_ctrl_c_stops_the_answer_and_exits_with_130(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pocketlm.Model.stream

    def interrupted(*args: Any, **options: Any) -> Iterator[pocketlm.Chunk]:
        for i, chunk in enumerate(real(*args, **options)):
            if i == 3:
                signal.raise_signal(signal.SIGINT)
            yield chunk

    monkeypatch.setattr(pocketlm.Model, "stream", interrupted)
    before = signal.getsignal(signal.SIGINT)
    result = invoke("hello", "--temperature", "1", "--stats")
    assert result.exit_code == 130
    assert "ended by cancelled" in result.stderr
    assert signal.getsignal(signal.SIGINT) is before
