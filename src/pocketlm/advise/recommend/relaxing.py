"""What to do where nothing is left: the least that one limit, or as few as can be, must give.

For each limit there is the smallest change that lets a variant through while all others hold. A
change is what the user would type, so that typing it is all there is to do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pocketlm.advise.recommend.judging import Judged, Model
from pocketlm.advise.recommend.limits import Limit, Violation, speed
from pocketlm.advise.recommend.rules import rules
from pocketlm.advise.recommend.wish import Terms, Wish, ram_for

RELAXABLE: tuple[Limit, ...] = ("memory", "min_speed", "context", "license", "lang", "offline")
_LEAST_CONTEXT = 512
_RAM_STEPS = 10  # of a GiB


@dataclass(frozen=True)
class Change:
    """One option, as it would have to be typed.

    Attributes:
        option: a field of ``Wish``.
        value: for it; None leaves the option out.
        says: what it is now and what it would have to be.
    """

    option: str
    value: str | float | bool | None
    says: str


@dataclass(frozen=True)
class Relaxation:
    """Changes that together let something through, and what that is."""

    changes: tuple[Change, ...]
    opens: str

    def applied(self, wish: Wish) -> Wish:
        """The wish with the changes."""
        changes: dict[str, Any] = {change.option: change.value for change in self.changes}
        return replace(wish, **changes)


@dataclass(frozen=True)
class _Whole:
    """A variant with everything that it breaks, what its model breaks included."""

    model: Model
    judged: Judged
    violations: tuple[Violation, ...]

    @property
    def limits(self) -> frozenset[Limit]:
        return frozenset(one.limit for one in self.violations)

    @property
    def excess(self) -> float:
        return math.prod(one.excess for one in self.violations)

    @property
    def name(self) -> str:
        variant = self.judged.variant
        return f"{variant.model} in {variant.type} with a KV cache in {variant.kv}"


def relaxations(models: Sequence[Model], terms: Terms, wish: Wish) -> tuple[Relaxation, ...]:
    """Every way to relax a single limit; where there is none, the one with the fewest limits."""
    judged = [one for model in models for one in _whole(model, terms)]
    found = [_single(limit, judged, terms, wish) for limit in RELAXABLE]
    single = tuple(one for one in found if one is not None)
    return single or _several(judged, terms, wish)


def _whole(model: Model, terms: Terms) -> Iterator[_Whole]:
    """The variants of a model, where relaxing can help it at all."""
    broken = model.broken(terms)
    if all(one.limit in RELAXABLE for one in broken):
        for variant in model.variants:
            judged = model.judged(variant, terms)
            yield _Whole(model, judged, (*broken, *judged.violations))


def _single(limit: Limit, judged: Sequence[_Whole], terms: Terms, wish: Wish) -> Relaxation | None:
    if limit == "context":
        return _context(judged, terms)
    only = [one for one in judged if one.limits == {limit}]
    if not only:
        return None
    if limit == "license":
        count = Counter(one.model.entry.licence for one in only)
        most = min(count, key=lambda name: (-count[name], name))
        only = [one for one in only if one.model.entry.licence == most]
    best = min(only, key=lambda one: (one.excess, one.judged.prediction.peak, one.name))
    return Relaxation((_change(limit, best, terms, wish),), best.name)


def _several(judged: Sequence[_Whole], terms: Terms, wish: Wish) -> tuple[Relaxation, ...]:
    """The variant that breaks the fewest limits, all of which can be relaxed."""
    able = [one for one in judged if one.limits <= {*RELAXABLE}]
    if not able:
        return ()
    best = min(able, key=lambda one: (len(one.limits), one.excess, one.name))
    changes = []
    if "context" in best.limits:  # what else is broken is less at the model's own context
        own = best.model.entry.context
        changes.append(_context_change(own, terms))
        terms = replace(terms, context=own)
        variant = best.judged.variant
        best = next(one for one in _whole(best.model, terms) if one.judged.variant == variant)
    changes += [_change(limit, best, terms, wish) for limit in RELAXABLE if limit in best.limits]
    return (Relaxation(tuple(changes), best.name),)


def _context(judged: Sequence[_Whole], terms: Terms) -> Relaxation | None:
    """The longest context at which a variant fits that only its context is in the way of."""
    longest, opens = _LEAST_CONTEXT - 1, ""
    for one in judged:
        if not one.limits <= {"context", "memory", "min_speed"}:
            continue
        high = min(one.model.entry.context, terms.context - 1)
        if high <= longest or not _fits(one, longest + 1, terms):
            continue
        low = longest + 1
        while low < high:  # a longer context takes more memory and is slower
            middle = (low + high + 1) // 2
            low, high = (middle, high) if _fits(one, middle, terms) else (low, middle - 1)
        longest, opens = low, one.name
    return Relaxation((_context_change(longest, terms),), opens) if opens else None


def _fits(one: _Whole, context: int, terms: Terms) -> bool:
    judged = one.model.judged(one.judged.variant, replace(terms, context=context))
    return not judged.violations


def _context_change(context: int, terms: Terms) -> Change:
    return Change("context", str(context), f"a context of {context:,} instead of {terms.context:,}")


def _change(limit: Limit, one: _Whole, terms: Terms, wish: Wish) -> Change:
    """What must be typed for this variant to keep the limit."""
    prediction, entry = one.judged.prediction, one.model.entry
    if limit == "memory":
        return _ram_change(prediction.peak, terms)
    if limit == "min_speed":
        reached = _two_digits_below(speed(prediction))
        return Change("min_speed", reached, f"{reached:g} tokens/s instead of {terms.min_speed:g}")
    if limit == "license":
        allowed = f"{wish.license},{entry.licence}"
        return Change("license", allowed, f"the licence {entry.licence}, too")
    if limit == "lang":
        return Change("lang", None, f"no matter whether it speaks '{terms.language}'")
    assert limit == "offline"
    return Change("offline", False, "models that are not here, pulled over the network")


def _ram_change(peak: int, terms: Terms) -> Change:
    gib = -(-_RAM_STEPS * ram_for(terms.base, peak) // 2**30) / _RAM_STEPS
    now = terms.device.ram / 2**30
    if gib > now:
        says = f"{gib:g} GiB of RAM instead of {now:.1f}"
    else:  # other programs have it
        free = peak / (1 - rules().room.margin) / 2**30
        says = f"{free:.1f} GiB of the RAM free instead of {terms.device.ram_free / 2**30:.1f}"
    return Change("ram", f"{gib:g}GiB", says)


def _two_digits_below(value: float) -> float:
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.floor(value / step + 1e-9) * step:.6g}")
