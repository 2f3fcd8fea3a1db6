"""What an answer's text consists of: the parts that APIs send to their clients."""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass

_ID_LETTERS = string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True)
class Content:
    """Text for the reader."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Text of the model's thinking."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A call begins. ``index`` counts the calls of an answer from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArguments:
    """Some text of a call's arguments; all of a call's together are one JSON object."""

    index: int
    text: str


Part = Content | Reasoning | ToolCallStart | ToolCallArguments


def call_id() -> str:
    """A new name for a call, ``call_`` and 8 random letters and digits."""
    return "call_" + "".join(secrets.choice(_ID_LETTERS) for _ in range(8))


def held_back(text: str, mark: str) -> int:
    """How many characters at the end of ``text`` may turn out to begin ``mark``."""
    for size in range(min(len(text), len(mark) - 1), 0, -1):
        if mark.startswith(text[-size:]):
            return size
    return 0
