"""The body of ``POST /v1/chat/completions``, and what it asks of a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from pydantic import Field, model_validator

from pocketlm.errors import RequestError
from pocketlm.serve.answers import (
    after_thinking,
    can_think,
    format_constraint,
    reads_special,
    thinking_variables,
    tool_constraint,
    tool_conversation,
)
from pocketlm.serve.generation import ChatPrompt, Constraint, Generation, ModelFacts
from pocketlm.serve.openai.asking import for_choice, sampling_options
from pocketlm.serve.openai.bodies import Object, SamplingBody
from pocketlm.serve.openai.messages import plain_messages


class ChatBody(SamplingBody):
    """A conversation to continue."""

    messages: list[Object]
    max_tokens: int | None = Field(default=None, ge=1, le=2**31 - 1)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=2**31 - 1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=100)
    tools: list[Object] | None = None
    tool_choice: str | Object | None = None
    parallel_tool_calls: bool | None = True
    reasoning_effort: str | None = Field(default=None, max_length=32)
    include_reasoning: bool = True
    chat_template_kwargs: Object | None = None
    continue_final_message: bool = False

    @model_validator(mode="after")
    def _agree_on_length(self) -> Self:
        given = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(given) > 1:
            raise ValueError("max_tokens and max_completion_tokens differ")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    @property
    def best(self) -> int | None:
        """How many best tokens are wanted beside each; None for no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None


@dataclass(frozen=True)
class AskedChat:
    """What a body asks of a model.

    Attributes:
        generations: one for each choice.
        tools, reasoning: whether calls and thinking are looked for in the answers.
        without_effect: fields that this model has no use for.
    """

    generations: tuple[Generation, ...]
    tools: bool
    reasoning: bool
    without_effect: tuple[str, ...]


def ask_chat(facts: ModelFacts, body: ChatBody, most_messages: int) -> AskedChat:
    """Raises RequestError for what makes no sense, or that this model cannot do."""
    if facts.template is None:
        raise RequestError(
            f"{facts.name} has no chat template, so it cannot chat", hint="Use /v1/completions."
        )
    messages = plain_messages(body.messages, most_messages)
    if body.continue_final_message and messages[-1]["role"] != "assistant":
        raise RequestError("continue_final_message needs a last message of the assistant")
    tools = bool(body.tools) and body.tool_choice != "none"
    messages, offered = tool_conversation(facts, messages, body.tools if tools else None)
    variables = {
        **thinking_variables(facts, body.reasoning_effort, insist=False),
        **(body.chat_template_kwargs or {}),
    }
    thinks = can_think(facts)
    prompt = ChatPrompt(
        messages=messages,
        tools=offered,
        variables=variables,
        continue_last=body.continue_final_message,
    )
    generation = Generation(
        prompt=prompt,
        constraint=_constraint(facts, body, variables),
        context=body.num_ctx,
        overflow="truncate" if body.truncate else "error",
        keep_special=not body.skip_special_tokens or reads_special(facts, tools),
        prompt_logprobs=body.prompt_logprobs,
    )
    limit = body.max_completion_tokens or body.max_tokens
    options = sampling_options(body, facts, limit, body.best)
    choices = [replace(generation, options=for_choice(options, i)) for i in range(body.n or 1)]
    idle = ("reasoning_effort",) if body.reasoning_effort and not thinks else ()
    return AskedChat(tuple(choices), tools, thinks, idle)


def _constraint(facts: ModelFacts, body: ChatBody, variables: dict[str, Any]) -> Constraint | None:
    form = asked_form(body)
    constraint = tool_constraint(
        facts,
        body.tools,
        body.tool_choice,
        parallel=body.parallel_tool_calls is not False,
        form=form,
    )
    return after_thinking(constraint, facts, variables)


def asked_form(body: SamplingBody) -> Constraint | None:
    """The form that a body asks of the answer, in any of the shapes there are."""
    return format_constraint(
        body.response_format,
        body.structured_outputs,
        guided_json=body.guided_json,
        guided_regex=body.guided_regex,
        guided_choice=body.guided_choice,
        guided_grammar=body.guided_grammar,
    )
