"""Asking for letters: what is asked, what counts as an answer, and the score."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from pocketlm.errors import RequestError
from pocketlm.evaluate.asked import ask_letters, prompt, read_letter
from pocketlm.evaluate.questions import Question

CHOICES = ("Mars", "Jupiter", "A dog")
QUESTION = Question("Question: Which is largest?\nAnswer:", CHOICES, 1, "q1")


def test_what_is_asked() -> None:
    assert prompt(QUESTION) == (
        "Question: Which is largest?\n\nA. Mars\nB. Jupiter\nC. A dog\n\n"
        "Reply with one letter, A to C, and nothing else."
    )


@pytest.mark.parametrize(
    ("reply", "want"),
    [
        ("B", 1), (" B.", 1), ("(B)", 1), ("**B**", 1), ("B. Jupiter", 1), ("\n\nB\nbecause", 1),
        ("$\\boxed{B}$", 1), ("The answer is B.", 1), ("Answer: C", 2),
        ("The correct answer is **A**", 0),
        ("jupiter", 1), ("Jupiter.", 1), ("A dog", 2), ("<think>A? No, C.</think>\nB", 1),
        ("D", None), ("A planet is large", None), ("I think so", None), ("", None), ("b", None),
        ("<think>it is B", None), ("Because", None), ("The answer isn't clear", None),
    ],
)  # fmt: skip
def test_replies(reply: str, want: int | None) -> None:
    assert read_letter(reply, CHOICES) == want


class RefusedError(Exception):
    pass


def test_the_score() -> None:
    replies = iter(["B", "A", "no idea", None])

    def ask(message: str) -> Iterator[str]:
        reply = next(replies)
        if reply is None:
            raise RefusedError
        yield from reply

    found = ask_letters(ask, [QUESTION] * 4, refusal=RefusedError)
    assert (found.acc, found.questions, found.unclear, found.refused) == (0.25, 4, 1, 1)
    assert found.acc_stderr == pytest.approx(math.sqrt(0.25 * 0.75 / 3))
    assert found.protocol == "asked letter"


def test_a_reply_is_read_no_further_than_its_first_line() -> None:
    read: list[str] = []
    closed = False

    def ask(message: str) -> Iterator[str]:
        nonlocal closed
        try:
            for piece in ("\n", "B", ".", " Jupiter\n", "It has", " a mass"):
                read.append(piece)
                yield piece
        finally:
            closed = True

    assert ask_letters(ask, [QUESTION]).acc == 1
    assert read[-1] == " Jupiter\n"
    assert closed


def test_other_failures_end_it() -> None:
    def ask(message: str) -> Iterator[str]:
        raise KeyError("x")

    with pytest.raises(KeyError):
        ask_letters(ask, [QUESTION], refusal=RefusedError)


def test_there_are_26_letters() -> None:
    many = Question("q", tuple(str(i) for i in range(27)), 0, "line 3")
    with pytest.raises(RequestError, match="line 3 has 27 choices"):
        ask_letters(lambda message: iter(()), [many])
