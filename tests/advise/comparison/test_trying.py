"""One prompt to several models: the order, what is told of failures, and stopping."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pocketlm.advise.comparison.trying import Answer, Cost, Speaker, Tried, try_all
from pocketlm.errors import CapacityError, SourceError

DONE = Cost(2, 0.1, 10.0, "stop")


def speaker(
    name: str, *pieces: str, remote: bool = False, log: list[str] | None = None,
    fails: Exception | None = None, wait: threading.Event | None = None,
) -> Speaker:  # fmt: skip
    @contextmanager
    def opened() -> Iterator[Answer]:
        if log is not None:
            log.append(f"open {name}")
        yield answer
        if log is not None:
            log.append(f"close {name}")

    def answer(cancel: threading.Event) -> Iterator[str | Cost]:
        yield from pieces
        if wait is not None:
            assert wait.wait(10)
        if fails is not None:
            raise fails
        yield DONE

    return Speaker(name, remote, opened)


def run(
    *speakers: Speaker,
    on_text: Callable[[int, str], None] = lambda index, piece: None,
    cancel: threading.Event | None = None,
) -> list[Tried]:
    ended: list[int] = []
    found = try_all(
        speakers,
        on_text=on_text,
        on_end=lambda index, tried: ended.append(index),
        cancel=cancel or threading.Event(),
    )
    assert len(ended) == len(found)
    return found


def test_models_that_are_here_are_never_in_memory_together() -> None:
    log: list[str] = []
    found = run(speaker("a", "x", log=log), speaker("b", "y", "z", log=log))
    assert log == ["open a", "close a", "open b", "close b"]
    assert [(one.name, one.text, one.finish) for one in found] == [
        ("a", "x", DONE), ("b", "yz", DONE),
    ]  # fmt: skip


def test_remote_ones_answer_meanwhile() -> None:
    """The remote one is first, and ends only once the one that is here has answered."""
    here_has_begun = threading.Event()
    found = run(
        speaker("far", "f", remote=True, wait=here_has_begun),
        speaker("near", "n"),
        on_text=lambda index, piece: here_has_begun.set() if index == 1 else None,
    )
    assert [one.name for one in found] == ["far", "near"]


@pytest.mark.parametrize("remote", [False, True])
def test_one_that_cannot_answer_does_not_end_the_others(remote: bool) -> None:
    failure = CapacityError("it does not fit") if not remote else SourceError("it is not there")
    found = run(speaker("a", "half", fails=failure, remote=remote), speaker("b", "whole"))
    assert found[0].error == str(failure)
    assert found[0].text == "half"
    assert found[0].cost == f"failed: {failure}"
    assert found[1].finish == DONE


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run(speaker("a", fails=ZeroDivisionError()))


def test_after_a_stop_nothing_is_begun() -> None:
    cancel = threading.Event()
    log: list[str] = []
    found = run(
        speaker("a", "x"),
        speaker("b", "y", log=log),
        on_text=lambda index, piece: cancel.set(),
        cancel=cancel,
    )
    assert [one.name for one in found] == ["a"]
    assert log == []
