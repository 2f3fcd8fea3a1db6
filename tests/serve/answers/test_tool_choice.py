"""Grammars that make a family call: they take its calls, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.serve.answers.families import (
    FAMILIES,
    LLAMA3,
    PHI4,
    QWEN3,
    TIME,
    WEATHER,
    accepts,
    function,
)
from tests.serve.answers.test_reader import call, read

from pocketlm.errors import RequestError
from pocketlm.serve.answers import format_constraint, tool_constraint
from pocketlm.serve.generation import Constraint, ModelFacts

# One call of weather, in the words of each family.
ONE = {
    "qwen3": '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>',
    "smollm2": '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>',
    "llama3": '{"name": "weather", "parameters": {"city": "Rome"}}',
    "phi4": '<|tool_call|>[{"name": "weather", "arguments": {"city": "Rome"}}]<|/tool_call|>',
    "gemma3": '[{"name": "weather", "parameters": {"city": "Rome"}}]',
}
TWO = {
    "qwen3": ONE["qwen3"]
    + '\n<tool_call>\n{"name": "time", "arguments": {"zone": "utc"}}\n</tool_call>',
    "phi4": ONE["phi4"].replace("}}]", '}}, {"name": "time", "arguments": {"zone": "utc"}}]'),
    "gemma3": ONE["gemma3"].replace("}}]", '}}, {"name": "time", "parameters": {"zone": "utc"}}]'),
}
TOOLS = [WEATHER, TIME]


def asked(facts: ModelFacts, choice: Any, tools: Any = TOOLS, **more: Any) -> Constraint:
    constraint = tool_constraint(facts, tools, choice, **more)
    assert constraint is not None
    return constraint


@pytest.mark.parametrize("family", FAMILIES)
def test_required_takes_a_call_and_nothing_else(family: str) -> None:
    facts, text = FAMILIES[family], ONE[family]
    constraint = asked(facts, "required")
    assert accepts(constraint, text, facts)
    for wrong in (
        "Sunny.",
        "",
        text[:-1],
        text + "!",
        text.replace("weather", "whether"),
        text.replace('"Rome"', "3"),
        text.replace("city", "town"),
        text.replace('{"city": "Rome"}', "{}"),
    ):
        assert not accepts(constraint, wrong, facts), wrong


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_grammar_takes_the_reader_reads(family: str) -> None:
    assert read(FAMILIES[family], ONE[family]) == call(0, "weather", {"city": "Rome"})


@pytest.mark.parametrize("family", TWO)
def test_two_calls_are_taken_unless_they_may_not_be_parallel(family: str) -> None:
    facts, text = FAMILIES[family], TWO[family]
    assert accepts(asked(facts, "required"), text, facts)
    assert not accepts(asked(facts, "required", parallel=False), text, facts)
    assert [kind for kind, _ in read(facts, text)] == [
        "call 0",
        "arguments 0",
        "call 1",
        "arguments 1",
    ]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "choice",
    [
        {"type": "function", "function": {"name": "time"}},
        {"type": "function", "name": "time"},
        {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [{"function": {"name": "time"}}]},
        },
    ],
)
def test_a_named_function_is_the_only_one(family: str, choice: dict[str, Any]) -> None:
    facts, text = FAMILIES[family], ONE[family]
    constraint = asked(facts, choice)
    assert not accepts(constraint, text, facts)
    other = text.replace("weather", "time").replace('{"city": "Rome"}', '{"zone": "utc"}')
    assert accepts(constraint, other, facts)
    if choice["type"] == "function":
        assert not accepts(constraint, f"{other}\n{other}", facts)


def test_nothing_is_asked_where_the_model_may_choose() -> None:
    for choice in (None, "auto", "none"):
        assert tool_constraint(QWEN3, TOOLS, choice) is None
    assert tool_constraint(QWEN3, None, "auto") is None
    assert tool_constraint(QWEN3, [], "none") is None


@pytest.mark.parametrize("family", FAMILIES)
def test_strict_functions_are_called_as_they_say_or_not_at_all(family: str) -> None:
    facts, text = FAMILIES[family], ONE[family]
    constraint = asked(facts, "auto", [function("weather", strict=True)])
    assert accepts(constraint, text, facts)
    assert accepts(constraint, "It is sunny.\nWarm, too {really}.", facts)
    assert not accepts(constraint, text.replace("city", "town"), facts)


@pytest.mark.parametrize("family", ["qwen3", "phi4", "gemma3"])
def test_one_call_at_most_where_the_model_may_choose(family: str) -> None:
    facts = FAMILIES[family]
    constraint = asked(facts, "auto", parallel=False)
    assert accepts(constraint, ONE[family], facts)
    assert accepts(constraint, "No.", facts)
    assert not accepts(constraint, TWO[family], facts)


@pytest.mark.parametrize("facts", FAMILIES.values(), ids=FAMILIES)
def test_schemas_of_all_kinds_compile(facts: ModelFacts) -> None:
    tools = [
        {"type": "function", "function": {"name": "bare"}},
        function("empty", {}),
        function("nested", {"a": {"type": "object", "properties": {"b": {"type": "array"}}}}),
        function("odd name.with:marks/9", {}) | {"type": "function"},
    ]
    tools[-1]["function"]["name"] = "odd.with:marks/9"
    tools[-1]["function"]["parameters"] = {
        "$defs": {"X": {"type": "integer"}},
        "properties": {"x": {"$ref": "#/$defs/X"}, "y": {"oneOf": [{"const": 1}, {"const": 'é"'}]}},
        "if": {"required": ["x"]},  # beyond the library: left to the model
    }
    assert not accepts(asked(facts, "required", tools), "nothing of it", facts)


def test_references_are_followed_within_the_schema_of_a_function() -> None:
    tool = function("f", {})
    tool["function"]["parameters"] = {
        "$defs": {"X": {"type": "integer"}},
        "properties": {"x": {"$ref": "#/$defs/X"}},
        "required": ["x"],
    }
    constraint = asked(LLAMA3, "required", [tool])
    assert accepts(constraint, '{"name": "f", "parameters": {"x": 1}}', LLAMA3)
    assert not accepts(constraint, '{"name": "f", "parameters": {"x": "1"}}', LLAMA3)


def test_control_tokens_are_tokens_in_the_grammar() -> None:
    assert "<|tool_call|> " in asked(PHI4, "required").value
    assert '"<tool_call>"' in asked(QWEN3, "required").value


@pytest.mark.parametrize(
    ("tools", "choice", "words"),
    [
        (TOOLS, "sometimes", "sometimes"),
        (TOOLS, {"type": "function", "function": {"name": "nope"}}, "'nope'"),
        (TOOLS, {"type": "allowed_tools", "allowed_tools": {"mode": "maybe"}}, "allowed_tools"),
        (TOOLS, {"type": "allowed_tools", "allowed_tools": 3}, "allowed_tools"),
        (TOOLS, 3, "3"),
        (None, "required", "tools is not"),
        ({}, "auto", "list"),
        ([3], "auto", "tools[0]"),
        ([{"type": "retrieval", "function": {"name": "f"}}], "auto", "retrieval"),
        ([{"type": "function", "function": {"name": "a b"}}], "auto", "'a b'"),
        ([{"type": "function", "function": {"name": "f", "parameters": 3}}], "auto", "schema"),
        ([WEATHER, WEATHER], "auto", "two functions"),
        ([function(f"f{i}") for i in range(129)], "auto", "129"),
        ([function("f", {"a": {"description": "x" * 200_000}})], "auto", "bytes"),
    ],
)
def test_bad_requests_say_what_is_wrong(tools: Any, choice: Any, words: str) -> None:
    with pytest.raises(RequestError, match=re.escape(words)):
        tool_constraint(QWEN3, tools, choice)


def test_a_deep_schema_is_refused_before_anybody_walks_it() -> None:
    schema: dict[str, Any] = {}
    for _ in range(100_000):
        schema = {"items": schema}
    with pytest.raises(RequestError, match="64 deep"):
        tool_constraint(QWEN3, [function("f", {"a": schema})], "required")


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_that_is_no_call_has_the_form_asked_for(family: str) -> None:
    facts, text = FAMILIES[family], ONE[family]
    form = format_constraint(
        {
            "type": "json_schema",
            "json_schema": {"schema": {"properties": {"ok": {"type": "boolean"}}}},
        }
    )
    constraint = asked(facts, "auto", form=form)
    assert accepts(constraint, text, facts)
    assert accepts(constraint, '{"ok": true}', facts)
    assert not accepts(constraint, "Sunny.", facts)
    assert tool_constraint(facts, TOOLS, "none", form=form) == form
    assert tool_constraint(facts, None, "auto", form=form) == form
    assert not accepts(asked(facts, "required", form=form), '{"ok": true}', facts)


def test_a_form_that_could_be_a_call_is_refused() -> None:
    form = format_constraint(None, {"json": {"properties": {"name": {"type": "string"}}}})
    with pytest.raises(RequestError, match="property 'name'"):
        tool_constraint(LLAMA3, TOOLS, "auto", form=form)
    assert accepts(asked(QWEN3, "auto", form=form), '{"name": "Rome"}')
