"""``pocketlm chat``: commands, history, many lines, and the two meanings of Ctrl-C."""

from __future__ import annotations

import builtins
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pocketlm
from engine.tiny_file import write_tiny_model
from pocketlm.cli import fetching
from pocketlm.cli.chat import Session, chat
from pocketlm.errors import CapacityError, RequestError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pocketlm.Model]:
    path = write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")
    with pocketlm.load(path, threads=1) as loaded:
        yield loaded


@pytest.fixture
def session(model: pocketlm.Model) -> Session:
    session = Session(model)
    session.options = {"temperature": 0, "max_tokens": 8}
    return session


@pytest.fixture
def type_lines(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Any]], None]:
    """What ``input`` returns, line by line; an exception class is raised; then the input ends."""

    def use(lines: list[Any]) -> None:
        queue = iter([*lines, EOFError])

        def read(prompt: str = "") -> str:
            line = next(queue)
            if isinstance(line, str):
                return line
            raise line

        monkeypatch.setattr(builtins, "input", read)

    return use


def test_the_conversation_is_what_the_model_sees(
    session: Session, model: pocketlm.Model, type_lines: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    type_lines(["/system be brief", "hello", "and now?"])
    session.talk()
    system = [{"role": "system", "content": "be brief"}]
    first = model.chat([*system, {"role": "user", "content": "hello"}], **session.options)
    turns = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "and now?"},
    ]
    second = model.chat([*system, *turns], **session.options)
    assert session.messages == [*turns, {"role": "assistant", "content": second.text}]
    shown = capsys.readouterr().out
    assert first.text in shown
    assert second.text in shown


def test_a_base_model_is_refused_before_the_first_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_model(tmp_path / "base.gguf", template=None, control=["<a>", "<b>", "<c>"])
    monkeypatch.setattr(fetching, "load", lambda ref, **options: pocketlm.load(ref, **options))
    with pytest.raises(RequestError, match=r"no chat template.*run --raw"):
        chat(str(path), threads=1)


def test_messages_of_many_lines(session: Session, type_lines: Any) -> None:
    type_lines(['"""one', "two", 'three"""', "a\\", "b", "/bye", "never read"])
    session.talk()
    asked = [m["content"] for m in session.messages if m["role"] == "user"]
    assert asked == ["one\ntwo\nthree", "a\nb"]


def test_a_message_in_quotes_is_no_command(session: Session, type_lines: Any) -> None:
    type_lines(['"""/bye', '"""', '"""/etc/hosts is a file"""'])
    session.talk()
    asked = [m["content"] for m in session.messages if m["role"] == "user"]
    assert asked == ["/bye\n", "/etc/hosts is a file"]


def test_set_changes_and_shows_options(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    session.handle("/set top_k 3")
    session.handle('/set stop ["a", "b"]')
    session.handle("/set on_overflow truncate")
    session.handle("/set think off")
    assert session.options["top_k"] == 3
    assert session.options["stop"] == ["a", "b"]
    assert (session.on_overflow, session.think) == ("truncate", False)
    session.handle("/set")
    shown = capsys.readouterr().out
    assert "top_k                3  (set here)" in shown
    assert "top_p                0.95\n" in shown
    assert "seed                 a new one for every answer\n" in shown
    assert "max_tokens           8  (set here)\n" in shown
    assert "think                off\n" in shown


def test_none_takes_a_setting_back(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("/system be brief", "/set think on", "/set top_k 3", "/set seed 5"):
        session.handle(line)
    for line in ("/system none", "/set think none", "/set top_k none", "/set seed none"):
        session.handle(line)
    assert (session.system, session.think) == (None, None)
    assert session.options == {"temperature": 0, "max_tokens": 8}
    session.handle("/system")
    assert capsys.readouterr().out.endswith("There is no system message.\n")


def test_a_cut_answer_says_how_to_have_more(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    session.options = {"temperature": 0, "max_tokens": 2, "ignore_eos": True}
    session.handle("hello")
    assert "\n[the answer was cut at 2 tokens (/set max_tokens)]\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/set top_p 2", "top_p is 2"),
        ("/set topp 1", "no option 'topp'.*'top_p'"),
        ("/set top_p", "needs a value"),
        ("/set on_overflow maybe", "expected error, stop or truncate"),
        ("/set think perhaps", "expected on, off or none"),
        ("/sett", "no command /sett.*/set, "),
        ("/stats", "no answer yet"),
    ],
)
def test_a_bad_command_says_what_is_wrong(session: Session, line: str, message: str) -> None:
    before = dict(session.options)
    with pytest.raises(RequestError, match=message):
        session.handle(line)
    assert session.options == before


def test_reset_forgets_and_stats_tell(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    session.handle("hello")
    session.handle("/stats")
    assert "prefill" in capsys.readouterr().out
    session.handle("/reset")
    assert session.messages == []
    session.handle("/help")
    assert "/bye" in capsys.readouterr().out


def test_an_error_leaves_the_conversation_as_it_was(
    session: Session, type_lines: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    session.handle("hello")
    before = list(session.messages)
    with pytest.raises(CapacityError):
        session.handle("x" * 300)
    assert session.messages == before
    type_lines(["x" * 300, "/stats"])
    session.talk()
    captured = capsys.readouterr()
    assert "the context has 256. /reset forgets the conversation" in captured.err
    assert "prefill" in captured.out


def test_ctrl_c_at_the_prompt_leaves_only_the_second_time(
    session: Session, type_lines: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    type_lines([KeyboardInterrupt, "/help", KeyboardInterrupt, KeyboardInterrupt, "never read"])
    session.talk()
    out = capsys.readouterr().out
    assert out.count("Ctrl-C again") == 2
    assert session.messages == []


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(
    session: Session,
    type_lines: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = pocketlm.Model.stream

    def interrupted(*args: Any, **options: Any) -> Iterator[pocketlm.Chunk]:
        for i, chunk in enumerate(real(*args, **options)):
            if i == 2:
                signal.raise_signal(signal.SIGINT)
            yield chunk

    monkeypatch.setattr(pocketlm.Model, "stream", interrupted)
    session.options = {"temperature": 0, "ignore_eos": True}
    type_lines(["hello", "/stats"])
    session.talk()
    assert session.last is not None
    assert session.last.finish_reason == "cancelled"
    assert session.messages[-1]["content"] == session.last.text
