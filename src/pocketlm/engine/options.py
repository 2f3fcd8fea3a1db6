"""How a model is to be run: plain facts, so that passing them on loads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pocketlm.errors import RequestError

KvType = Literal["f16", "q8", "f32"]

_MOST_SEQUENCES = 1024


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How a model is to be run. Raises RequestError for a value out of range.

    Attributes:
        context: positions of a sequence; None is the model's own, but at most 4,096.
        threads: None is the physical cores that this process may use.
        kv: type of the KV cache: "f16", "q8" (8 bits: half the memory, nearly exact) or "f32".
        kv_tokens: positions of the KV cache that all sequences share, at least ``context``; None is
            a whole context for each.
        sequences: how many may run at once.
        step_tokens: new tokens computed in one step; smaller ones answer sooner while a long prompt
            is read, larger ones read it faster.
        mixed_step: how many times as long as a step without prompts one may take that reads prompts
            beside answers, so that nobody's stream stalls; None is no limit, which reads prompts
            half as fast again.
        output_rows: rows of logits in one step at most; None is as many as scoring asks for.
        prefix_cache: whether equal beginnings are computed once.
        speculate: where guesses of the tokens to come are from: "ngram", the sequence itself, or
            "off"; a draft model takes the place of either. The output does not depend on it.
    """

    context: int | None = None
    threads: int | None = None
    kv: KvType = "f16"
    kv_tokens: int | None = None
    sequences: int = 1
    step_tokens: int = 512
    mixed_step: float | None = 2.25
    output_rows: int | None = None
    prefix_cache: bool = True
    speculate: str = "ngram"

    def __post_init__(self) -> None:
        _check("context", self.context, 1, 1 << 30, optional=True)
        _check("threads", self.threads, 1, 1024, optional=True)
        _check("kv_tokens", self.kv_tokens, 1, 1 << 40, optional=True)
        _check("sequences", self.sequences, 1, _MOST_SEQUENCES)
        _check("step_tokens", self.step_tokens, 1, 1 << 16)
        _check("output_rows", self.output_rows, 1, 1 << 16, optional=True)
        if self.mixed_step is not None and not self.mixed_step > 1:
            raise RequestError(f"mixed_step is {self.mixed_step!r}, expected more than 1")
        if self.kv not in get_args(KvType):
            raise RequestError(f"kv is {self.kv!r}, expected one of {', '.join(get_args(KvType))}")
        if self.speculate not in ("ngram", "off"):
            raise RequestError(f"speculate is {self.speculate!r}, expected ngram or off")


def _check(name: str, value: int | None, low: int, high: int, *, optional: bool = False) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{name} is {value!r}, expected an integer in [{low}, {high:,}]")
