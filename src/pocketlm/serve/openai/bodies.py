"""What the bodies of OpenAI's routes have in common: their checks, and the sampler's options.

Fields have the names that OpenAI's, vLLM's and llama.cpp's clients send; docs/reference/http.md
lists them. Types are held to strictly. What is not a field is kept, so that it can be told to the
client (``asking.headers``).
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_CHOICES = 64
MOST_STOPS = 64

Number = Annotated[float, Field(allow_inf_nan=False)]
Id = Annotated[int, Field(ge=0, le=2**31 - 1)]
StopString = Annotated[str, Field(min_length=1, max_length=1024)]
Object = dict[str, Any]


class Body(BaseModel):
    """A request in JSON."""

    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, data: Any) -> Any:
        """Refuses what Python reads as JSON but nobody else does: NaN, halves of characters."""
        try:
            json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("the request has half a surrogate pair, which is no text") from error
        except RecursionError as error:
            raise ValueError("the request is nested too deep") from error
        return data


class ModelBody(Body):
    """A request to a model."""

    model: str | None = Field(default=None, max_length=512)


class StreamOptions(Body):
    """What a stream tells besides the text."""

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: bool = False


class SamplingBody(ModelBody):
    """The options of chat and plain completions; None is the model's default."""

    temperature: Number | None = None
    top_p: Number | None = None
    top_k: int | None = None
    min_p: Number | None = None
    typical_p: Number | None = None
    repetition_penalty: Number | None = None
    frequency_penalty: Number | None = None
    presence_penalty: Number | None = None
    logit_bias: dict[str, Number] | None = Field(default=None, max_length=4096)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**64 - 1)
    stop: StopString | Annotated[list[StopString], Field(max_length=MOST_STOPS)] | None = None
    stop_token_ids: list[Id] | None = Field(default=None, max_length=1024)
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: int | None = Field(default=None, ge=0, le=2**31 - 1)
    n: int | None = Field(default=None, ge=1, le=MOST_CHOICES)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    skip_special_tokens: bool = True
    response_format: Object | None = None
    structured_outputs: Object | None = None
    guided_json: Object | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    prompt_logprobs: int | None = Field(default=None, ge=0, le=100)
    return_token_ids: bool | None = None
    num_ctx: int | None = Field(default=None, ge=1, le=2**31 - 1)
    truncate: bool = False
    keep_alive: Number | None = None
    # Taken, and of no effect on a server that keeps nothing about anybody.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    request_id: str | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only for a request with stream: true")
        for key in self.logit_bias or ():
            if not (key.isascii() and key.isdigit() and len(key) <= 10):
                raise ValueError(f"logit_bias has the key {key[:40]!r}, expected token ids")
        return self
