"""Multiple-choice questions from a JSONL file: one object a line.

    {"question": "Water boils at", "choices": ["50 °C", "100 °C"], "answer": 1}

``answer`` is an index into ``choices``, from 0, or the right choice's text; ``context`` is a text
that the question is about and goes before it; ``id`` names the question in messages.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pocketlm.errors import RequestError
from pocketlm.evaluate.texts import read_utf8

_KEYS = {"question", "choices", "answer", "context", "id"}
_EXAMPLE = 'A line is {"question": "…", "choices": ["…", "…"], "answer": 0}.'


@dataclass(frozen=True)
class Question:
    """Attributes:
    prompt: what the model reads first: the question, after its context and a newline.
    choices: at least two different texts, none empty.
    answer: index of the right one.
    name: its id, else its line, for messages.
    """

    prompt: str
    choices: tuple[str, ...]
    answer: int
    name: str


def read_questions(path: Path) -> list[Question]:
    """All questions of a file; empty lines are skipped.

    Raises NotFoundError where there is no file, RequestError naming the line for what is no
    question.
    """
    found = []
    for number, line in enumerate(read_utf8(path).split("\n"), start=1):
        if line.strip():
            found.append(_question(line, number, path))
    if not found:
        raise RequestError("the file has no questions", hint=_EXAMPLE, path=path)
    return found


def _question(line: str, number: int, path: Path) -> Question:
    def fail(what: str) -> NoReturn:
        raise RequestError(f"line {number}: {what}", hint=_EXAMPLE, path=path)

    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        fail(f"not JSON: {error}")
    if not isinstance(record, dict):
        fail("not a JSON object")
    if unknown := sorted(set(record) - _KEYS):
        fail(f"unknown keys {', '.join(unknown)}; known are {', '.join(sorted(_KEYS))}")
    question, context = record.get("question"), record.get("context", "")
    if not isinstance(question, str) or not isinstance(context, str):
        fail("question and context should be texts")
    prompt = f"{context}\n{question}" if context else question
    if not prompt.strip():
        fail("the question is empty")
    choices = record.get("choices")
    if not isinstance(choices, list) or not all(isinstance(c, str) and c.strip() for c in choices):
        fail("choices should be a list of texts that are not empty")
    if len(choices) < 2 or len(set(choices)) < len(choices):
        fail(f"{len(choices)} choices, expected at least two different ones")
    answer = _answer(record.get("answer"), choices)
    if answer is None:
        fail(
            f"answer is {json.dumps(record.get('answer'), ensure_ascii=False)}, expected an index "
            f"from 0 to {len(choices) - 1} or the text of a choice"
        )
    return Question(prompt, tuple(choices), answer, str(record.get("id", f"line {number}")))


def _answer(given: Any, choices: list[str]) -> int | None:
    if isinstance(given, str):
        return choices.index(given) if given in choices else None
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < len(choices):
        return given
    return None
