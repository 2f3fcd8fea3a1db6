"""The body of a request to ``/v1/messages``, as Anthropic's API reference has it.

Fields that a local server has no use for (``metadata``, ``service_tier``, ``cache_control``) are
taken and do nothing, which changes no answer; all others that are not listed here are told to the
client.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Block = dict[str, Any]
Text = str | list[Block]


class Message(BaseModel):
    """One turn; blocks are checked where they are translated."""

    role: Literal["user", "assistant", "system"]
    content: Text


class Thinking(BaseModel):
    """``budget_tokens`` is not kept: a model thinks as long as it thinks."""

    model_config = ConfigDict(extra="allow")

    type: Literal["enabled", "disabled", "adaptive"]


class ToolChoice(BaseModel):
    """Which tool is to be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Tool(BaseModel):
    """A function of the client's; tools that run at Anthropic are not to be had."""

    type: str | None = None
    name: str
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool = False


class OutputFormat(BaseModel):
    """The form of an answer."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(BaseModel):
    """How much to think and what the answer looks like."""

    model_config = ConfigDict(extra="allow")

    effort: str | None = None
    format: OutputFormat | None = None


class CountRequest(BaseModel):
    """What is counted by ``/v1/messages/count_tokens``."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[Message] = Field(min_length=1)
    system: Text | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: Any = None


class MessagesRequest(CountRequest):
    """A question."""

    max_tokens: Annotated[int, Field(strict=True, ge=1)]
    stop_sequences: list[str] | None = Field(None, max_length=64)
    stream: bool = False
    temperature: float | None = None
    top_k: Annotated[int, Field(strict=True)] | None = None
    top_p: float | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None


def ignored_fields(request: CountRequest) -> list[str]:
    """The names of fields that change nothing although they were meant to."""
    names = sorted(request.model_extra or {})
    for name in ("thinking", "output_config"):
        part = getattr(request, name)
        names += [f"{name}.{field}" for field in sorted((part and part.model_extra) or {})]
    return names
