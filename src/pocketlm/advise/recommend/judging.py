"""Every variant of every model, predicted on the device and held to the limits.

Predictions are made when they are asked for and kept, since many variants never need one.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from pocketlm.advise.performance import PlannedModel, Prediction, planned, predict
from pocketlm.advise.recommend.limits import (
    Violation,
    model_violations,
    variant_violations,
)
from pocketlm.advise.recommend.rules import Situation
from pocketlm.advise.recommend.variants import Variant, stored_names, variants
from pocketlm.advise.recommend.wish import Terms
from pocketlm.catalog import CatalogEntry
from pocketlm.errors import PocketLMError

_AMPLE = 0.5


@dataclass(frozen=True)
class Judged:
    """A variant with what is predicted of it and the limits that it breaks."""

    variant: Variant
    prediction: Prediction
    violations: tuple[Violation, ...]


class Model:
    """One model of the catalog on one device.

    Attributes:
        entry: of the catalog.
        refused: why our engine does not run it; None where it does.
        variants: its forms, ready ones first.
    """

    def __init__(self, entry: CatalogEntry, stored: Set[str]) -> None:
        self.entry = entry
        self.variants: Sequence[Variant] = ()
        self.refused: str | None = None
        self._planned: PlannedModel | None = None
        self._predictions: dict[tuple[str, str, int], Prediction] = {}
        try:
            self._planned = planned(entry)
            self.variants = tuple(variants(entry, stored))
        except PocketLMError as error:
            self.refused = error.message
        if self.refused is None and not self.variants:
            self.refused = "no weights in a type that it runs"

    @property
    def here(self) -> bool:
        return any(variant.here for variant in self.variants)

    def broken(self, terms: Terms) -> tuple[Violation, ...]:
        """The limits that the model breaks whatever its form."""
        if self.refused is None and self.entry.origin:
            self._try(terms)
        return tuple(model_violations(self.entry, terms, self.refused, here=self.here))

    def _try(self, terms: Terms) -> None:
        """A user's catalog may claim sizes that no memory has: told, and the others are judged."""
        try:
            for variant in self.variants:
                self.predicted(variant.type, variant.kv, terms)
        except PocketLMError as error:
            self.refused = error.message

    def judged(self, variant: Variant, terms: Terms) -> Judged:
        """A variant held to the limits of variants."""
        prediction = self.predicted(variant.type, variant.kv, terms)
        return Judged(variant, prediction, tuple(variant_violations(variant, prediction, terms)))

    def predicted(self, type: str, kv: str, terms: Terms) -> Prediction:
        """What the performance model says of a form, at the model's own context at most."""
        context = min(terms.context, self.entry.context)
        key = type, kv, context
        if key not in self._predictions:
            assert self._planned is not None, "a model that is not run has no variants"
            self._predictions[key] = predict(
                self._planned,
                type,
                terms.device,
                context=context,
                kv=kv,
                prompt=min(terms.use.prompt, context),
            )
        return self._predictions[key]

    def situation(self, terms: Terms) -> Situation:
        """How much room the device has for this model."""
        tight, near = (self.predicted(type, "f16", terms).peak for type in ("Q5_1", "Q8_0"))
        return situation(tight, near, terms.memory)


def situation(balanced: int, near: int, memory: int) -> Situation:
    """What the guidelines call the room for a model, from its peaks in Q5_1 and Q8_0."""
    if balanced > memory:
        return "tightest"
    return "ample" if near <= _AMPLE * memory else "balance"


def candidates(entries: Sequence[CatalogEntry]) -> list[Model]:
    """Every model of the catalog, with what is here of it."""
    stored = stored_names()
    return [Model(entry, stored) for entry in entries]
