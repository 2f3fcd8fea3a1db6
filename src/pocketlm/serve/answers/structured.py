"""Requests for answers of a form, in all the shapes that clients use, as one ``Constraint``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pocketlm.errors import RequestError
from pocketlm.serve.answers.functions import MOST_SCHEMA_BYTES, check_schema
from pocketlm.serve.generation import Constraint

_MOST_CHOICES = 10_000
_KINDS = ("json", "regex", "choice", "grammar", "json_object")
# "oneOf" is followed as "anyOf": a grammar cannot see that a second one would fit too. White space
# is enough to indent with; small models do not end it by themselves.
_GUIDANCE = {"coerce_one_of": True, "whitespace_pattern": r"[ \t\n\r]{1,40}"}


def format_constraint(
    response_format: Any = None, structured_outputs: Any = None, **guided: Any
) -> Constraint | None:
    """What a request of the OpenAI API asks of its answer's form; None where nothing.

    Args:
        response_format: {"type": "text" | "json_object"}, or {"type": "json_schema", "json_schema":
            {"name", "schema", "strict"}}, whose fields may stand beside the type as in Responses.
        structured_outputs: vLLM's {"json" | "regex" | "choice" | "grammar" | "json_object": …}.
        guided: vLLM's older guided_json, guided_regex, guided_choice and guided_grammar.

    Raises:
        RequestError: malformed, too large, or more than one form.
    """
    found = [_response_format(response_format), _structured(structured_outputs)]
    for name, value in guided.items():
        kind = name.removeprefix("guided_")
        if kind not in _KINDS:
            raise TypeError(f"format_constraint has no argument {name}")
        if value is not None:
            found.append(_kind(kind, value, name))
    asked = [constraint for constraint in found if constraint is not None]
    if len(asked) > 1:
        raise RequestError("the request asks for more than one form of its answer")
    return asked[0] if asked else None


def ollama_format(value: Any) -> Constraint | None:
    """Ollama's ``format``: "json", a JSON schema, or nothing.

    Raises:
        RequestError: neither of them.
    """
    if value is None or value == "":
        return None
    if value == "json":
        return _any_object()
    if not isinstance(value, Mapping):
        raise RequestError(
            f'invalid format: {value!r}; expected "json" or a valid JSON Schema object'
        )
    return _schema(value, "format")


def _response_format(value: Any) -> Constraint | None:
    if value is None:
        return None
    kind = value.get("type") if isinstance(value, Mapping) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return _any_object()
    if kind == "json_schema":
        named = value.get("json_schema", value)
        schema = named.get("schema") if isinstance(named, Mapping) else None
        if schema is None:
            raise RequestError("response_format.json_schema.schema is missing")
        return _schema(schema, "response_format.json_schema.schema")
    raise RequestError(
        f"response_format.type is {kind!r}, expected text, json_object or json_schema"
    )


def _structured(value: Any) -> Constraint | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise RequestError("structured_outputs should be an object")
    given = {kind: value[kind] for kind in _KINDS if value.get(kind) is not None}
    unknown = sorted(set(value) - set(_KINDS))
    if unknown:
        raise RequestError(f"structured_outputs.{unknown[0]} is not known: {', '.join(_KINDS)}")
    if len(given) != 1:
        raise RequestError(f"structured_outputs should have one of {', '.join(_KINDS)}")
    ((kind, asked),) = given.items()
    return _kind(kind, asked, f"structured_outputs.{kind}")


def _kind(kind: str, value: Any, where: str) -> Constraint | None:
    if kind == "json":
        return _schema(_parsed(value, where), where)
    if kind == "json_object":
        return _any_object() if value else None
    if kind == "choice":
        return _choice(value, where)
    if not isinstance(value, str) or not value:
        raise RequestError(f"{where} should be a text that is not empty")
    if len(value) > MOST_SCHEMA_BYTES:
        raise RequestError(
            f"{where} has {len(value):,} characters, at most {MOST_SCHEMA_BYTES:,} can be"
        )
    return (
        Constraint(kind="regex", value=value)
        if kind == "regex"
        else Constraint(kind="lark", value=_lark(value))
    )


def _parsed(value: Any, where: str) -> Any:
    """A schema that may be given as its JSON text."""
    if not isinstance(value, str):
        return value
    if len(value) > MOST_SCHEMA_BYTES:
        raise RequestError(
            f"{where} has {len(value):,} characters, at most {MOST_SCHEMA_BYTES:,} can be"
        )
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{where} is no JSON: {error}") from error


def _schema(value: Any, where: str) -> Constraint:
    if value is True:
        value = {}
    if not isinstance(value, Mapping):
        raise RequestError(f"{where} should be a JSON schema, an object")
    check_schema(value, where)
    return Constraint(kind="json", value={**value, "x-guidance": _GUIDANCE})


def _any_object() -> Constraint:
    return Constraint(kind="json", value={"type": "object", "x-guidance": _GUIDANCE})


def _choice(value: Any, where: str) -> Constraint:
    texts = list(value) if isinstance(value, list | tuple) else []
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise RequestError(f"{where} should be a list of texts that are not empty")
    if len(texts) > _MOST_CHOICES or sum(map(len, texts)) > MOST_SCHEMA_BYTES:
        raise RequestError(
            f"{where} has {len(texts):,} texts; at most {_MOST_CHOICES:,} can be, of "
            f"{MOST_SCHEMA_BYTES:,} characters in all"
        )
    return Constraint(kind="choice", value=texts)


def _lark(grammar: str) -> str:
    """A grammar as llguidance reads it; one in the style of GBNF (``root ::= …``) is translated."""
    if not re.search(r"(?m)^\s*[\w-]+\s*::=", grammar):
        return grammar
    try:
        from llguidance.gbnf_to_lark import gbnf_to_lark
    except ImportError as error:
        raise RequestError(
            "grammars need the package llguidance, which is not installed"
        ) from error
    try:
        return str(gbnf_to_lark(grammar))
    except Exception as error:  # of many classes
        raise RequestError(f"the grammar cannot be read: {str(error)[:300]}") from error
