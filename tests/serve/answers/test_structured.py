"""What clients say about the form of an answer, and which answers that allows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.serve.answers.families import QWEN3, R1, SMOLLM2, accepts

from pocketlm.errors import RequestError
from pocketlm.serve.answers import after_thinking, format_constraint, ollama_format
from pocketlm.serve.generation import Constraint

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def test_no_form_is_no_constraint() -> None:
    assert format_constraint() is None
    assert format_constraint({"type": "text"}) is None
    assert format_constraint(None, {"json_object": False}) is None
    assert ollama_format(None) is None
    assert ollama_format("") is None


@pytest.mark.parametrize(
    "constraint",
    [
        format_constraint({"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}),
        format_constraint({"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}),
        format_constraint(None, {"json": SCHEMA}),
        format_constraint(None, {"json": '{"properties": {"n": {"type": "integer"}}}'}),
        format_constraint(guided_json=SCHEMA),
        ollama_format(SCHEMA),
    ],
)
def test_a_schema_is_followed(constraint: Constraint) -> None:
    assert accepts(constraint, '{"n": 1}')
    assert not accepts(constraint, '{"n": "1"}')
    assert not accepts(constraint, "one")


@pytest.mark.parametrize(
    "constraint",
    [
        format_constraint({"type": "json_object"}),
        format_constraint(None, {"json_object": True}),
        ollama_format("json"),
    ],
)
def test_any_object_is_an_object(constraint: Constraint) -> None:
    assert accepts(constraint, '{"a": [1, {"b": null}]}')
    assert not accepts(constraint, "[1]")


def test_expressions_and_choices() -> None:
    assert accepts(format_constraint(None, {"regex": "[0-9]{3}"}), "123")
    assert not accepts(format_constraint(guided_regex="[0-9]{3}"), "12")
    assert accepts(format_constraint(None, {"choice": ["yes", "no"]}), "no")
    assert not accepts(format_constraint(guided_choice=["yes", "no"]), "maybe")


@pytest.mark.parametrize("grammar", ['start: "a" /b+/', 'root ::= "a" b\nb ::= "b" b | "b"'])
def test_grammars_in_both_dialects(grammar: str) -> None:
    constraint = format_constraint(None, {"grammar": grammar})
    assert accepts(constraint, "abb")
    assert not accepts(constraint, "ba")


def test_one_of_is_followed_as_any_of() -> None:
    schema = {"oneOf": [{"type": "integer"}, {"type": "boolean"}]}
    assert accepts(ollama_format(schema), "true")


@pytest.mark.parametrize(
    "asked",
    [
        {"response_format": 3},
        {"response_format": {"type": "xml"}},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": 3}}},
        {"structured_outputs": []},
        {"structured_outputs": {}},
        {"structured_outputs": {"structural_tag": {}}},
        {"structured_outputs": {"regex": "a", "choice": ["a"]}},
        {"structured_outputs": {"regex": 3}},
        {"structured_outputs": {"choice": []}},
        {"structured_outputs": {"choice": "ab"}},
        {"structured_outputs": {"choice": ["a"] * 10_001}},
        {"structured_outputs": {"json": "{"}},
        {"structured_outputs": {"json": "[" * 100_000}},
        {"structured_outputs": {"regex": "a" * 200_000}},
        {"structured_outputs": {"grammar": "root ::= ("}},
        {"guided_json": {"description": "x" * 200_000}},
        {"response_format": {"type": "json_object"}, "guided_regex": "a"},
    ],
)
def test_bad_forms_are_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        format_constraint(**asked)


@pytest.mark.parametrize("value", ["yaml", 3, ["json"]])
def test_ollama_refuses_other_formats(value: Any) -> None:
    with pytest.raises(RequestError, match="invalid format"):
        ollama_format(value)


# Behind the thinking


@pytest.mark.parametrize(
    ("constraint", "right", "wrong"),
    [
        (ollama_format(SCHEMA), '{"n": 1}', "one"),
        (Constraint(kind="regex", value="a|[/]bc"), "/bc", "ac"),
        (Constraint(kind="regex", value="a\\/b/c\n"), "a/b/c\n", "ac"),
        (Constraint(kind="choice", value=["yes", "n'o\"\n"]), "n'o\"\n", "maybe"),
        (Constraint(kind="lark", value='start: "a" x\nx: "b" start?'), "abab", "aba"),
    ],
)
def test_the_form_begins_behind_the_thinking(
    constraint: Constraint, right: str, wrong: str
) -> None:
    control = replace(QWEN3, special_texts={"<think>": 257, "</think>": 258})
    for facts in (QWEN3, control):
        behind = after_thinking(constraint, facts, {})
        assert behind is not None
        for space in ("", "\n", "\n\n"):
            assert accepts(behind, f"<think>\nHm, {right}.\n</think>{space}{right}", facts)
        assert accepts(behind, f"Hm.</think>{right}", facts)  # the template has opened it
        assert not accepts(behind, f"<think>Hm.</think>\n\n{wrong}", facts)
        assert not accepts(behind, f"<think>Hm.</think>\n\n\n{right}", facts)
        assert not accepts(behind, "<think>Hm.", facts)
        assert not accepts(behind, right, facts)


def test_the_form_begins_at_once_where_the_model_does_not_think() -> None:
    constraint = ollama_format("json")
    assert after_thinking(constraint, QWEN3, {"enable_thinking": False}) == constraint
    assert after_thinking(constraint, SMOLLM2, {}) == constraint
    assert after_thinking(None, QWEN3, {}) is None


def test_a_template_that_opens_the_thinking_always_thinks() -> None:
    behind = after_thinking(ollama_format("json"), R1, {})
    assert behind is not None
    assert accepts(behind, "Hm.</think>\n{}")
    assert not accepts(behind, "{}")
