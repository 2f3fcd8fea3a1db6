"""``pocketlm compare``: the table, JSON, Markdown and page; prompts that all models answer."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from backends.remote.endpoint import Asked, Reply, document, running, stream
from engine.tiny_file import write_tiny_model
from pocketlm.advise.comparison.trying import Cost, Tried
from pocketlm.cli.main import main
from pocketlm.cli.trying import _Columns

PROFILE = ("--device", "raspberry-pi-5-8gb")  # which needs no probe


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    return str(write_tiny_model(tmp_path / "tiny.gguf"))


def run(*args: str) -> int:
    return main(["compare", *args, "--threads", "1", "--context", "128", *PROFILE])


def test_the_table(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny, "smollm2:360m", "--types", "Q8_0") == 0
    out = capsys.readouterr().out
    assert "tiny.gguf" in out
    assert "not here" in out
    assert "A process with 128 tokens of context, KV cache f16." in out


def test_json(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny, "smollm2:360m", "--types", "Q8_0", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert [subject["where"] for subject in record["subjects"]] == ["here", "catalog"]
    assert record["subjects"][0]["sizes"][0]["on_disk"]
    assert "try" not in record


def test_markdown_and_a_page(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert run(tiny, "--types", "none", "--markdown", "--html", str(page)) == 0
    assert capsys.readouterr().out.startswith("## Facts\n\n|  | tiny.gguf |\n")
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--json", "--markdown"], "both go to stdout"),
        (["--text", "x.txt"], "--measure"),
        (["--html", "/no/such/folder/x.html"], "no folder"),
        (["--try", "  "], "is empty"),
        (["--try", "x", "--temperature", "-1"], "temperature is -1"),
        (["--try", "x", "--max-tokens", "0"], "max_tokens is 0"),
        (["--types", ","], "names no file type"),
        (["--types", "Q9_9"], "Q9_9"),
        (["--context", "0"], "context is 0"),
    ],
)
def test_bad_options_are_refused(
    tiny: str, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", tiny, *options]) == 2
    found = capsys.readouterr()
    assert said in found.err
    assert found.out == ""


def test_unknown_names(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny, "smolm2") == 1
    assert "Close: smollm2" in capsys.readouterr().err


# --try


def test_answers_come_in_blocks_in_the_order_of_the_models(
    tiny: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with running() as endpoint:

        def answer(asked: Asked) -> Reply:
            if asked.method == "GET":
                return document({"id": "phi-4"})
            return stream("Hel", "lo\x1b[2J")

        endpoint.answers = [answer]
        code = run(
            tiny, endpoint.ref, "smollm2:360m", "--try", "hi", "--max-tokens", "5", "--seed", "9",
            "--temperature", "0.5",
        )  # fmt: skip
        body = endpoint.asked[-1].body
    found = capsys.readouterr()
    assert code == 0
    first, second = found.out.split("\n\n--- ")
    assert first.startswith("--- tiny.gguf\n")
    assert "5 tokens at" in first
    assert second.startswith(f"{endpoint.ref}\nHello")
    assert "3 tokens" in second
    assert "smollm2:360m is not here: 'pocketlm pull smollm2:360m'" in found.err
    assert (body["seed"], body["temperature"], body["top_p"], body["max_tokens"]) == (9, 0.5, 1, 5)


def test_answers_are_the_models_own(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same as ``run`` gives with the same options: nothing is drawn otherwise."""
    options = ["--max-tokens", "12", "--temperature", "1", "--seed", "4", "--top-p", "0.9"]
    assert run(tiny, "--try", "hello", *options, "--json") == 0
    record = json.loads(capsys.readouterr().out)["try"]
    more = ["--top-k", "0", "--min-p", "0", "--threads", "1", "--json"]
    assert main(["run", tiny, "hello", *options, *more]) == 0
    assert record["answers"][0]["text"] == json.loads(capsys.readouterr().out)["text"]
    assert record["options"] == {"max_tokens": 12, "temperature": 1, "top_p": 0.9, "seed": 4}


def test_one_that_fails_is_told_of(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running() as endpoint:
        endpoint.answers = [document({"error": {"message": "no quota"}}, 403)]
        page = tmp_path / "p.html"
        assert run(tiny, endpoint.ref, "--try", "hi", "--max-tokens", "2", "--html", str(page)) == 0
        assert "failed: 127.0.0.1" in capsys.readouterr().out
        assert run(endpoint.ref, "--try", "hi", "--markdown") == 1
        assert "no quota" in capsys.readouterr().out
    assert "no quota" in page.read_text("utf-8")


def test_columns_on_a_terminal() -> None:
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=60, force_terminal=True, color_system=None)
    with _Columns(["a", "b"], console) as columns:
        columns.text(0, "one\x1b[2J")
        columns.text(1, "[bold]two\n" * 3)
        columns.text(0, " more")
        columns.end(0, Tried("a", "", Cost(3, 0.5, 9.0, "stop")))
        columns.end(1, Tried("b", "", None, "no memory"))
    last = out.getvalue().split("\x1b[2K")[-1]
    assert "\x1b[2J" not in last
    lines = last.splitlines()
    assert any("one\\x1b[2J more" in line and "[bold]two" in line for line in lines)
    assert "9.0 tokens/s" in last
    assert "failed: no memory" in last


@pytest.mark.real
def test_real_models_answer(
    real_model: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    refs = [str(real_model(name)) for name in ("smollm2:135m", "gemma3:270m")]
    asked = ["--try", "What is the capital of Italy? Answer in one sentence.", "--max-tokens", "12"]
    assert main(["compare", *refs, "--types", "none", *asked, "--json", *PROFILE]) == 0
    smollm, gemma = json.loads(capsys.readouterr().out)["try"]["answers"]
    assert smollm["text"] == "The capital of Italy is Rome."
    assert gemma["finish"]["tokens"] == 12
    assert gemma["error"] is None
