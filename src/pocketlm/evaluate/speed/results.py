"""What a run of ``pocketlm bench`` found, as data: samples, medians and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pocketlm.evaluate.speed.contenders import OURS
from pocketlm.evaluate.speed.limits import Machine
from pocketlm.evaluate.speed.plan import Measure, Plan

Unit = Literal["tokens/s", "s", "bytes"]


@dataclass(frozen=True)
class Samples:
    """One measure of one engine, a value for each round."""

    values: tuple[float, ...]
    median: float = field(init=False)
    least: float = field(init=False)
    most: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "median", statistics.median(self.values))
        object.__setattr__(self, "least", min(self.values))
        object.__setattr__(self, "most", max(self.values))


@dataclass(frozen=True)
class Failure:
    """An engine that could not load a model (``measure`` is None) or finish a measure of it."""

    engine: str
    measure: Measure | None
    reason: str


@dataclass(frozen=True)
class Agreement:
    """Of ``prompts`` those that a peer goes on with the same token as PocketLM: not all, as their
    arithmetic differs, but nearly. An engine that computes something else shows here."""

    engine: str
    prompts: int
    same: int


@dataclass(frozen=True)
class Row:
    """One measure of all engines that have it.

    Attributes:
        measure, label: its name for programs and for people.
        unit: tokens/s are the better the more, s and bytes the less.
        engines: samples by engine.
        ratio: how many times better the median of PocketLM is than that of ``better``.
        better: the better one of the peers; None where no peer has it.
    """

    measure: Measure
    label: str
    unit: Unit
    engines: Mapping[str, Samples]
    ratio: float | None = field(init=False)
    better: str | None = field(init=False)

    def __post_init__(self) -> None:
        more = self.unit == "tokens/s"
        peers = {n: s.median for n, s in self.engines.items() if n != OURS}
        better = (max if more else min)(peers, key=peers.__getitem__) if peers else None
        ratio = None
        if better is not None and OURS in self.engines:
            ours = self.engines[OURS].median
            ratio = ours / peers[better] if more else peers[better] / ours
        object.__setattr__(self, "better", better)
        object.__setattr__(self, "ratio", ratio)


@dataclass(frozen=True)
class Traffic:
    """The memory that a decode reads, against what the machine can read.

    Attributes:
        measure: the decode.
        weights, kv: bytes that PocketLM reads for a token: packed weights, and keys and values at
            the middle of the decode.
        reached: that times tokens/s, as a share of the read bandwidth.
    """

    measure: Measure
    weights: int
    kv: int
    reached: float


@dataclass(frozen=True)
class ModelSpeed:
    """One model.

    Attributes:
        model: the ref.
        type: its file type.
        file: bytes on disk.
        rows: what was measured.
        traffic: of decodes of one sequence.
        agreements: of each peer that answered the largest batch.
        failures: of engines that could not do all of it.
        read_bandwidth: bytes/s that the threads read, measured between its rounds.
    """

    model: str
    type: str
    file: int
    rows: tuple[Row, ...]
    traffic: tuple[Traffic, ...]
    agreements: tuple[Agreement, ...]
    failures: tuple[Failure, ...]
    read_bandwidth: Samples


@dataclass(frozen=True)
class Speed:
    """A run: the machine, what was asked, which engines, and the models.

    Attributes:
        machine: its facts.
        plan: what was measured.
        engines: version and instruction set of each, by name; "" where it loaded no model.
        read_bandwidth: bytes/s that the threads read, measured between the rounds.
        models: in the order of the refs.
    """

    machine: Machine
    plan: Plan
    engines: Mapping[str, str]
    read_bandwidth: Samples
    models: tuple[ModelSpeed, ...]


def label(measure: Measure, plan: Plan) -> str:
    """A measure for people: ``decode 128 at 2,048``, ``decode 32 × 16``."""
    if measure.startswith("batch_"):
        return f"decode {plan.generate_each:,} × {measure.removeprefix('batch_')}"
    return {
        "prefill": f"prefill {plan.prompt:,}",
        "decode": f"decode {plan.generate:,}",
        "decode_at_depth": f"decode {plan.generate:,} at {plan.depth:,}",
        "first_token": "first token",
        "peak_memory": "peak memory",
    }[measure]


def unit(measure: Measure) -> Unit:
    """What a measure is counted in."""
    return {"first_token": "s", "peak_memory": "bytes"}.get(measure, "tokens/s")  # type: ignore[return-value]
