"""What a comparison is made of: facts, sizes and figures of each model, as data.

None is "not said" or "not measured": a missing fact is shown as missing, never filled in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Where = Literal["here", "catalog", "hub", "remote"]


@dataclass(frozen=True, kw_only=True)
class Sized:
    """One model in one type on the device. Sizes are bytes, speeds tokens/s.

    Attributes:
        type: the file type.
        on_disk: whether this is the file that is here.
        requantized: whether it would be made of a file that is quantized already.
        file, weights, kv, peak: the file, packed weights, KV cache and all of a process in memory,
            with the comparison's context.
        decode, prefill, first_token: predicted; None where there is no prediction.
        basis: what the prediction rests on.
    """

    type: str
    on_disk: bool
    requantized: bool = False
    file: int
    weights: int
    kv: int
    peak: int
    decode: float | None = None
    prefill: float | None = None
    first_token: float | None = None
    basis: str | None = None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The file that is here, measured on this device: medians.

    Attributes:
        prefill, decode: tokens/s, after ``prompt`` tokens and over ``generate``.
        first_token: seconds from the start of a process to its first token.
        peak: bytes, resident.
        perplexity, bits_per_byte: on ``text``; only the latter compares across vocabularies.
    """

    prefill: float
    decode: float
    prompt: int
    generate: int
    first_token: float
    peak: int
    perplexity: float | None
    bits_per_byte: float | None
    text: str


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One of the models.

    Attributes:
        name: to be shown; no two in a comparison are alike.
        ref: as it was given.
        where: on this disk, known from the catalog alone or from headers on the hub, or behind an
            endpoint.
        quantization, file: of the file that is here or on the hub.
        parameters: counted from tensors or computed from the shape.
        size_class: Micro, Small, Medium or outside.
        languages: codes; None where nobody says.
        language_count: how many are claimed, where that is more than are named.
    """

    name: str
    ref: str
    where: Where
    title: str | None = None
    publisher: str | None = None
    family: str | None = None
    parameters: int | None = None
    size_class: str | None = None
    quantization: str | None = None
    file: int | None = None
    context: int | None = None
    layers: int | None = None
    hidden: int | None = None
    vocabulary: int | None = None
    licence: str | None = None
    gated: bool | None = None
    base: bool | None = None
    languages: tuple[str, ...] | None = None
    language_count: int | None = None
    released: str | None = None
    uses: tuple[str, ...] = ()
    sizes: tuple[Sized, ...] = ()
    measured: Measured | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScoreRow:
    """One benchmark of a table; values in the order of the subjects."""

    benchmark: str
    mode: str | None
    values: tuple[float | None, ...]


@dataclass(frozen=True)
class ScoreTable:
    """Scores of one evaluator by one protocol: only these may be compared with each other."""

    name: str
    evaluator: str
    protocol: str
    source: str
    rows: tuple[ScoreRow, ...]


@dataclass(frozen=True)
class Comparison:
    """Attributes:
    context, kv: that memory is for.
    device: what the speeds are of; None where nothing was predicted or measured.
    notes: about all of it.
    """

    subjects: tuple[Subject, ...]
    context: int
    kv: str
    device: str | None
    scores: tuple[ScoreTable, ...] = ()
    notes: tuple[str, ...] = ()
