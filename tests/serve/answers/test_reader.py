"""Answers of every family come apart in the same way, however they are cut."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serve.answers.families import FAMILIES, GEMMA3, LLAMA3, PHI4, QWEN3, SMOLLM2
from tests.serve.scripted import FACTS

from pocketlm.serve.answers import (
    AnswerReader,
    Content,
    Part,
    Reasoning,
    ToolCallArguments,
    ToolCallStart,
    reads_special,
)
from pocketlm.serve.generation import ModelFacts, Started


def read(
    facts: ModelFacts,
    *pieces: str,
    tools: bool = True,
    reasoning: bool = True,
    tail: str = "",
) -> list[tuple[str, ...]]:
    """The parts of an answer: kind and text, neighbours of one kind joined; ids left out."""
    started = Started(prompt_tokens=1, prompt_tail=tail)
    reader = AnswerReader(facts, started, tools=tools, reasoning=reasoning)
    parts = [part for piece in pieces for part in reader.push(piece)] + reader.finish()
    return joined(parts)


def joined(parts: list[Part]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for part in parts:
        match part:
            case Content(text):
                one = ("content", text)
            case Reasoning(text):
                one = ("reasoning", text)
            case ToolCallStart(index, _, name):
                one = (f"call {index}", name)
            case ToolCallArguments(index, text):
                one = (f"arguments {index}", text)
        assert part.text if not isinstance(part, ToolCallStart) else part.id, "an empty part"
        if found and found[-1][0] == one[0]:
            found[-1] = (one[0], found[-1][1] + one[1])
        else:
            found.append(one)
    return found


def call(index: int, name: str, arguments: object) -> list[tuple[str, ...]]:
    return [(f"call {index}", name), (f"arguments {index}", json.dumps(arguments))]


WEATHER = call(0, "weather", {"city": "Rome"})
ARGUMENTS = '{"city": "Rome"}'


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (QWEN3, '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'),
        (QWEN3, '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>\n'),
        (QWEN3, '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}'),
        (QWEN3, '{"name": "weather", "arguments": {"city": "Rome"}}'),
        (QWEN3, '```json\n{"name": "weather", "arguments": {"city": "Rome"}}\n```'),
        (SMOLLM2, '<tool_call>[{"name": "weather", "arguments": {"city": "Rome"}}]</tool_call>'),
        (LLAMA3, '{"name": "weather", "parameters": {"city": "Rome"}}'),
        (LLAMA3, '<|python_tag|>{"name": "weather", "parameters": {"city": "Rome"}}'),
        (LLAMA3, '{"type": "function", "name": "weather", "parameters": {"city": "Rome"}}'),
        (LLAMA3, '{"type": "function", "function": "weather", "parameters": {"city": "Rome"}}'),
        (PHI4, '<|tool_call|>[{"name": "weather", "arguments": {"city": "Rome"}}]<|/tool_call|>'),
        (PHI4, 'functools[{"name": "weather", "arguments": {"city": "Rome"}}]'),
        (GEMMA3, '{"name": "weather", "parameters": {"city": "Rome"}}'),
        (GEMMA3, '```json\n[{"name": "weather", "parameters": {"city": "Rome"}}]\n```'),
        (GEMMA3, '```tool_code\nweather(city="Rome")\n```'),
        (GEMMA3, "```tool_code\nprint(weather(city='Rome'))\n```"),
        (GEMMA3, '[weather(city="Rome")]'),
    ],
)
def test_a_call_is_read_in_every_way_that_families_write_it(facts: ModelFacts, text: str) -> None:
    assert read(facts, text) == WEATHER
    assert read(facts, *text) == WEATHER


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (
            QWEN3,
            '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>\n'
            '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>',
        ),
        (
            LLAMA3,
            '{"name": "weather", "parameters": {"city": "Rome"}}; '
            '{"name": "time", "parameters": {}}',
        ),
        (
            PHI4,
            '<|tool_call|>[{"name": "weather", "arguments": {"city": "Rome"}}, '
            '{"name": "time", "arguments": {}}]<|/tool_call|>',
        ),
        (GEMMA3, '[weather(city="Rome"), time()]'),
    ],
)
def test_several_calls_are_counted(facts: ModelFacts, text: str) -> None:
    assert read(facts, text) == WEATHER + call(1, "time", {})


def test_each_call_has_an_id_of_its_own() -> None:
    text = '[{"name": "f", "arguments": {}}, {"name": "f", "arguments": {}}]'
    reader = AnswerReader(FACTS, Started(prompt_tokens=1), tools=True, reasoning=False)
    parts = reader.push(text) + reader.finish()
    ids = [part.id for part in parts if isinstance(part, ToolCallStart)]
    assert len(set(ids)) == 2
    assert all(one.startswith("call_") and len(one) == 13 for one in ids)


def test_words_before_and_behind_a_call_are_content() -> None:
    text = 'Let me see.\n<tool_call>{"name": "f", "arguments": {}}</tool_call>\nDone.\n'
    expected = [("content", "Let me see."), *call(0, "f", {}), ("content", "Done.\n")]
    assert read(QWEN3, text) == expected


@pytest.mark.parametrize("facts", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>{not json}</tool_call>",
        '<tool_call>{"name": "f", "arguments": {"a": ',
        '  <tool_call>{"name": 3, "arguments": {}}</tool_call> and more',
        '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"a": 1e999}}</tool_call>',
        '{"name": "Rome", "population": 3}',
        '{"name": "f", "parameters": [1]}',
        '{"city": "Rome"}',
        "[1, 2, 3]",
        "[weather(",
        "functools[oh no]",
        '```json\n{"city": "Rome"}\n```',
        "```tool_code\nimport os\n```",
        "<|python_tag|>print(1)",
        "<tool_cal",
        " \n ",
        '<tool_call>"' + "</tool_call>" * 20_000,
        '{"a":' * 5000,
        "[" * 50_000,
        '[[{"name": ',
    ],
)
def test_what_is_no_call_is_content_to_the_last_character(facts: ModelFacts, text: str) -> None:
    assert read(facts, text) == [("content", text)]


def test_the_whole_calls_of_a_list_that_breaks_off_are_calls() -> None:
    text = '[{"name": "weather", "parameters": {"city": "Rome"}}, {"name": "ti'
    assert read(GEMMA3, text) == [*WEATHER, ("content", ', {"name": "ti')]


def test_a_closing_tag_within_an_argument_is_an_argument() -> None:
    arguments = {"text": 'say "</tool_call>" \\'}
    text = f'<tool_call>{{"name": "f", "arguments": {json.dumps(arguments)}}}</tool_call>'
    assert read(QWEN3, *text) == call(0, "f", arguments)


def test_quoted_arguments_are_opened() -> None:
    text = '{"name": "f", "arguments": "{\\"a\\": 1}"}'
    assert read(QWEN3, text) == call(0, "f", {"a": 1})


def test_half_a_character_does_not_leave() -> None:
    text = '{"name": "f", "arguments": {"a": "\\ud83d", "b": "\\ud83d\\ude00"}}'
    parts = dict(read(QWEN3, text))
    assert json.loads(parts["arguments 0"]) == {"a": "\ufffd", "b": "😀"}


def test_json_that_cannot_be_a_call_is_not_held_back() -> None:
    reader = AnswerReader(QWEN3, Started(prompt_tokens=1), tools=True, reasoning=True)
    assert joined(reader.push('{"answer": ')) == [("content", '{"answer":')]
    assert joined(reader.push("4")) == [("content", " 4")]


def test_without_tools_calls_are_content() -> None:
    text = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    assert read(QWEN3, text, tools=False) == [("content", text)]


# Thinking


@pytest.mark.parametrize("tools", [True, False])
def test_thinking_is_told_apart(tools: bool) -> None:
    text = "<think>\nHm.\n\nWell.\n</think>\n\nYes."
    expected = [("reasoning", "Hm.\n\nWell."), ("content", "Yes.")]
    assert read(QWEN3, text, tools=tools) == expected
    assert read(QWEN3, *text, tools=tools) == expected


def test_thinking_that_the_template_opened_needs_no_tag() -> None:
    assert read(QWEN3, "Hm.</think>Yes.", tail="<think>\n") == [
        ("reasoning", "Hm."),
        ("content", "Yes."),
    ]


def test_thinking_that_the_template_closed_is_over() -> None:
    tail = "<think>\n\n</think>\n\n"
    assert read(QWEN3, "Yes. </think>", tail=tail) == [("content", "Yes. </think>")]


def test_thinking_that_never_ends_is_all_thinking() -> None:
    assert read(QWEN3, "<think>\nHm. </thi") == [("reasoning", "Hm. </thi")]


def test_empty_thinking_is_none() -> None:
    assert read(QWEN3, "<think>\n\n</think>\n\nYes.") == [("content", "Yes.")]


def test_a_tag_in_the_middle_is_text() -> None:
    text = "The tag <think> begins it, </think> ends it."
    assert read(QWEN3, text) == [("content", text)]


def test_thinking_is_content_where_it_is_not_asked_for() -> None:
    text = "<think>Hm.</think>Yes."
    assert read(QWEN3, text, reasoning=False) == [("content", text)]


def test_a_call_in_the_thinking_is_thinking() -> None:
    one = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    assert read(QWEN3, f"<think>{one}</think>\n{one}") == [("reasoning", one), *call(0, "f", {})]


def test_nothing_is_held_back_that_cannot_become_a_tag() -> None:
    reader = AnswerReader(QWEN3, Started(prompt_tokens=1), tools=True, reasoning=True)
    assert joined(reader.push("<think>a <")) == [("reasoning", "a ")]
    assert joined(reader.push("b</th")) == [("reasoning", "<b")]
    assert joined(reader.push("ink>x<")) == [("content", "x")]
    assert joined(reader.push("y<tool")) == [("content", "<y")]
    assert joined(reader.push("s> z")) == [("content", "<tools> z")]


# Any text, any pieces

_WORDS = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<|python_tag|>",
    "<|tool_call|>",
    "<|/tool_call|>",
    "functools[",
    "```tool_code\n",
    "```json\n",
    "```",
    '{"name": "f", "arguments": {"a": [1, "}"]}}',
    '{"name": "g", "parameters": {}}',
    "f(a=1)",
    "[",
    "]",
    "{",
    '"',
    "\\",
    "\n",
    " ",
    "; ",
    "word",
    "é",
]
_TEXTS = st.lists(st.sampled_from(_WORDS) | st.text(max_size=3), max_size=12).map("".join)


@settings(deadline=None, max_examples=300)
@given(data=st.data(), text=_TEXTS, tools=st.booleans(), thinks=st.booleans())
def test_any_pieces_give_the_same_parts(
    data: st.DataObject, text: str, tools: bool, thinks: bool
) -> None:
    facts = data.draw(st.sampled_from(list(FAMILIES.values())))
    tail = data.draw(st.sampled_from(["", "<think>\n", "<think>\n\n</think>\n\n"]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = read(facts, text, tools=tools, reasoning=thinks, tail=tail)
    assert read(facts, *pieces, tools=tools, reasoning=thinks, tail=tail) == whole


@settings(deadline=None, max_examples=300)
@given(data=st.data(), text=_TEXTS)
def test_no_letter_is_lost(data: st.DataObject, text: str) -> None:
    """Where no call is found, the parts are the text but for tags and white space beside them."""
    facts = data.draw(st.sampled_from(list(FAMILIES.values())))
    parts = read(facts, text)
    if any(kind.startswith("call") for kind, _ in parts):
        return
    if text.lstrip().startswith("<think>"):
        text = text.lstrip().removeprefix("<think>").replace("</think>", "", 1)
    assert "".join("".join(part for _, part in parts).split()) == "".join(text.split())


# Control tokens


def test_control_tokens_are_asked_for_where_calls_are_written_with_them() -> None:
    assert reads_special(PHI4, tools=True)
    assert not reads_special(PHI4, tools=False)
    assert not reads_special(QWEN3, tools=True)
    assert reads_special(replace(QWEN3, special_texts={"</think>": 1}), tools=False)
