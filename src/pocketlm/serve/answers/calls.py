"""Calls of functions out of the texts that models write, as JSON or as Python."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Python that is longer is not read as calls: its parser takes memory many times the text's.
_MOST_PYTHON = 64 << 10

_ARGUMENTS = ("arguments", "parameters")
_LONE = re.compile("[\ud800-\udfff]")
# Where a text that begins like this can still become calls in JSON.
_KEYS = ('"name"', '"type"', '"function"', '"arguments"', '"parameters"')


@dataclass(frozen=True, slots=True)
class Call:
    """A function and its arguments, a JSON object."""

    name: str
    arguments: str


Calls = tuple[list[Call], str]  # what was read, and the text behind it


def json_calls(text: str, *, complete: bool = False) -> Calls | None:
    """Calls written as JSON objects one after another, in lists or not.

    An object has "name" and "arguments" (or "parameters"), or is OpenAI's {"type": "function",
    "function": …}. None where the text does not begin with a call. What stands behind the last
    call is not read, so the whole calls of a list that breaks off are found.

    Args:
        complete: an object must name its arguments to be a call.
    """
    calls: list[Call] = []
    at = 0
    while True:
        start = _skip(text, at)
        value, end = _decode(text, start)
        call = _from_object(value, complete)
        if call is None:
            return (calls, text[at:]) if calls else None
        calls.append(call)
        at = _skip(text, end, " \t\r\n]")


def _skip(text: str, at: int, chars: str = " \t\r\n,;[") -> int:
    while at < len(text) and text[at] in chars:
        at += 1
    return at


def _decode(text: str, at: int) -> tuple[Any, int]:
    """The JSON object at ``at`` and where it ends; ``at`` itself where there is none."""
    if text[at : at + 1] != "{":
        return None, at
    try:
        value, end = _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None, at
    return value, int(end)


def _from_object(value: Any, complete: bool) -> Call | None:
    if not isinstance(value, dict):
        return None
    function = value.get("function")
    if isinstance(function, dict):
        value = function
    name = value.get("name", function)
    key = next((key for key in _ARGUMENTS if key in value), None)
    if not isinstance(name, str) or not name or (key is None and complete):
        return None
    arguments = value[key] if key is not None else {}
    if isinstance(arguments, str):  # some models quote them
        arguments, end = _decode(arguments, 0)
        if end == 0:
            return None
    if arguments is None:
        arguments = {}
    return _call(name, arguments) if isinstance(arguments, dict) else None


def python_calls(text: str) -> Calls | None:
    """Calls as Python with literals: ``f(a=1)``, ``print(f(a=1))`` or ``[f(a=1), g()]``."""
    if len(text) > _MOST_PYTHON:
        return None
    try:
        tree = ast.parse(text.strip())
        calls = [call for line in tree.body for call in _from_statement(line)]
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None
    return (calls, "") if calls else None


def _from_statement(line: ast.stmt) -> Iterator[Call]:
    if not isinstance(line, ast.Assign | ast.Expr):
        raise ValueError("no call")
    value = line.value
    for one in value.elts if isinstance(value, ast.List) else [value]:
        yield _from_python(one)


def _from_python(value: ast.expr) -> Call:
    if not isinstance(value, ast.Call):
        raise ValueError("no call")
    name = ast.unparse(value.func)
    if name == "print" and len(value.args) == 1 and isinstance(value.args[0], ast.Call):
        return _from_python(value.args[0])
    if value.args or not re.fullmatch(r"[\w.]+", name):
        raise ValueError("arguments without names")
    named = {word.arg or "": ast.literal_eval(word.value) for word in value.keywords}
    if "" in named:
        raise ValueError("arguments without names")
    return _call(name, named)


def may_be_json_calls(text: str) -> bool:
    """Whether a text that begins like this may become calls in JSON."""
    head = text.lstrip()
    if head.startswith("["):
        head = head[1:].lstrip()
        if not head:
            return True
    if not head.startswith("{"):
        return not head
    key = head[1:].lstrip()[:12]
    return any(key.startswith(known) or known.startswith(key) for known in _KEYS)


def may_be_python_calls(text: str) -> bool:
    """Whether a text that begins like this may become a list of calls in Python."""
    return re.fullmatch(r"\s*(\[\s*([A-Za-z_][\w.]*\s*(\(.*)?)?)?", text, re.DOTALL) is not None


def _call(name: str, arguments: dict[str, Any]) -> Call:
    """A call in valid Unicode: a model may write half a pair of escapes, such as \\ud83d."""
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    return Call(_LONE.sub("\ufffd", name), _LONE.sub("\ufffd", text))


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no JSON number")
    return number


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)
