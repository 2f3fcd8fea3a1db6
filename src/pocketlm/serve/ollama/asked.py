"""From a request of ``generate`` or ``chat`` to a ``Generation``: what is asked, in whose words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from pocketlm.errors import RequestError
from pocketlm.serve.answers import (
    after_thinking,
    can_think,
    ollama_format,
    reads_special,
    thinking_variables,
    tool_constraint,
    tool_conversation,
)
from pocketlm.serve.config import ServeConfig
from pocketlm.serve.generation import (
    ChatPrompt,
    FillPrompt,
    Generation,
    ModelFacts,
    Prompt,
    TextPrompt,
)
from pocketlm.serve.ollama.bodies import Answered, ChatBody, GenerateBody, Message
from pocketlm.serve.ollama.options import Options, read_options
from pocketlm.store.setup import is_jinja

IGNORED = "X-PocketLM-Ignored"


@dataclass(frozen=True)
class Asked:
    """A request for a model; ``tools`` and ``thinking`` say what its answer is read for."""

    generation: Generation
    tools: bool
    thinking: bool


def check(body: Answered, config: ServeConfig) -> tuple[Options, dict[str, str]]:
    """The options of a request, and the header that lists what has no effect.

    Raises RequestError for wrong types, and with ``strict`` for what is not known.
    """
    options = read_options(body.options)
    unknown = [*unknown_fields(body), *(f"options.{name}" for name in options.unknown)]
    if unknown and config.strict:
        raise RequestError(f"unknown parameters: {', '.join(unknown)}")
    ignored = [*unknown, *(f"options.{name}" for name in options.ignored)]
    if body.shift:
        ignored.append("shift")
    return options, ignored_header(ignored)


def ignored_header(names: Sequence[str]) -> dict[str, str]:
    """The header, in characters that a header may have; nothing where there are no names."""
    text = ", ".join(name[:64] for name in names[:32])
    plain = "".join(char if " " <= char <= "~" else "?" for char in text)
    return {IGNORED: plain} if names else {}


def unknown_fields(body: BaseModel) -> list[str]:
    return list(body.model_extra or {})


def is_load(body: GenerateBody | ChatBody) -> bool:
    """Whether nothing is asked: the model is only to be loaded, or unloaded."""
    if isinstance(body, ChatBody):
        return not body.messages
    return not body.prompt and not body.suffix and not body.images


def asked_of(body: GenerateBody | ChatBody, options: Options, facts: ModelFacts) -> Asked:
    """The request in the model's terms.

    Raises RequestError for what the model cannot do.
    """
    plain = isinstance(body, GenerateBody) and bool(
        body.raw or body.suffix or facts.template is None
    )
    variables = {} if plain else _variables(body, facts)
    tools: list[dict[str, Any]] | None = None
    prompt: Prompt
    if isinstance(body, ChatBody):
        tools = body.tools or None
        prompt = _chat(body, facts, tools, variables)
    else:
        prompt = _generate(body, facts, variables)
    form = ollama_format(body.format)
    constraint = tool_constraint(facts, tools, None, form=form)
    if not plain:
        constraint = after_thinking(constraint, facts, variables)
    sampling = dict(options.sampling)
    if body.logprobs:
        sampling["logprobs"] = body.top_logprobs or 0
    context = None if options.context is None else min(options.context, facts.context)
    generation = Generation(
        prompt=prompt,
        options=sampling,
        constraint=constraint,
        context=context,
        overflow="truncate" if body.truncate else "error",
        keep_special=not plain and reads_special(facts, bool(tools)),
    )
    return Asked(generation, bool(tools), not plain and can_think(facts))


def _variables(body: Answered, facts: ModelFacts) -> dict[str, Any]:
    """Ollama lets a model think that can, unless it is told not to."""
    think = body.think
    if think is None and can_think(facts):
        return thinking_variables(facts, True, insist=False)
    return thinking_variables(facts, think)


def _chat(
    body: ChatBody,
    facts: ModelFacts,
    tools: list[dict[str, Any]] | None,
    variables: Mapping[str, Any],
) -> ChatPrompt:
    if facts.template is None:
        raise RequestError(f"{json.dumps(facts.name)} does not support chat")
    messages = [_message(message, facts) for message in body.messages or ()]
    ready, offered = tool_conversation(facts, messages, tools)
    return ChatPrompt(messages=ready, tools=offered, variables=variables)


def _message(message: Message, facts: ModelFacts) -> dict[str, Any]:
    """A turn in OpenAI's shape, as chat templates take it."""
    if message.images:
        raise RequestError(f"{json.dumps(facts.name)} does not support images")
    made: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if message.thinking:
        made["reasoning_content"] = message.thinking
    if message.tool_calls:
        made["tool_calls"] = [
            {
                "id": call.id or f"call_{i}",
                "type": "function",
                "function": {
                    "name": call.function.name,
                    "arguments": dict(call.function.arguments),
                },
            }
            for i, call in enumerate(message.tool_calls)
        ]
    if message.tool_name:
        made["name"] = message.tool_name
    if message.tool_call_id:
        made["tool_call_id"] = message.tool_call_id
    return made


def _generate(body: GenerateBody, facts: ModelFacts, variables: Mapping[str, Any]) -> Prompt:
    _refuse(body, facts)
    text = body.prompt or ""
    if body.raw:
        return TextPrompt(text=text)
    if body.suffix:
        if "insert" not in facts.capabilities:
            raise RequestError(f"{json.dumps(facts.name)} does not support insert")
        return FillPrompt(prefix=text, suffix=body.suffix)
    if facts.template is None and not body.template:
        return TextPrompt(text=text)
    messages = [{"role": "user", "content": text}]
    if body.system:
        messages.insert(0, {"role": "system", "content": body.system})
    return ChatPrompt(messages=messages, variables=variables, template=body.template or None)


def _refuse(body: GenerateBody, facts: ModelFacts) -> None:
    if body.images:
        raise RequestError(f"{json.dumps(facts.name)} does not support images")
    if body.raw and (body.template or body.system or body.context):
        raise RequestError("raw mode does not support template, system, or context")
    if body.context:
        raise RequestError(
            "context is not taken: its tokens carry no turns",
            hint="Send the conversation to /api/chat; what was computed once is found again.",
        )
    if body.template and not is_jinja(body.template) and "{{" in body.template:
        raise RequestError(
            "the template is written for Go, chat templates here are jinja2",
            hint="Leave it out to use the model's own.",
        )
