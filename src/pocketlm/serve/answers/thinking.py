"""The thinking of a model: told apart from its answer, and switched on and off.

Thinking models (Qwen3, the R1 distillations, SmolLM3) write ``<think>…</think>`` before the answer.
Some templates write the opening tag themselves, and some write an empty pair to stop the model from
thinking; the end of the prompt shows both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from pocketlm.errors import RequestError
from pocketlm.serve.answers.parts import Content, Reasoning, held_back
from pocketlm.serve.answers.rules import as_rule
from pocketlm.serve.generation import Constraint, ModelFacts

OPEN, CLOSE = "<think>", "</think>"

# What templates call the switch: Qwen3 and SmolLM3 the first; DeepSeek, Granite and Phi the second.
_SWITCHES = ("enable_thinking", "thinking")
_NO_THINKING = ("none", "off", "false")


class ThinkingSplitter:
    """Splits an answer that comes in pieces at its thinking tags. Not thread-safe.

    Args:
        opened: the prompt ends within the thinking.

    Line breaks beside the tags belong to the format and are left out. A tag counts only at the
    beginning of the answer; thinking that is never closed is thinking to the end.
    """

    def __init__(self, *, opened: bool) -> None:
        self._state: Literal["start", "opened", "thinking", "closed", "content"]
        self._state = "opened" if opened else "start"
        self._held = ""

    def push(self, text: str) -> list[Content | Reasoning]:
        """Takes more of the answer; gives what is certain."""
        if self._state == "content":
            return [Content(text)] if text else []
        self._held += text
        parts: list[Content | Reasoning] = []
        if self._state == "start":
            self._begin()
        if self._state == "opened":
            self._held = self._held.lstrip("\n")
            if self._held:
                self._state = "thinking"
        if self._state == "thinking":
            self._think(parts)
        if self._state == "closed":
            self._held = self._held.lstrip("\n")
            if self._held:
                self._state = "content"
        if self._state == "content" and self._held:
            parts.append(Content(self._held))
            self._held = ""
        return parts

    def finish(self) -> list[Content | Reasoning]:
        """The answer has ended: what was held back."""
        held, self._held = self._held, ""
        if not held:
            return []
        return [Reasoning(held) if self._state == "thinking" else Content(held)]

    def _begin(self) -> None:
        """Sees whether the answer begins with the opening tag."""
        seen = self._held.lstrip()
        if seen.startswith(OPEN):
            self._state = "opened"
            self._held = seen[len(OPEN) :]
        elif not OPEN.startswith(seen):
            self._state = "content"

    def _think(self, parts: list[Content | Reasoning]) -> None:
        """Gives out thinking up to what may be its end."""
        thought, closing, rest = self._held.partition(CLOSE)
        if closing:
            self._state, self._held = "closed", rest
        else:
            certain = len(thought) - held_back(thought, CLOSE)
            self._held = thought[len(thought[:certain].rstrip("\n")) :]
        thought = thought[: len(thought) - len(self._held)] if not closing else thought
        thought = thought.rstrip("\n")
        if thought:
            parts.append(Reasoning(thought))


def thinking_open(prompt_tail: str) -> bool:
    """Whether a prompt ends within the model's thinking."""
    return prompt_tail.rfind(OPEN) > prompt_tail.rfind(CLOSE)


def can_think(facts: ModelFacts) -> bool:
    """Whether the model thinks at all, switched or always."""
    return "thinking" in facts.capabilities or _always_thinks(facts.template or "")


def thinking_variables(
    facts: ModelFacts, think: bool | str | None, *, insist: bool = True
) -> dict[str, Any]:
    """The template's variables for a wish to think.

    Args:
        think: True, False, a level such as "low" ("none" is False), or None for the model's habit.
        insist: whether a wish that the model cannot fulfil is an error.

    Raises:
        RequestError: it should think but cannot.
    """
    if think is None:
        return {}
    if not isinstance(think, bool | str):
        raise RequestError(f"think is {think!r}, expected true, false or a level such as 'low'")
    level = think if isinstance(think, str) else None
    wanted = think if isinstance(think, bool) else think.lower() not in _NO_THINKING
    if not can_think(facts):
        if wanted and insist:
            raise RequestError(f"{json.dumps(facts.name)} does not support thinking")
        return {}
    names = _variables(facts.template or "")
    variables: dict[str, Any] = {name: wanted for name in _SWITCHES if name in names}
    if level is not None and wanted and "reasoning_effort" in names:
        variables["reasoning_effort"] = level
    return variables


def after_thinking(
    constraint: Constraint | None, facts: ModelFacts, variables: Mapping[str, Any]
) -> Constraint | None:
    """``constraint`` for the answer of a model that thinks first: its thinking stays free.

    ``variables`` are those that the template will get. The answer cannot end before its thinking
    has: with ``Constraint.after`` it could, and would be without the form that was asked for. The
    line breaks that such models write after their thinking are allowed.
    """
    if constraint is None or constraint.after is not None or not _will_think(facts, variables):
        return constraint
    if CLOSE in facts.special_texts:
        opening = f"{OPEN}? " if OPEN in facts.special_texts else ""
        thought = f"thought: {opening}TEXT {CLOSE}\nTEXT: /(.|\\n)*/\n"
    else:
        thought = f"thought[suffix={json.dumps(CLOSE)}]: /(.|\\n)*/\n"
    head = "start: thought SPACE answer\nSPACE: /\\n{0,2}/\n"
    return Constraint(kind="lark", value=head + thought + as_rule(constraint, "answer"))


def _will_think(facts: ModelFacts, variables: Mapping[str, Any]) -> bool:
    template = facts.template or ""
    if not can_think(facts):
        return False
    for name in _SWITCHES:
        if name in variables:
            return bool(variables[name])
    if "enable_thinking" in _variables(template):
        # Qwen3 asks "is false", so it thinks when nothing is said; others name their default.
        return not re.search(r"enable_thinking\s*\|\s*default\(\s*(value=)?\s*[Ff]alse", template)
    return _always_thinks(template)


def _always_thinks(template: str) -> bool:
    """Whether the template itself opens the thinking of every answer, and does so last."""
    return template.rfind(OPEN) > template.rfind(CLOSE)


def _variables(template: str) -> frozenset[str]:
    """The words of a template's code; text in quotes is not code."""
    code = " ".join(re.findall(r"\{[%{](.*?)[%}]\}", template, re.DOTALL))
    unquoted = re.sub(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", " ", code)
    return frozenset(re.findall(r"(?<![.\w])[A-Za-z_]\w*", unquoted))
