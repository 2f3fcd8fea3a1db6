"""The forms that a model can be had in: file type × KV type, ready to pull or made here.

A variant says how it comes about, so that the commands that make it real follow from it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Set
from dataclasses import dataclass

from pocketlm.advise.recommend.rules import rules
from pocketlm.catalog import CatalogEntry, Weights
from pocketlm.quantize.file_types import FILE_TYPES
from pocketlm.store import Store, refs

TERNARY = "ternary"


@dataclass(frozen=True)
class Variant:
    """One form of a model.

    Attributes:
        entry: of the catalog.
        type: the file type.
        kv: type of the KV cache.
        weights: what is pulled.
        made: whether the file is made here, by ``quantize``; otherwise what is pulled is run.
        here: whether what is pulled is in the store.
    """

    entry: CatalogEntry
    type: str
    kv: str
    weights: Weights
    made: bool
    here: bool

    @property
    def model(self) -> str:
        return str(self.entry)

    @property
    def ref(self) -> str:
        """What is pulled, by its name in the catalog where that means it."""
        return pulled(self.entry, self.weights)

    @property
    def trained(self) -> bool:
        """Whether the model was trained to be in this type."""
        return not self.made and rules().loss.trained in self.weights.ref

    @property
    def file(self) -> str:
        """The file that ``quantize`` writes."""
        return f"{self.entry.name}-{self.entry.tag}-{self.type}.gguf".lower()


def stored_names() -> frozenset[str]:
    """Names of the models in the store."""
    return frozenset(model.name for model in Store().list())


def variants(entry: CatalogEntry, stored: Set[str]) -> Iterator[Variant]:
    """Every form of a model that PocketLM can run, what is ready before what is to be made.

    stored: names of models in the store.
    """
    known = rules()
    forms = sorted(
        (one for one in entry.weights if one.format in ("gguf", "safetensors")),
        key=lambda one: (not _here(entry, one, stored), not one.official),
    )
    ready: dict[str, Weights] = {}
    for one in forms:
        type = known.called.get(one.quantization, one.quantization)
        if type in known.loss.types:
            ready.setdefault(type, one)
    original = next((one for one in forms if _is_original(one)), None)
    for type, weights in ready.items():
        yield from _with_caches(entry, type, weights, stored, made=False)
    if original is not None:
        wanted = known.ternary if TERNARY in entry.collections else known.types
        for type in (one for one in wanted if one not in ready):
            yield from _with_caches(entry, type, original, stored, made=True)


def _with_caches(
    entry: CatalogEntry, type: str, weights: Weights, stored: Set[str], *, made: bool
) -> Iterator[Variant]:
    here = _here(entry, weights, stored)
    for kv in rules().kv:
        yield Variant(entry, type, kv, weights, made, here)


def commands(variant: Variant, context: int) -> tuple[str, ...]:
    """What makes a variant real, one command each, to be run one after the other."""
    pull = () if variant.here else (f"pocketlm pull {shlex.quote(variant.ref)}",)
    made = variant.file if variant.made else None
    return (*pull, *serving(variant.ref, variant.type, variant.kv, context, made))


def serving(ref: str, type: str, kv: str, context: int, made: str | None) -> tuple[str, ...]:
    """Commands that quantize a model that is here, where ``made`` names a file, and serve it."""
    file = shlex.quote(made or ref)
    quantize = (f"pocketlm quantize {shlex.quote(ref)} {file} {type}",) if made else ()
    cache = "" if kv == "f16" else f" --kv {kv}"
    return (*quantize, f"pocketlm serve {file} --context {context}{cache}")


def pulled(entry: CatalogEntry, weights: Weights) -> str:
    """The ref to pull: the catalog's name for its own, a label for a file of a GGUF repository."""
    if weights.ref == entry.ref:
        return str(entry)
    ref = refs.parse(weights.ref)
    labelled = isinstance(ref, refs.HubRef) and ref.file is None and weights.format == "gguf"
    return f"{weights.ref}:{weights.quantization}" if labelled else weights.ref


def _here(entry: CatalogEntry, weights: Weights, stored: Set[str]) -> bool:
    return pulled(entry, weights) in stored


def _is_original(weights: Weights) -> bool:
    """Whether files of any type can be made of it without losing twice."""
    kind = FILE_TYPES.get(weights.quantization)
    return kind is not None and not kind.quantized
