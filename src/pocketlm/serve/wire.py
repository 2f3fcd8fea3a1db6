"""Requests, answers and errors as JSON values, for the channel; the same table for both ends."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pocketlm import errors
from pocketlm.errors import BusyError, PocketLMError
from pocketlm.serve.generation import (
    ChatPrompt,
    Constraint,
    FillPrompt,
    Generation,
    Prompt,
    Scored,
    TextPrompt,
    TokenPrompt,
    TokenScore,
)

_PROMPTS: Mapping[str, type[Any]] = {
    "chat": ChatPrompt,
    "text": TextPrompt,
    "tokens": TokenPrompt,
    "fill": FillPrompt,
}
_NAMES = {kind: name for name, kind in _PROMPTS.items()}


def prompt_record(prompt: Prompt) -> dict[str, Any]:
    """A prompt as JSON: its kind and its fields."""
    fields = {name: getattr(prompt, name) for name in prompt.__slots__}
    return {"kind": _NAMES[type(prompt)], **fields}


def read_prompt(record: Mapping[str, Any]) -> Prompt:
    """The other way round."""
    fields = dict(record)
    prompt: Prompt = _PROMPTS[fields.pop("kind")](**fields)
    return prompt


def generation_record(generation: Generation) -> dict[str, Any]:
    """A request as JSON."""
    options = dict(generation.options)
    bias = options.get("logit_bias")
    if isinstance(bias, Mapping):  # the keys of JSON objects are strings
        options["logit_bias"] = list(bias.items())
    constraint = generation.constraint
    return {
        "prompt": prompt_record(generation.prompt),
        "options": options,
        "constraint": None if constraint is None else asdict(constraint),
        "context": generation.context,
        "overflow": generation.overflow,
        "keep_special": generation.keep_special,
        "prompt_logprobs": generation.prompt_logprobs,
    }


def read_generation(record: Mapping[str, Any]) -> Generation:
    """The other way round."""
    fields = dict(record)
    options = dict(fields["options"])
    if isinstance(options.get("logit_bias"), list):
        options["logit_bias"] = dict(options["logit_bias"])
    constraint = fields["constraint"]
    return Generation(
        **{
            **fields,
            "prompt": read_prompt(fields["prompt"]),
            "options": options,
            "constraint": None if constraint is None else Constraint(**constraint),
        }
    )


# Tokens with their probabilities: [[id, log-probability, bytes as Latin-1], ...], the chosen first.

Score = tuple[int, float, str]


def score_record(id: int, logprob: float, data: bytes) -> Score:
    return id, logprob, data.decode("latin-1")


def read_scored(record: Sequence[Score]) -> Scored:
    """The chosen token and the best ones."""
    chosen, *best = (TokenScore(id, text.encode("latin-1"), lp) for id, lp, text in record)
    return Scored(chosen, tuple(best))


# Vectors: 32-bit floats of this machine, in base64.


def vector_record(floats: bytes) -> str:
    return base64.b64encode(floats).decode("ascii")


def read_vector(text: str) -> list[float]:
    return array("f", base64.b64decode(text)).tolist()


# Errors by the name of their class; the class itself is looked up, never loaded.


def error_record(error: PocketLMError) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "path": None if error.path is None else str(error.path),
        "offset": error.offset,
    }


def read_error(record: Mapping[str, Any]) -> PocketLMError:
    """The error that a worker speaks of; a plain PocketLMError where its class is not known."""
    kind = getattr(errors, str(record.get("type")), PocketLMError)
    message, hint = str(record.get("message")), record.get("hint")
    if not (isinstance(kind, type) and issubclass(kind, PocketLMError)):
        kind = PocketLMError
    if issubclass(kind, BusyError):
        return BusyError(message, hint=hint)
    return kind(message, hint=hint, path=record.get("path"), offset=record.get("offset"))
