"""Modelfiles: how people write down a model of their own, read and written.

    FROM smollm2:135m
    PARAMETER temperature 0.2
    SYSTEM "You answer in one sentence."
    MESSAGE user What is water?

A line begins with a command, in any case; ``#`` begins a comment line. A value is the rest of its
line, or stands between quotes, one or three, and then may have lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pocketlm.errors import RequestError, UnsupportedError
from pocketlm.store.parameters import INTEGERS, NUMBERS, SWITCHES

_COMMANDS = (
    "from", "parameter", "template", "system", "message", "license", "requires", "adapter",
    "draft", "renderer", "parser",
)  # fmt: skip
_UNSUPPORTED = {
    "adapter": "adapters (LoRA) are not applied; merge it into the weights first",
    "draft": "a draft model is chosen when a model is run (--speculate)",
}
_ROLES = ("system", "user", "assistant")
_MOST_CHARACTERS = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Modelfile:
    """What a Modelfile says. ``base`` is a ref or a path; ``params`` have Ollama's names."""

    base: str
    template: str | None = None
    system: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    messages: Sequence[Mapping[str, str]] = ()
    licences: Sequence[str] = ()


def parse_modelfile(text: str) -> Modelfile:
    """Raises RequestError naming the line that is wrong, UnsupportedError for an adapter."""
    if len(text) > _MOST_CHARACTERS:
        raise RequestError(f"the Modelfile has more than {_MOST_CHARACTERS:,} characters")
    last: dict[str, str] = {}
    params: dict[str, Any] = {}
    messages: list[dict[str, str]] = []
    licences: list[str] = []
    for number, command, value in _commands(text):
        if command in _UNSUPPORTED:
            raise UnsupportedError(f"line {number}: {command.upper()}: {_UNSUPPORTED[command]}")
        if command == "parameter":
            _add_parameter(params, number, value)
        elif command == "message":
            role, _, content = value.partition(" ")
            if role.lower() not in _ROLES:
                raise RequestError(
                    f"line {number}: the role is {role!r}, expected {', '.join(_ROLES)}"
                )
            messages.append({"role": role.lower(), "content": _unquoted(content.strip())})
        elif command == "license":
            licences.append(value)
        else:
            last[command] = value
    if not last.get("from"):
        raise RequestError("no FROM line: it names the model to begin with")
    return Modelfile(
        base=last["from"],
        template=last.get("template"),
        system=last.get("system"),
        params=params,
        messages=tuple(messages),
        licences=tuple(licences),
    )


def read_parameter(name: str, value: str) -> Any:
    """A parameter's value in its type. Raises RequestError for a wrong type or an unknown name."""
    try:
        if name in INTEGERS:
            return int(value)
        if name in NUMBERS:
            return float(value)
        if name in SWITCHES:
            return {"true": True, "1": True, "false": False, "0": False}[value.lower()]
    except (ValueError, KeyError) as error:
        raise RequestError(f"invalid value for parameter {name}: {value[:80]!r}") from error
    if name == "stop":
        return value
    raise RequestError(f"unknown parameter '{name[:80]}'")


def _add_parameter(params: dict[str, Any], number: int, value: str) -> None:
    name, _, rest = value.partition(" ")
    name = name.lower()
    rest = _unquoted(rest.strip())
    if not rest:
        raise RequestError(f"line {number}: PARAMETER {name} has no value")
    try:
        found = read_parameter(name, rest)
    except RequestError as error:
        raise RequestError(f"line {number}: {error.message}") from error
    if name == "stop":
        params.setdefault("stop", []).append(found)
    else:
        params[name] = found


def _commands(text: str) -> Iterator[tuple[int, str, str]]:
    """Line number, command and value of each."""
    lines = text.lstrip("\ufeff").splitlines()
    at = 0
    while at < len(lines):
        number, line = at + 1, lines[at].strip()
        at += 1
        if not line or line.startswith("#"):
            continue
        command, *rest = re.split(r"\s+", line, maxsplit=1)
        command = command.lower()
        if command not in _COMMANDS:
            raise RequestError(
                f"line {number}: command must be one of "
                f"{', '.join(name.upper() for name in _COMMANDS[:7])}, found {command[:40]!r}"
            )
        value = rest[0] if rest else ""
        opening = _opening(command, value)
        while opening and not _closed(value, opening):
            if at == len(lines):
                raise RequestError(f"line {number}: the {opening} is not closed")
            value += "\n" + lines[at]
            at += 1
        yield number, command, value if command in ("parameter", "message") else _unquoted(value)


def _opening(command: str, value: str) -> str:
    """The quotes in which a value begins that may go on in further lines."""
    if command in ("parameter", "message"):
        value = value.partition(" ")[2].lstrip()
    if value.startswith('"""'):
        return '"""'
    return '"' if value.startswith('"') else ""


def _closed(value: str, quotes: str) -> bool:
    start = value.index(quotes) + len(quotes)
    return value.find(quotes, start) >= 0


def _unquoted(value: str) -> str:
    for quotes in ('"""', '"'):
        if value.startswith(quotes):
            inside, closing, _ = value[len(quotes) :].partition(quotes)
            return inside if closing else value
    return value


def write_modelfile(
    base: str,
    *,
    template: str | None = None,
    system: str | None = None,
    params: Mapping[str, Any],
    messages: Sequence[Mapping[str, Any]] = (),
    licences: Sequence[str] = (),
) -> str:
    """The text that ``parse_modelfile`` reads as the same."""
    lines = [f"FROM {base}"]
    if template:
        lines.append(f"TEMPLATE {_quoted(template)}")
    if system:
        lines.append(f"SYSTEM {_quoted(system)}")
    for name, value in params.items():
        for one in value if isinstance(value, list) else [value]:
            text = _quoted(one) if isinstance(one, str) else json.dumps(one)
            lines.append(f"PARAMETER {name} {text}")
    lines += [
        f"MESSAGE {one.get('role')} {_quoted(str(one.get('content', '')))}" for one in messages
    ]
    lines += [f"LICENSE {_quoted(text)}" for text in licences]
    return "\n".join(lines) + "\n"


def parameter_lines(params: Mapping[str, Any]) -> list[str]:
    """Parameters in columns, one line for each value, as ``ollama show`` prints them."""
    return [
        f"{name:<30} {json.dumps(one, ensure_ascii=False)}"
        for name, value in params.items()
        for one in (value if isinstance(value, list) else [value])
    ]


def _quoted(text: str) -> str:
    return f'"""{text}"""' if '"' in text or "\n" in text else f'"{text}"'
