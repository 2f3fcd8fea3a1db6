"""The functions that a request offers to the model, checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pocketlm.errors import RequestError

MOST_FUNCTIONS = 128
MOST_SCHEMA_BYTES = 128 << 10
DEEPEST_SCHEMA = 64

_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")


@dataclass(frozen=True, slots=True)
class Function:
    """A function: its name, the JSON schema of its arguments, whether they must follow it."""

    name: str
    parameters: Mapping[str, Any]
    strict: bool = False


def read_functions(tools: Sequence[Mapping[str, Any]] | None) -> list[Function]:
    """The functions of OpenAI's ``tools``.

    Raises:
        RequestError: too many, too large or too deep, or malformed; the message says which.
    """
    if tools is None:
        return []
    if isinstance(tools, str | Mapping) or not isinstance(tools, Sequence):
        raise RequestError(f"tools should be a list, found {type(tools).__name__}")
    if len(tools) > MOST_FUNCTIONS:
        raise RequestError(f"tools has {len(tools)} functions, at most {MOST_FUNCTIONS} can be")
    functions = [_function(tool, f"tools[{i}]") for i, tool in enumerate(tools)]
    names = [function.name for function in functions]
    for name in names:
        if names.count(name) > 1:
            raise RequestError(f"tools has two functions named {name!r}")
    return functions


def _function(tool: object, where: str) -> Function:
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping):
        raise RequestError(f"{where} should be an object with a function")
    kind = tool.get("type", "function") if isinstance(tool, Mapping) else None
    if kind != "function":
        raise RequestError(f"{where}.type is {kind!r}, only functions can be called")
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RequestError(
            f"{where}.function.name is {name!r}, expected up to 128 letters, digits and _ - . : /"
        )
    parameters = function.get("parameters")
    if parameters is None:
        parameters = {"type": "object", "properties": {}}
    if not isinstance(parameters, Mapping):
        raise RequestError(f"{where}.function.parameters should be a JSON schema, an object")
    check_schema(parameters, f"{where}.function.parameters")
    return Function(name, parameters, bool(function.get("strict")))


def check_schema(schema: object, where: str) -> None:
    """Refuses a JSON schema that is too deep or too large, before anybody walks or compiles it.

    Raises:
        RequestError: with the numbers.
    """
    depth, level = 0, [schema]
    while level:
        if depth > DEEPEST_SCHEMA:
            raise RequestError(f"{where} is nested more than {DEEPEST_SCHEMA} deep")
        below: list[object] = []
        for value in level:
            if isinstance(value, Mapping):
                below += value.values()
            elif isinstance(value, list | tuple):
                below += value
        level, depth = below, depth + 1
    try:
        size = len(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise RequestError(f"{where} is no JSON: {error}") from error
    if size > MOST_SCHEMA_BYTES:
        raise RequestError(f"{where} has {size:,} bytes, at most {MOST_SCHEMA_BYTES:,} can be")
