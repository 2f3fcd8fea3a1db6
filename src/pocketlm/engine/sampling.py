"""What a caller may ask of the sampler, checked, and where each value comes from.

A value is what the caller gives, else the model's own generation default, else ours:

| option             | ours | meaning                                                              |
|--------------------|------|----------------------------------------------------------------------|
| temperature        | 0.8  | 0 is greedy (as is anything below 1e-5)                              |
| top_k              | 40   | only the k best tokens; 0 is off                                     |
| typical_p          | 1    | only the tokens nearest to the entropy that hold this mass; 1 is off |
| top_p              | 0.95 | only the best tokens that hold this mass; 1 is off                   |
| min_p              | 0.05 | only tokens this probable relative to the best; 0 is off             |
| repetition_penalty | 1    | divides (multiplies, if negative) logits seen in prompt and output   |
| frequency_penalty  | 0    | subtracted once for every occurrence in the output                   |
| presence_penalty   | 0    | subtracted once for a token that occurs in the output                |
| penalty_window     | 0    | how many last tokens the penalties see; 0 is all of them             |
| logit_bias         | none | added to the logits of the ids named; -inf bans a token              |
| seed               | new  | the same seed gives the same text; the one used is in the result     |
| max_tokens         | none | tokens of the answer; none is whatever the context has left          |
| stop               | none | strings that end the answer; they are not part of it                 |
| stop_ids           | none | ids that end it, beside the model's own end-of-turn tokens           |
| ignore_eos         | no   | go on after the model's end-of-turn tokens                           |
| min_tokens         | 0    | tokens before which no stop string and no id ends the answer         |
| logprobs           | none | log-probabilities of the chosen and of this many best tokens         |

The filters' order is that of the table's rows from logit bias and penalties over top-k, typical,
top-p and min-p to temperature; native/sampling/sampler.h defines each step.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from pocketlm.errors import RequestError


class SamplingOptions(TypedDict, total=False):
    """The options by name, all of them optional; what they mean is in the table above."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    penalty_window: int
    logit_bias: Mapping[int, float]
    seed: int | None
    max_tokens: int | None
    min_tokens: int
    stop: str | Sequence[str]
    stop_ids: Iterable[int]
    ignore_eos: bool
    logprobs: int | None


@dataclass(frozen=True)
class _Range:
    low: float
    high: float
    kind: type = float
    open_low: bool = False

    def holds(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        return above and value <= self.high

    def __str__(self) -> str:
        if self.kind is int:
            return f"an integer in [{int(self.low):,}, {int(self.high):,}]"
        return f"a number in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}]"


_INT32_MAX = 2**31 - 1
_RANGES = {
    "temperature": _Range(0, 100),
    "top_k": _Range(0, _INT32_MAX, int),
    "top_p": _Range(0, 1, open_low=True),
    "min_p": _Range(0, 1),
    "typical_p": _Range(0, 1, open_low=True),
    "repetition_penalty": _Range(0, 100, open_low=True),
    "frequency_penalty": _Range(-100, 100),
    "presence_penalty": _Range(-100, 100),
    "penalty_window": _Range(0, _INT32_MAX, int),
    "seed": _Range(0, 2**64 - 1, int),
    "max_tokens": _Range(1, _INT32_MAX, int),
    "min_tokens": _Range(0, _INT32_MAX, int),
    "logprobs": _Range(0, 100, int),
}
_OPTIONAL = {"seed", "max_tokens", "logprobs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """One request's options, complete; raises RequestError naming a field out of range."""

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_window: int = 0
    logit_bias: Mapping[int, float] | None = None
    seed: int | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    logprobs: int | None = None

    def __post_init__(self) -> None:
        for name, allowed in _RANGES.items():
            _check_number(name, getattr(self, name), allowed)
        if not isinstance(self.ignore_eos, bool):
            raise RequestError(f"ignore_eos is {self.ignore_eos!r}, expected true or false")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise RequestError(f"min_tokens is {self.min_tokens}, max_tokens {self.max_tokens}")
        put = object.__setattr__
        put(self, "stop", _stop_strings(self.stop))
        put(self, "stop_ids", _token_ids(self.stop_ids))
        put(self, "logit_bias", _bias(self.logit_bias))
        if self.seed is None:
            put(self, "seed", int.from_bytes(os.urandom(6), "little"))


OPTION_NAMES = tuple(field.name for field in fields(SamplingParams))


def resolve(
    options: Mapping[str, Any] | SamplingOptions, model_defaults: Mapping[str, Any] | None = None
) -> SamplingParams:
    """The caller's options over the model's generation defaults over ours.

    ``model_defaults`` are numbers under our names (``ModelSpec.generation``); those that do not say
    how to choose a token are ignored, as is None anywhere. Raises RequestError for an option that
    is not known or out of range.
    """
    for name in options:
        if name not in OPTION_NAMES:
            near = difflib.get_close_matches(name, OPTION_NAMES, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Options: {', '.join(OPTION_NAMES)}."
            raise RequestError(f"there is no option {name!r}", hint=hint)
    merged: dict[str, Any] = {}
    for name in _MODEL_MAY_SET:
        value = (model_defaults or {}).get(name)
        if value is not None:
            merged[name] = max(int(value), 0) if name == "top_k" else value
    own = set(merged) - set(options)
    merged.update((name, value) for name, value in options.items() if value is not None)
    try:
        return SamplingParams(**merged)
    except RequestError as error:
        if not any(error.message.startswith(name + " ") for name in own):
            raise
        raise RequestError(
            f"the model's generation default {error.message}", hint="Give the option yourself."
        ) from error


_MODEL_MAY_SET = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
)


def _check_number(name: str, value: object, allowed: _Range) -> None:
    if value is None and name in _OPTIONAL:
        return
    kinds = (int,) if allowed.kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not allowed.holds(value):
        raise RequestError(f"{name} is {value!r}, expected {allowed}")


def _token_id(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _INT32_MAX:
        raise RequestError(f"{name} has {value!r}, expected token ids")
    return value


def _token_ids(ids: object) -> frozenset[int]:
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise RequestError(f"stop_ids is {ids!r}, expected a list of token ids")
    return frozenset(_token_id("stop_ids", i) for i in ids)


def _stop_strings(stop: object) -> tuple[str, ...]:
    if not isinstance(stop, Iterable):
        raise RequestError(f"stop is {stop!r}, expected a string or a list of strings")
    strings = (stop,) if isinstance(stop, str) else tuple(stop)
    for string in strings:
        if not isinstance(string, str) or not string:
            raise RequestError(f"stop has {string!r}, expected strings that are not empty")
    return strings


def _bias(bias: Mapping[int, float] | None) -> Mapping[int, float] | None:
    if bias is not None and not isinstance(bias, Mapping):
        raise RequestError(f"logit_bias is {bias!r}, expected numbers by token id")
    if not bias:
        return None
    for value in bias.values():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not (math.isfinite(value) or value == -math.inf) or value > 1e6:
            raise RequestError(
                f"logit_bias has {value!r}, expected a number up to 1e6 or -inf to ban the token"
            )
    return {_token_id("logit_bias", token): float(value) for token, value in bias.items()}
