"""Multiple choice by asking: the model is shown the choices by letter and writes the letter.

For models that give texts and no probabilities, as those behind a chat-completions endpoint, and
for models here that are to be compared with them. It is another protocol than ``tasks`` (the
log-likelihood of each choice): the prompt shows all choices, following instructions is part of what
is measured, and a reply without a clear letter counts as wrong. The two do not belong in one table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from pocketlm.errors import RequestError
from pocketlm.evaluate.questions import Question
from pocketlm.progress import Progress, ProgressCallback, silent

PROTOCOL = "asked letter"
MAX_TOKENS = 1024  # models that think need them; the others have written the letter long before
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LONG = 200  # characters of a first line after which no letter is waited for
_THOUGHTS = re.compile(r"\s*<think>.*?</think>", re.S)
_ALONE = re.compile(r"[\s*_(\[\"'`$]*(?:\\boxed\{)?([A-Z])(?:[*_)\].\"'`:,}$]|\s*$)")
_SAID = re.compile(r"\b[Aa]nswer(?:\s+is)?\s*:?[\s*_(\[\"'`]*([A-Z])(?![A-Za-z'])")

Ask = Callable[[str], Iterator[str]]
"""Sends one message and gives the reply piece by piece; closing the iterator stops it."""


class _HasText(Protocol):
    @property
    def text(self) -> str: ...


@dataclass(frozen=True)
class AskedScore:
    """Attributes:
    acc: share of questions answered rightly.
    acc_stderr: of a mean of independent questions; None for one.
    questions: how many.
    unclear: of them, those whose reply has no clear letter; they count as wrong.
    refused: of them, those that the endpoint's content filter refused; they count as wrong.
    protocol: says that this is no score by log-likelihood.
    """

    acc: float
    acc_stderr: float | None
    questions: int
    unclear: int
    refused: int
    protocol: str = PROTOCOL


def ask_letters(
    ask: Ask,
    questions: Sequence[Question],
    *,
    refusal: type[Exception] | tuple[type[Exception], ...] = (),
    task: str = "questions",
    progress: ProgressCallback = silent,
) -> AskedScore:
    """Asks every question once; progress is in questions.

    Args:
        refusal: what a refused question is raised as, to be counted; anything else ends it all.

    Raises RequestError for a question with more choices than there are letters.
    """
    for question in questions:
        if len(question.choices) > len(_LETTERS):
            raise RequestError(
                f"{question.name} has {len(question.choices)} choices, but there are "
                f"{len(_LETTERS)} letters to ask for"
            )
    right = unclear = refused = 0
    progress(Progress(task, 0, len(questions)))
    for number, question in enumerate(questions, 1):
        try:
            chosen = _chosen(ask(prompt(question)), question)
        except refusal:
            refused += 1
        else:
            unclear += chosen is None
            right += chosen == question.answer
        progress(Progress(task, number, len(questions)))
    count = len(questions)
    acc = right / count
    error = math.sqrt(acc * (1 - acc) / (count - 1)) if count > 1 else None
    return AskedScore(acc, error, count, unclear, refused)


def prompt(question: Question) -> str:
    """What is asked: the question, its choices by letter, and for the letter."""
    lines = [f"{letter}. {c}" for letter, c in zip(_LETTERS, question.choices, strict=False)]
    # The question may end in "Answer:", which asks to go on with the text.
    text = re.sub(r"\s*\bAnswer:\s*$", "", question.prompt).rstrip()
    last = _LETTERS[len(lines) - 1]
    return "\n".join(
        [text, "", *lines, "", f"Reply with one letter, A to {last}, and nothing else."]
    )


def _chosen(pieces: Iterator[str], question: Question) -> int | None:
    """The choice that a reply names, read only as far as needed."""
    text = ""
    with closing(pieces) as reply:  # type: ignore[type-var]  # iterators of Python have close()
        for piece in reply:
            text += piece
            line = _first_line(text)
            if line is not None and (line.endswith("\n") or len(line) > _LONG):
                break
    return read_letter(text, question.choices)


def read_letter(reply: str, choices: Sequence[str]) -> int | None:
    """The index of the choice that a reply names, None where it is not clear.

    Its first line that says something: a letter alone (``B``, ``(B)``, ``B. London``), ``answer is
    B``, or the very text of one choice.
    """
    line = _first_line(reply)
    if line is None:
        return None
    line = line.strip()
    found = _ALONE.match(line) or _SAID.search(line)
    if found is not None:
        index = _LETTERS.index(found[1])
        return index if index < len(choices) else None
    said = line.strip(" .*_\"'`").casefold()
    same = [i for i, choice in enumerate(choices) if choice.strip(" .").casefold() == said]
    return same[0] if len(same) == 1 else None


def _first_line(text: str) -> str | None:
    """The first line that is not empty, after thoughts; with its end where that has come."""
    text = _THOUGHTS.sub("", text, count=1).lstrip()
    if not text or text.startswith("<think>"):
        return None
    return next(islice(iter(text.splitlines(keepends=True)), 1))
