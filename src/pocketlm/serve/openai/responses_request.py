"""The body of ``POST /v1/responses`` as a chat: items become messages, and the rest its options.

Nothing is stored: a conversation is sent whole, and what would need an earlier response is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from pocketlm.errors import RequestError
from pocketlm.serve.openai.bodies import Body, ModelBody, Number, Object, StreamOptions
from pocketlm.serve.openai.chat_request import ChatBody
from pocketlm.serve.openai.messages import Message, text_of

_LOGPROBS = "message.output_text.logprobs"
_INCLUDE = (_LOGPROBS, "reasoning.encrypted_content")


class TextOptions(Body):
    """The form of the answer's text."""

    format: Object | None = None
    verbosity: str | None = None


class ReasoningOptions(Body):
    """How much to think."""

    effort: str | None = Field(default=None, max_length=32)
    summary: str | None = None
    generate_summary: str | None = None


class ResponsesBody(ModelBody):
    """A conversation as items."""

    input: str | list[Object]
    instructions: str | None = None
    tools: list[Object] | None = None
    tool_choice: str | Object | None = None
    parallel_tool_calls: bool | None = True
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    max_output_tokens: int | None = Field(default=None, ge=1, le=2**31 - 1)
    temperature: Number | None = None
    top_p: Number | None = None
    top_k: int | None = None
    min_p: Number | None = None
    repetition_penalty: Number | None = None
    seed: int | None = Field(default=None, ge=-(2**63), le=2**64 - 1)
    top_logprobs: int | None = Field(default=None, ge=0, le=100)
    include: list[str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    num_ctx: int | None = Field(default=None, ge=1, le=2**31 - 1)
    chat_template_kwargs: Object | None = None
    keep_alive: Number | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    store: bool | None = None
    metadata: dict[str, Any] | None = None
    user: str | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None

    @property
    def scored(self) -> bool:
        """Whether log-probabilities are wanted."""
        return self.top_logprobs is not None or _LOGPROBS in (self.include or ())


def as_chat(body: ResponsesBody) -> ChatBody:
    """The same as a chat.

    Raises:
        RequestError: an item or a tool is malformed, or of a kind that is not done here.
    """
    for name in body.include or ():
        if name not in _INCLUDE:
            raise RequestError(f"include has {name!r:.60}, expected {' or '.join(_INCLUDE)}")
    messages = _messages(body.input)
    if body.instructions:
        messages.insert(0, {"role": "system", "content": body.instructions})
    form = body.text.format if body.text else None
    same = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "num_ctx")
    return ChatBody.model_construct(
        **{name: getattr(body, name) for name in same},
        model=body.model,
        messages=messages,
        max_completion_tokens=body.max_output_tokens,
        tools=[_tool(tool, f"tools[{i}]") for i, tool in enumerate(body.tools or ())] or None,
        tool_choice=body.tool_choice,
        parallel_tool_calls=body.parallel_tool_calls,
        reasoning_effort=body.reasoning.effort if body.reasoning else None,
        chat_template_kwargs=body.chat_template_kwargs,
        response_format=form,
        logprobs=body.scored,
        top_logprobs=body.top_logprobs,
        truncate=body.truncation == "auto",
    )


def _tool(tool: Mapping[str, Any], where: str) -> Object:
    """A function in the shape of chat completions."""
    if tool.get("type") != "function":
        raise RequestError(
            f"{where}.type is {tool.get('type')!r:.60}, only functions can be called"
        )
    named = ("name", "description", "parameters", "strict")
    function = {name: tool[name] for name in named if tool.get(name) is not None}
    return {"type": "function", "function": function}


def _messages(given: str | Sequence[Mapping[str, Any]]) -> list[Message]:
    """Items as messages: calls and thinking belong to the assistant's turn that they stand in."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    messages: list[Message] = []
    thought = ""
    for i, item in enumerate(given):
        where = f"input[{i}]"
        kind = item.get("type", "message")
        if kind == "reasoning":
            thought = _thought(item, where)
        elif kind == "function_call_output":
            output = text_of(item.get("output"), f"{where}.output")
            id = _text(item, "call_id", where)
            messages.append({"role": "tool", "tool_call_id": id, "content": output})
        elif kind == "function_call":
            _turn(messages)["tool_calls"].append(_call(item, where))
        elif kind == "message":
            message = {"role": item.get("role"), "content": item.get("content")}
            message["content"] = text_of(message["content"], f"{where}.content")
            messages.append(message)
        else:
            raise RequestError(f"{where}.type is {kind!r:.60}, which cannot be read here")
        if thought and messages and messages[-1]["role"] == "assistant" and kind != "reasoning":
            messages[-1]["reasoning_content"], thought = thought, ""
    return messages


def _turn(messages: list[Message]) -> Message:
    """The assistant's turn that calls go to."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    messages[-1].setdefault("tool_calls", [])
    return messages[-1]


def _call(item: Mapping[str, Any], where: str) -> Object:
    function = {
        "name": _text(item, "name", where),
        "arguments": _text(item, "arguments", where),
    }
    return {"id": _text(item, "call_id", where), "type": "function", "function": function}


def _text(item: Mapping[str, Any], name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise RequestError(f"{where}.{name} should be a text")
    return value


def _thought(item: Mapping[str, Any], where: str) -> str:
    parts = item.get("content") or item.get("summary") or []
    if not isinstance(parts, list):
        raise RequestError(f"{where}.content should be a list")
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    return "\n".join(text for text in texts if isinstance(text, str))
