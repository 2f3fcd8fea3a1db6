"""Conversations with tools reach every template in a shape that it knows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.serve.answers.families import (
    GEMMA3,
    LLAMA3,
    PHI4,
    QWEN3,
    SMOLLM2,
    TIME,
    WEATHER,
    accepts,
)
from tests.serve.answers.test_reader import call, read

from pocketlm.errors import RequestError
from pocketlm.serve.answers import tool_constraint, tool_conversation
from pocketlm.text.template import ChatTemplate

CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
}
USER = {"role": "user", "content": "Weather?"}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "Sunny"}


def test_arguments_are_objects_for_a_template_that_knows_calls() -> None:
    messages, tools = tool_conversation(QWEN3, [USER, CALLED, RESULT], [WEATHER])
    assert tools == [WEATHER]
    assert messages[1]["tool_calls"][0]["function"]["arguments"] == {"city": "Rome"}
    assert (messages[0], messages[2]) == (USER, RESULT)
    assert CALL["function"]["arguments"] == '{"city": "Rome"}', "the request was changed"


@pytest.mark.parametrize("arguments", ["not json", "[1]", {"a": 1}])
def test_other_arguments_stay_as_they_are(arguments: Any) -> None:
    one = {**CALL, "function": {"name": "weather", "arguments": arguments}}
    messages, _ = tool_conversation(QWEN3, [{**CALLED, "tool_calls": [one]}], None)
    assert messages[0]["tool_calls"] == [one]


@pytest.mark.parametrize("facts", [SMOLLM2, GEMMA3])
def test_a_template_without_tools_is_told_in_words(facts: Any) -> None:
    two = [CALL, {**CALL, "function": {"name": "time", "arguments": "{}"}}]
    asked = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        USER,
        {**CALLED, "content": "Let me see.", "tool_calls": two},
        RESULT,
        {**RESULT, "content": [{"type": "text", "text": "Noon"}]},
    ]
    messages, tools = tool_conversation(facts, asked, [WEATHER, TIME])
    assert tools is None
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[0]["content"].startswith("Be brief.\n\n")
    assert json.dumps([WEATHER["function"], TIME["function"]]) in messages[0]["content"]
    assert "Sunny" in messages[3]["content"]
    assert "Noon" in messages[3]["content"]
    said = read(facts, messages[2]["content"].removeprefix("Let me see.\n"))
    assert said == call(0, "weather", {"city": "Rome"}) + call(1, "time", {})
    assert all(set(message) == {"role", "content"} for message in messages)


def test_the_words_take_the_place_of_no_system_message() -> None:
    messages, _ = tool_conversation(SMOLLM2, [USER], [WEATHER])
    (message,) = messages
    assert message["role"] == "user"
    assert message["content"].endswith("\n\nWeather?")
    messages, _ = tool_conversation(SMOLLM2, [{"role": "assistant", "content": "Yes?"}], [WEATHER])
    assert [message["role"] for message in messages] == ["system", "assistant"]


def test_without_tools_nobody_is_told_anything() -> None:
    assert tool_conversation(SMOLLM2, [USER], None) == ([USER], None)
    assert tool_conversation(SMOLLM2, [USER], []) == ([USER], None)


def test_phi_reads_its_functions_beside_the_system_message() -> None:
    system = {"role": "system", "content": "Be brief."}
    messages, tools = tool_conversation(PHI4, [system, USER], [WEATHER])
    assert tools is None
    assert json.loads(messages[0]["tools"]) == [WEATHER["function"]]
    assert messages[0]["content"] == "Be brief."
    messages, _ = tool_conversation(PHI4, [USER], [WEATHER])
    assert [message["role"] for message in messages] == ["system", "user"]


def test_bad_tools_are_refused() -> None:
    with pytest.raises(RequestError, match="list"):
        tool_conversation(QWEN3, [USER], "weather")  # type: ignore[arg-type]


def test_a_template_of_one_call_in_a_turn_gets_them_one_by_one() -> None:
    two = [CALL, {**CALL, "id": "call_2"}, {**CALL, "id": "call_3"}]
    others = [{**RESULT, "tool_call_id": name} for name in ("call_2", "call_1", "call_9")]
    asked = [USER, {**CALLED, "content": "Wait.", "tool_calls": two}, *others, USER]
    messages, _ = tool_conversation(LLAMA3, asked, [WEATHER])
    seen = [
        (m["role"], m.get("tool_call_id") or [c["id"] for c in m.get("tool_calls", ())])
        for m in messages
    ]
    assert seen == [
        ("user", []),
        ("assistant", ["call_1"]),
        ("tool", "call_1"),
        ("assistant", ["call_2"]),
        ("tool", "call_2"),
        ("assistant", ["call_3"]),
        ("tool", "call_9"),
        ("user", []),
    ]
    assert [m["content"] for m in messages if m["role"] == "assistant"] == ["Wait.", None, None]
    assert len(tool_conversation(QWEN3, asked, [WEATHER])[0]) == len(asked)


def test_a_template_writes_calls_as_the_grammar_wants_them() -> None:
    """In the manner of Qwen's: so the next request finds the answer in the prefix cache."""
    template = ChatTemplate(
        "{% for m in messages %}{% for call in m.tool_calls %}{% if not loop.first %}{{ '\\n' }}"
        '{% endif %}{{ \'<tool_call>\\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
        "{{ call.function.arguments | tojson }}{{ '}\\n</tool_call>' }}{% endfor %}{% endfor %}"
    )
    arguments = {"city": 'Rö"m', "days": [1, 2.5, {"a": None}]}
    function = {"name": "weather", "arguments": json.dumps(arguments)}
    called = {**CALLED, "tool_calls": [{**CALL, "function": function}, CALL]}
    messages, tools = tool_conversation(QWEN3, [called], [_ANY])
    text = template.render(messages, tools=tools)
    constraint = tool_constraint(QWEN3, [_ANY], "required")
    assert constraint is not None
    assert accepts(constraint, text, QWEN3)


_ANY = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
