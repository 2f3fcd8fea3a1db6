"""The requests, as Ollama's clients write them. Wrong types are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from pocketlm.errors import RequestError
from pocketlm.serve.ollama.durations import keep_alive_seconds

_MOST_NAME = 512


def _duration(value: Any) -> Any:
    try:
        return keep_alive_seconds(value)
    except RequestError as error:
        raise ValueError(str(error)) from error


KeepAlive = Annotated[
    float | None,
    BeforeValidator(_duration, json_schema_input_type=float | str | None),
    Field(description='Seconds, or a duration as "5m"; negative is for ever, 0 unloads.'),
]
Name = Annotated[str, Field(max_length=_MOST_NAME)]


class Body(BaseModel):
    """A request; ``model_extra`` has the fields that are not known."""

    model_config = ConfigDict(strict=True, extra="allow")


class ToolFunction(Body):
    name: str
    arguments: Mapping[str, Any] = Field(default_factory=dict)
    index: int | None = None


class ToolCall(Body):
    id: str | None = None
    function: ToolFunction


class Message(Body):
    """A turn of a conversation."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class Answered(Body):
    """What ``generate`` and ``chat`` have in common."""

    model: Name = ""
    stream: bool | None = None
    format: Any = None
    keep_alive: KeepAlive = None
    options: dict[str, Any] | None = None
    think: bool | str | None = None
    truncate: bool | None = None
    shift: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)


class GenerateBody(Answered):
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[str] | None = None


class ChatBody(Answered):
    messages: list[Message] | None = None
    tools: list[dict[str, Any]] | None = None


class EmbedBody(Body):
    model: Name = ""
    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: int | None = Field(default=None, ge=0)
    keep_alive: KeepAlive = None
    options: dict[str, Any] | None = None


class EmbeddingsBody(Body):
    model: Name = ""
    prompt: str | None = None
    truncate: bool | None = None
    keep_alive: KeepAlive = None
    options: dict[str, Any] | None = None


class NamedBody(Body):
    """A model by ``model`` or, as older clients have it, by ``name``."""

    model: Name = ""
    name: Name = ""

    @property
    def called(self) -> str:
        return self.model or self.name


class ShowBody(NamedBody):
    verbose: bool | None = None


class DeleteBody(NamedBody):
    pass


class CopyBody(Body):
    source: Name
    destination: Name


class TransferBody(NamedBody):
    """``pull`` and ``push``. ``insecure`` has no effect: only this machine is spoken to plainly."""

    insecure: bool | None = None
    stream: bool | None = None


class CreateBody(NamedBody):
    from_: Annotated[Name | None, Field(alias="from")] = None
    files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    template: str | None = None
    license: str | list[str] | None = None
    system: str | None = None
    parameters: dict[str, Any] | None = None
    messages: list[Message] | None = None
    quantize: str | None = None
    stream: bool | None = None
