"""Which tool calls an answer must or may have, as a grammar in the words of the model's family.

The grammar is what the family's own template writes for a call, to the space, so that the next
request of the conversation finds the answer's tokens in the prefix cache.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pocketlm.errors import RequestError
from pocketlm.serve.answers.functions import Function, read_functions
from pocketlm.serve.answers.rules import as_rule
from pocketlm.serve.answers.tools import ToolFormat, tool_format
from pocketlm.serve.answers.tools.format import lark_text
from pocketlm.serve.generation import Constraint, ModelFacts

Mode = Literal["none", "auto", "required"]

# Small models that must call something do not end by themselves.
_MOST_CALLS = 16

# A text that does not look like a call without a mark.
_TEXT = 'answer: "" | TEXT\nTEXT: /[^{\\[\\s]([^\\n]|\\n)*/\n'

# As Python's json.dumps and the templates' tojson write.
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def tool_constraint(
    facts: ModelFacts,
    tools: Sequence[Mapping[str, Any]] | None,
    tool_choice: str | Mapping[str, Any] | None,
    *,
    parallel: bool = True,
    form: Constraint | None = None,
) -> Constraint | None:
    """What ``tool_choice`` asks of an answer; None where it may be anything.

    Args:
        tools: in OpenAI's shape.
        tool_choice: "none", "auto" (as None), "required", or an object that names a function or,
            with the type "allowed_tools", some.
        parallel: False allows one call at most.
        form: what an answer that is no call must look like (``format_constraint``).

    Raises:
        RequestError: tools or choice are malformed, or name functions that are not there.
    """
    functions = read_functions(tools)
    mode, chosen = _choice(functions, tool_choice)
    if mode == "none" or not chosen:
        return form
    family = tool_format(facts)
    named = isinstance(tool_choice, Mapping) and tool_choice.get("type") != "allowed_tools"
    several = family.lists_calls and parallel and not named
    writer = _Grammar(family, frozenset(facts.special_texts), chosen, several)
    if mode == "required":
        return Constraint(kind="lark", value=writer.calls())
    if form is not None:
        _tell_apart(family, form)
        return Constraint(kind="lark", value=writer.calls_or(as_rule(form, "answer")))
    narrowed = len(chosen) < len(functions)
    if parallel and not narrowed and not any(function.strict for function in chosen):
        return None
    if family.lazy is not None:
        grammar = writer.calls(behind_first=True)
        return Constraint(kind="lark", value=grammar, after=family.lazy)
    return Constraint(kind="lark", value=writer.calls_or(_TEXT))


def _choice(
    functions: Sequence[Function], choice: str | Mapping[str, Any] | None
) -> tuple[Mode, list[Function]]:
    everything = list(functions)
    if choice is None or choice == "auto":
        return "auto", everything
    if choice == "none":
        return "none", []
    if not functions:
        raise RequestError("tool_choice is given, but tools is not")
    if choice in ("required", "any"):
        return "required", everything
    if not isinstance(choice, Mapping):
        raise RequestError(
            f"tool_choice is {choice!r}, expected none, auto, required or an object with a function"
        )
    if choice.get("type") != "allowed_tools":
        return "required", [_named(functions, choice)]
    allowed = choice.get("allowed_tools", choice)
    allowed = allowed if isinstance(allowed, Mapping) else {}
    mode, named = allowed.get("mode", "auto"), allowed.get("tools")
    if mode not in ("auto", "required") or not isinstance(named, list) or not named:
        raise RequestError(
            "tool_choice.allowed_tools should have tools and a mode, auto or required"
        )
    return mode, [_named(functions, one) for one in named]


def _named(functions: Sequence[Function], choice: object) -> Function:
    inner = choice.get("function", choice) if isinstance(choice, Mapping) else None
    name = inner.get("name") if isinstance(inner, Mapping) else None
    for function in functions:
        if function.name == name:
            return function
    raise RequestError(f"tool_choice names the function {name!r}, which is not in tools")


def _tell_apart(family: ToolFormat, form: Constraint) -> None:
    """Refuses a form whose answers could begin as a call does."""
    if family.before or family.open_call or form.kind != "json":
        return
    properties = form.value.get("properties")
    if not isinstance(properties, Mapping) or "name" not in properties:
        return
    raise RequestError(
        "the schema has a property 'name', as calls of this model have, and both may be answered",
        hint="Name the property otherwise, or choose the tool_choice none or required.",
    )


class _Grammar:
    """Writes the calls of some functions in a format, in llguidance's dialect of Lark."""

    def __init__(
        self, form: ToolFormat, special: frozenset[str], functions: list[Function], several: bool
    ) -> None:
        self._form = form
        self._special = special
        self._functions = functions
        self._several = several

    def calls(self, *, behind_first: bool = False) -> str:
        """One or more calls and nothing else; `behind_first` begins behind the first mark."""
        first = self._first(behind_first)
        return f"start: {first}\n{self._rules()}"

    def calls_or(self, answer: str) -> str:
        """Calls, or what the rules of `answer` take."""
        return f"start: {self._first(False)} | answer\n{answer}{self._rules()}"

    def _first(self, behind_first: bool) -> str:
        form = self._form
        between = lark_text(form.between, self._special)
        more = f"({between} call){{0,{_MOST_CALLS - 1}}}" if self._several else ""
        head = self._texts(form.before)
        body = "call"
        if behind_first and form.before:  # its mark is there already
            head = self._texts(form.before[1:])
        elif behind_first:
            # White space may have come in one token with the mark.
            begin = " ".join(f"{lark_text(text, self._special)}?" for text in form.open_call[1:])
            body = f"{begin} function {self._texts(form.close_call)}"
        return f"{head} {body} {more} {self._texts(form.after)}"

    def _rules(self) -> str:
        form = self._form
        rules = [
            f"call: {self._texts(form.open_call)} function {self._texts(form.close_call)}",
            f"function: {' | '.join(f'function_{i}' for i in range(len(self._functions)))}",
        ]
        for i, function in enumerate(self._functions):
            name = json.dumps(function.name)
            head, tail = form.call.format(name=name, arguments="\0").split("\0")
            # "{" stands alone because an answer in JSON begins with it too.
            begin = f'"{{" {json.dumps(head[1:])}'
            rules.append(f"function_{i}: {begin} arguments_{i} {json.dumps(tail)}")
            rules.append(f"arguments_{i}: %json {json.dumps(_arguments(function))}")
        return "\n".join(rules) + "\n"

    def _texts(self, texts: Sequence[str]) -> str:
        return " ".join(lark_text(text, self._special) for text in texts)


def _arguments(function: Function) -> dict[str, Any]:
    """The schema that a grammar is made of: an object, in the templates' layout.

    Arguments that the schema does not name are not written, unless it says that they may be. What
    llguidance cannot follow is an error for a strict function and is left to the model for others.
    """
    schema = {"type": "object", **function.parameters}
    if schema.get("properties"):
        schema.setdefault("additionalProperties", False)
    schema["x-guidance"] = {**_LAYOUT, "lenient": not function.strict, "coerce_one_of": True}
    return schema
