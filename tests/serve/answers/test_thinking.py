"""Thinking is switched by the words of each template."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.serve.answers.families import QWEN3, R1, SMOLLM2, accepts
from tests.serve.scripted import FACTS

from pocketlm.errors import RequestError
from pocketlm.serve.answers import after_thinking, can_think, thinking_variables
from pocketlm.serve.generation import Constraint

GRANITE = replace(FACTS, template="{% if thinking %}Think.{% endif %}{{ 'enable_thinking' }}")
EFFORT = replace(
    FACTS, template="{%- set r = reasoning_effort | default('low') %}{% if enable_thinking %}"
)
SMOLLM3 = replace(FACTS, template="{% if enable_thinking | default(false) %}<think>{% endif %}")


@pytest.mark.parametrize(
    ("facts", "think", "variables"),
    [
        (QWEN3, None, {}),
        (QWEN3, True, {"enable_thinking": True}),
        (QWEN3, False, {"enable_thinking": False}),
        (QWEN3, "low", {"enable_thinking": True}),
        (QWEN3, "none", {"enable_thinking": False}),
        (GRANITE, True, {"thinking": True}),
        (EFFORT, "high", {"enable_thinking": True, "reasoning_effort": "high"}),
        (R1, True, {}),
        (SMOLLM2, False, {}),
        (SMOLLM2, None, {}),
    ],
)
def test_the_variables_are_those_of_the_template(
    facts: Any, think: Any, variables: dict[str, Any]
) -> None:
    assert thinking_variables(facts, think) == variables


def test_a_model_that_cannot_think_says_so_in_the_words_that_clients_know() -> None:
    facts = replace(SMOLLM2, name="smollm2:135m")
    with pytest.raises(RequestError, match=r'^"smollm2:135m" does not support thinking$'):
        thinking_variables(facts, True)
    assert thinking_variables(facts, "high", insist=False) == {}
    assert not can_think(facts)
    assert can_think(R1)


def test_other_wishes_are_refused() -> None:
    with pytest.raises(RequestError, match="expected true"):
        thinking_variables(QWEN3, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("facts", "variables", "thinks"),
    [
        (QWEN3, {}, True),
        (QWEN3, {"enable_thinking": False}, False),
        (SMOLLM3, {}, False),
        (SMOLLM3, {"enable_thinking": True}, True),
        (GRANITE, {}, False),
        (GRANITE, {"thinking": True}, True),
        (R1, {}, True),
    ],
)
def test_a_form_waits_for_the_end_of_thinking_where_there_is_any(
    facts: Any, variables: dict[str, Any], thinks: bool
) -> None:
    constraint = after_thinking(Constraint(kind="regex", value="a"), facts, variables)
    assert constraint is not None
    assert accepts(constraint, "<think>Hm.</think>a") is thinks
    assert accepts(constraint, "a") is not thinks
