"""What is measured, as data: the plan of a run, and the questions that engines are asked.

A question is a number of prompts of the same length, answered together; its timing tells prefill
and decode apart. Prompts are fixed token ids: all engines and all rounds compute the same amount.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pocketlm.engine.options import KvType
from pocketlm.errors import RequestError

Measure = str
"""``prefill``, ``decode``, ``decode_at_depth``, ``batch_N``, ``first_token``, ``peak_memory``."""

_BATCH_PROMPT = 64  # tokens: what is timed is decode
_FIRST_ID, _IDS = 1000, 4000  # that prompts are made of, where the vocabulary has them


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run measures; raises RequestError for a value out of range.

    Attributes:
        prompt: tokens of the prompt that prefill is timed on.
        generate: tokens of a decode; in each of several sequences a quarter of that.
        depth: tokens before the decode that is timed once more; 0 leaves it out.
        batch: numbers of sequences that are decoded together.
        rounds: that count; one more before them warms up.
        threads: of every engine.
        kv: type of the KV cache: "f16", "f32" or "q8"; of the peers, its nearest.
    """

    threads: int
    prompt: int = 512
    generate: int = 128
    depth: int = 2048
    batch: tuple[int, ...] = (1, 4, 16)
    rounds: int = 5
    kv: KvType = "f16"

    def __post_init__(self) -> None:
        _check("prompt", self.prompt, 1, 1 << 20)
        _check("generate", self.generate, 1, 1 << 20)
        _check("depth", self.depth, 0, 1 << 20)
        _check("rounds", self.rounds, 1, 1000)
        _check("threads", self.threads, 1, 1024)
        for size in self.batch:
            _check("batch", size, 1, 256)
        if len(set(self.batch)) != len(self.batch):
            raise RequestError(f"batch names a number twice: {', '.join(map(str, self.batch))}")

    @property
    def generate_each(self) -> int:
        """Tokens of a decode in each of several sequences."""
        return max(1, self.generate // 4)

    @property
    def context(self) -> int:
        """Positions that one sequence needs."""
        return max(self.prompt, self.depth) + self.generate + 1


@dataclass(frozen=True)
class Question:
    """``sequences`` prompts of ``prompt`` tokens; ``generate`` tokens of each after the first.

    Attributes:
        prefill, decode: the measures that its timing gives; None for a time that does not count.
    """

    sequences: int
    prompt: int
    generate: int
    prefill: Measure | None = None
    decode: Measure | None = None

    def prompts(self, vocabulary: int) -> list[list[int]]:
        """Token ids below ``vocabulary``; each sequence has its own."""
        first = min(_FIRST_ID, vocabulary // 4)
        count = min(_IDS, vocabulary - first)
        return [
            [first + (37 * i + 101 * s) % count for i in range(self.prompt)]
            for s in range(self.sequences)
        ]


@dataclass(frozen=True)
class Phase:
    """Questions to engines of one size: ``sequences`` of ``context`` positions."""

    context: int
    sequences: int
    questions: tuple[Question, ...]


def phases(plan: Plan) -> Iterator[Phase]:
    """One sequence first, then several: an engine for 16 sequences would hold memory for nothing
    while one is timed."""
    alone = [Question(1, plan.prompt, plan.generate, "prefill", "decode")]
    if plan.depth:
        alone.append(Question(1, plan.depth, plan.generate, None, "decode_at_depth"))
    yield Phase(plan.context, 1, tuple(alone))
    if plan.batch:
        yield Phase(
            _BATCH_PROMPT + plan.generate_each + 1,
            max(plan.batch),
            tuple(
                Question(size, _BATCH_PROMPT, plan.generate_each, None, f"batch_{size}")
                for size in plan.batch
            ),
        )


def _check(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{name} is {value!r}, expected an integer in [{low}, {high:,}]")
