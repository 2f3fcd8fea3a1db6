"""``pocketlm.recommend``: which model, in which type, for this device and use, and why.

First the limits, then the points: every variant of every model of the catalog is predicted on the
device; what breaks a limit is ruled out with the figures; the rest is ranked. The same catalog,
device, store and wish give the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pocketlm import catalog
from pocketlm.advise.device import Device
from pocketlm.advise.performance import Prediction
from pocketlm.advise.recommend.judging import Judged, Model, candidates
from pocketlm.advise.recommend.limits import Violation, disk_needed
from pocketlm.advise.recommend.points import Line, Reason, line, reasons, total
from pocketlm.advise.recommend.relaxing import Relaxation, relaxations
from pocketlm.advise.recommend.variants import Variant, commands
from pocketlm.advise.recommend.wish import Terms, Wish, terms
from pocketlm.catalog import CatalogEntry


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A variant that keeps within every limit.

    Attributes:
        model: its name in the catalog.
        type, kv: of the file and of the KV cache.
        parameters, size_class, licence, gated: facts of the model.
        here: whether what is pulled is in the store.
        made: whether the file is made by ``pocketlm quantize``.
        points: that it is ranked by, the sum of the ``reasons``.
        prediction: speed and memory on the device.
        disk: bytes that downloading and making it take.
        commands: that make it real.
        notes: what else to know.
    """

    model: str
    type: str
    kv: str
    parameters: int
    size_class: str
    licence: str
    gated: bool
    here: bool
    made: bool
    points: float
    reasons: tuple[Reason, ...]
    prediction: Prediction
    disk: int
    commands: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Ranked:
    """A model: its best variant, the others that fit, and what does not with why.

    ``others`` are in the order of their points; ``unfit`` pairs ``TYPE, KV kv`` with limits.
    """

    best: Choice
    others: tuple[Choice, ...]
    unfit: tuple[tuple[str, tuple[Violation, ...]], ...]


@dataclass(frozen=True)
class RuledOut:
    """A model with no variant left, and the limits that the nearest one breaks."""

    model: str
    variant: str | None
    violations: tuple[Violation, ...]


@dataclass(frozen=True)
class Recommended:
    """What ``recommend`` found.

    Attributes:
        use: what for.
        device: with the RAM that was asked for.
        memory: bytes that are usable of it; ``room`` says in words what is left to others.
        min_speed, context: the limits, given or of the use.
        ranked: best first.
        ruled_out: in the catalog's order.
        relax: where nothing is ranked, what would let something through.
    """

    use: str
    title: str
    device: Device
    memory: int
    room: str
    min_speed: float
    context: int
    ranked: tuple[Ranked, ...]
    ruled_out: tuple[RuledOut, ...]
    relax: tuple[Relaxation, ...]


def recommend(wish: Wish, entries: Sequence[CatalogEntry] | None = None) -> Recommended:
    """Ranks models for a device and a use.

    entries: the models to choose from; None is the catalog.
    Raises RequestError or NotFoundError for a wish that cannot be read.
    """
    wanted = terms(wish)
    models = candidates(catalog.entries() if entries is None else entries)
    sizes = line((model.entry for model in models), wanted.use)
    ranked, ruled_out = [], []
    for model in models:
        found = _rank(model, wanted, sizes)
        if isinstance(found, Ranked):
            ranked.append(found)
        else:
            ruled_out.append(found)
    ranked.sort(key=lambda one: _order(one.best))
    return Recommended(
        use=wanted.use_name,
        title=wanted.use.title,
        device=wanted.device,
        memory=wanted.memory,
        room=wanted.room,
        min_speed=wanted.min_speed,
        context=wanted.context,
        ranked=tuple(ranked),
        ruled_out=tuple(ruled_out),
        relax=() if ranked else relaxations(models, wanted, wish),
    )


def _rank(model: Model, wanted: Terms, sizes: Line | None) -> Ranked | RuledOut:
    broken = model.broken(wanted)
    if broken:
        return RuledOut(str(model.entry), None, broken)
    judged = [model.judged(variant, wanted) for variant in model.variants]
    fitting = [one for one in judged if not one.violations]
    if not fitting:
        nearest = min(judged, key=lambda one: (len(one.violations), _excess(one), one.variant.type))
        return RuledOut(str(model.entry), _name(nearest.variant), nearest.violations)
    choices = sorted((_choice(model, one, wanted, sizes) for one in fitting), key=_order)
    unfit = tuple((_name(one.variant), one.violations) for one in judged if one.violations)
    return Ranked(choices[0], tuple(choices[1:]), unfit)


def _choice(model: Model, judged: Judged, wanted: Terms, sizes: Line | None) -> Choice:
    variant, prediction, entry = judged.variant, judged.prediction, model.entry
    why = reasons(variant, prediction, model.situation(wanted), wanted, sizes)
    return Choice(
        model=variant.model,
        type=variant.type,
        kv=variant.kv,
        parameters=entry.parameters,
        size_class=catalog.size_class(entry.parameters),
        licence=entry.licence,
        gated=entry.gated,
        here=variant.here,
        made=variant.made,
        points=total(why),
        reasons=why,
        prediction=prediction,
        disk=disk_needed(variant, prediction),
        commands=commands(variant, wanted.context),
        notes=_notes(variant),
    )


def _notes(variant: Variant) -> tuple[str, ...]:
    entry, found = variant.entry, []
    if entry.gated and variant.weights.ref == entry.ref and not variant.here:
        found.append(
            "gated: its owner wants an account and your agreement; set HF_TOKEN to pull it"
        )
    if not variant.made and not variant.weights.official:
        found.append(f"{variant.ref} is made by others than the model's publisher")
    if variant.made and variant.type in ("Q4_0", "Q3_K_M", "Q2_K"):
        found.append(
            "'pocketlm quantize --method calibrated' keeps more at the same size, and takes longer"
        )
    return tuple(found)


def _order(choice: Choice) -> tuple[float, int, str, str, str]:
    return -round(choice.points, 6), choice.prediction.peak, choice.model, choice.type, choice.kv


def _excess(judged: Judged) -> float:
    return max(one.excess for one in judged.violations)


def _name(variant: Variant) -> str:
    return f"{variant.type}, KV {variant.kv}"
