"""``run``, ``chat``, ``eval``, ``show`` and ``list`` with a model that runs elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backends.remote.endpoint import Asked, Endpoint, Reply, document, running, stream
from engine.tiny_file import write_tiny_model
from pocketlm.cli.main import main

Run = Callable[..., int]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with running() as started:
        yield started


def test_run_writes_the_answer_and_nothing_else(
    endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["run", endpoint.ref, "hi", "--system", "be brief", "--seed", "3"])
    found = capsys.readouterr()
    assert (code, found.out, found.err) == (0, "Hello\n", "")
    body = endpoint.asked[0].body
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["seed"] == 3


def test_run_as_json_and_with_stats(endpoint: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", endpoint.ref, "hi", "--json", "--stats"]) == 0
    found = capsys.readouterr()
    record = json.loads(found.out)
    assert (record["model"], record["text"], record["finish_reason"]) == (
        endpoint.ref, "Hello", "stop",
    )  # fmt: skip
    assert record["stats"]["completion_tokens"] == 3
    assert "answered by phi-4-2025" in found.err
    assert "11 tokens (4 cached)" in found.err


def test_what_is_not_whole_is_said(endpoint: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    for finish, said in (("length", "was cut at the limit"), ("content_filter", "content filter")):
        endpoint.answers = [stream("Hel", finish=finish)]
        assert main(["run", endpoint.ref, "hi"]) == 0
        assert said in capsys.readouterr().err
    endpoint.answers = [stream(finish="length")]
    main(["run", endpoint.ref, "hi"])
    assert "spent on thinking" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--threads", "2", "--kv", "q8"], ["--threads", "--kv"]),
        (["--context", "99"], ["--context"]),
        (["--speculate", "off"], ["--speculate"]),
        (["--on-overflow", "stop"], ["--on-overflow"]),
        (["--raw"], ["--raw"]),
        (["--no-think"], ["--think"]),
        (["--top-k", "3", "--min-p", "0.1"], ["top_k", "min_p"]),
    ],
)
def test_options_that_it_cannot_honour_are_named(
    endpoint: Endpoint, capsys: pytest.CaptureFixture[str], options: list[str], named: list[str]
) -> None:
    assert main(["run", endpoint.ref, "hi", *options]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert all(name in found.err for name in named)
    assert endpoint.asked == []


def test_a_failure_is_a_message_and_no_output(
    endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.answers = [document({"error": {"message": "slow\x1b[2J down"}}, 429, Retry_After="9")]
    assert main(["run", endpoint.ref, "hi"]) == 1
    found = capsys.readouterr()
    assert found.out == ""
    assert "asks to wait 9 s" in found.err
    assert "\x1b" not in found.err


def test_a_terminal_is_not_steered(
    endpoint: Endpoint, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    endpoint.answers = [stream("a\tb\n", "\x1b]0;evil\x07")]
    main(["run", endpoint.ref, "hi"])
    assert capsys.readouterr().out == "a\tb\n\\x1b]0;evil\\x07\n"


def test_chat_keeps_the_conversation(
    endpoint: Endpoint, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(
        ["hi", "/stats", "/set temperature 0.5", "/set top_k 5", "/set think on", "/set", "again",
         "/reset", "/stats", "/bye"]
    )  # fmt: skip
    monkeypatch.setattr("builtins.input", lambda prompt="": next(lines))
    assert main(["chat", endpoint.ref]) == 0
    found = capsys.readouterr()
    bodies = [asked.body for asked in endpoint.asked]
    assert [message["content"] for message in bodies[1]["messages"]] == ["hi", "Hello", "again"]
    assert bodies[1]["temperature"] == 0.5
    assert "top_k" not in bodies[1]
    assert "no option top_k" in found.err
    assert "no option think" in found.err
    assert "there has been no answer yet" in found.err
    assert "temperature          0.5\n" in found.out
    assert found.out.count("answered by phi-4-2025") == 1


def test_show_and_list(endpoint: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"id": "phi-4", "owned_by": "me", "created": 1744675200, "max_model_len": 4096}

    def answer(asked: Asked) -> Reply:
        return document({"data": [facts]} if asked.path == "/v1/models" else facts)

    endpoint.answers = [answer]
    assert main(["show", endpoint.ref]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines() == [
        endpoint.ref,
        f"  endpoint      {endpoint.url}/v1",
        "  model         phi-4",
        "  publisher     me",
        "  context       4,096 tokens",
        "  created       2025-04-15",
    ]
    assert main(["show", endpoint.ref, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["created"] == "2025-04-15T00:00:00+00:00"
    assert main(["list", f"openai:{endpoint.url}/v1"]) == 0
    assert f"{endpoint.ref}  phi-4" in capsys.readouterr().out
    assert main(["list", f"openai:{endpoint.url}/v1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["ref"] == endpoint.ref
    assert main(["show", endpoint.ref, "--path"]) == 2
    assert main(["list", "smollm2"]) == 2


def test_nothing_else_reaches_out(endpoint: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (
        ["pull"],
        ["bench"],
        ["footprint"],
        ["rm"],
        ["verify"],
        ["convert", "-o", "x.gguf"],
    ):
        assert main([verb[0], endpoint.ref, *verb[1:]]) == 1, verb
        assert "runs elsewhere" in capsys.readouterr().err
    assert endpoint.asked == []


# eval


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    line = {"question": "Which?", "choices": ["one", "two"], "answer": 1}
    path.write_text("\n".join([json.dumps(line)] * 3))
    return path


def test_eval_asks_for_letters(
    endpoint: Endpoint, questions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filtered = document({"error": {"code": "content_filter"}}, 400)
    endpoint.answers = [stream("B"), filtered, document({}, 429, retry_after_ms="5"), stream("A")]
    assert main(["eval", endpoint.ref, "--task", str(questions)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == (
        "  protocol       asked letter: not comparable with scores by log-likelihood"
    )
    assert lines[3].startswith("  acc            33.33 ± ")
    assert lines[4] == "  refused        1 by the content filter, and count as wrong"
    assert endpoint.asked[0].body["temperature"] == 0
    assert main(["eval", endpoint.ref, "--task", str(questions), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["asked"]["protocol"] == "asked letter"
    assert "task" not in record


def test_a_model_that_chooses_its_temperature_is_asked_without(
    endpoint: Endpoint, questions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = {"message": "Unsupported value", "param": "temperature"}
    endpoint.answers = [document({"error": error}, 400), stream("B")]
    assert main(["eval", endpoint.ref, "--task", str(questions)]) == 0
    found = capsys.readouterr()
    assert "100.00" in found.out
    assert found.err.count("chooses its own temperature") == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--text", "x.txt"], "--text"),
        (["--reference", "y"], "--reference"),
        (["--stride", "4"], "--stride"),
        (["--context", "9"], "--context"),
        (["--kv", "q8"], "--kv"),
    ],
)
def test_eval_refuses_what_needs_probabilities(
    endpoint: Endpoint,
    questions: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    named: str,
) -> None:
    assert main(["eval", endpoint.ref, "--task", str(questions), *options]) == 2
    assert named in capsys.readouterr().err
    assert endpoint.asked == []


def test_a_model_that_is_here_can_be_asked_the_same(
    questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf")
    asked = ["eval", str(path), "--asked", "--threads", "1"]
    assert main([*asked, "--task", str(questions)]) == 0
    assert "protocol       asked letter" in capsys.readouterr().out
    assert main([*asked, "--text", str(questions)]) == 2
    assert "--asked cannot be measured with --text" in capsys.readouterr().err
