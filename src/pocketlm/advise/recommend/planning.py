"""``pocketlm plan``: one model on one device: which types fit, which is best, how fast.

The same predictions, room and rules as ``recommend``, without limits that only choose among models.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pocketlm import catalog
from pocketlm.advise.device import Device
from pocketlm.advise.performance import PlannedModel, Prediction, planned, predict
from pocketlm.advise.recommend.judging import situation
from pocketlm.advise.recommend.limits import speed
from pocketlm.advise.recommend.points import Reason, form_reasons, total
from pocketlm.advise.recommend.rules import rules
from pocketlm.advise.recommend.variants import Variant, commands, serving, stored_names, variants
from pocketlm.advise.recommend.wish import Terms, Wish, ram_for, terms, tokens
from pocketlm.catalog import CatalogEntry
from pocketlm.errors import NotFoundError, RequestError
from pocketlm.quantize.file_types import FILE_TYPES
from pocketlm.search.hub_model import hub_model
from pocketlm.store import Store, parse
from pocketlm.store.describe import describe_path
from pocketlm.store.manifest import Facts
from pocketlm.store.refs import NameRef, Ref

KV_TYPES = ("f16", "q8", "f32")
_LEAST_CONTEXT = 256
_DEFAULT_CONTEXT = 4096
_WHOLE = 100.0  # points of the original, of which types lose


@dataclass(frozen=True, kw_only=True)
class Form:
    """A model in one file type.

    Attributes:
        made: whether the file is made by ``pocketlm quantize``.
        prediction: at the plan's context and KV type.
        fits: whether its peak is within the memory that is usable.
        longest: for each KV type, the longest context that fits; 0 for none.
        loss: nats a token that the type is taken to lose; None where nobody knows.
        commands: that make it real.
    """

    type: str
    made: bool
    prediction: Prediction
    fits: bool
    longest: Mapping[str, int]
    loss: float | None
    commands: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a device can do with a model.

    Attributes:
        trained: the context that the model was made for.
        memory: bytes that are usable; ``room`` says in words what is left to others.
        min_speed: tokens/s that the best form is to reach with a full context.
        forms: largest first.
        ram_needed: the least RAM of such a device in which the smallest of them fits.
        best: the type to take, and ``why``; None where nothing fits.
    """

    model: str
    parameters: int
    size_class: str
    licence: str | None
    trained: int | None
    context: int
    kv: str
    device: Device
    memory: int
    room: str
    min_speed: float
    forms: tuple[Form, ...]
    ram_needed: int
    best: str | None
    why: tuple[Reason, ...]


def plan(
    ref: str,
    *,
    device: str | Device = "this",
    ram: str | int | None = None,
    context: str | int | None = None,
    kv: str = "f16",
) -> Plan:
    """One model on one device.

    Args:
        ref: a name of the catalog, a model of the store, a path, or an ``hf:`` ref, of which only
            the headers are asked for.
        device, ram, context: as in ``Wish``; the context is the model's own at most, 4,096 if None.
        kv: type of the KV cache.

    Raises RequestError for what cannot be read, NotFoundError for a model that nobody knows, and
    UnsupportedError for one that our engine does not run.
    """
    if kv not in KV_TYPES:
        raise RequestError(f"the KV cache is '{kv}', expected one of {', '.join(KV_TYPES)}")
    subject = _subject(ref)
    wanted = terms(Wish(device=device, ram=ram))
    limit = subject.context
    length = (
        min(limit or _DEFAULT_CONTEXT, _DEFAULT_CONTEXT) if context is None else tokens(context)
    )
    if limit is not None and length > limit:
        raise RequestError(
            f"a context of {length:,} is wanted, {subject.model} is made for {limit:,}"
        )
    wanted = replace(wanted, context=length)
    forms = tuple(_form(subject, way, kv, wanted) for way in subject.ways)
    best, why = _best(subject, forms, kv, wanted)
    return Plan(
        model=subject.model,
        parameters=subject.parameters,
        size_class=catalog.size_class(subject.parameters),
        licence=subject.licence,
        trained=limit,
        context=length,
        kv=kv,
        device=wanted.device,
        memory=wanted.memory,
        room=wanted.room,
        min_speed=wanted.min_speed,
        forms=tuple(sorted(forms, key=lambda form: (-form.prediction.file, form.type))),
        ram_needed=ram_for(wanted.base, min(form.prediction.peak for form in forms)),
        best=best,
        why=why,
    )


@dataclass(frozen=True)
class _Way:
    """A file type and how it is had: from the catalog, or from a file of the user's."""

    type: str
    made: str | None
    variant: Variant | None


@dataclass(frozen=True)
class _Subject:
    """The model of a plan, wherever it is known from.

    Attributes:
        own: the type that its files are in; None for a model of the catalog.
        pull: whether it is to be pulled under the name ``model``; what is in the catalog says of
            each form what is.
    """

    model: str
    parameters: int
    licence: str | None
    context: int | None
    shape: PlannedModel
    ways: tuple[_Way, ...]
    own: str | None = None
    pull: bool = False

    def predict(self, type: str, kv: str, wanted: Terms) -> Prediction:
        prompt = min(wanted.use.prompt, wanted.context)
        context = wanted.context
        as_it_is = None if type == self.own else type
        return predict(self.shape, as_it_is, wanted.device, context=context, kv=kv, prompt=prompt)

    def commands(self, way: _Way, kv: str, context: int) -> tuple[str, ...]:
        if way.variant is not None:
            return commands(replace(way.variant, kv=kv), context)
        pull = (f"pocketlm pull {shlex.quote(self.model)}",) if self.pull else ()
        return (*pull, *serving(self.model, way.type, kv, context, way.made))


def _subject(ref: str) -> _Subject:
    entry = _listed(parse(ref))
    if entry is not None:
        return _of_catalog(entry)
    try:
        path = Store().resolve(ref).path
    except NotFoundError:
        remote = hub_model(ref)
        if remote is None:
            raise
        return _of_files(ref, remote.facts, planned(remote), pull=True)
    return _of_files(ref, describe_path(path), planned(path), pull=False)


def _of_files(ref: str, facts: Facts, shape: PlannedModel, *, pull: bool) -> _Subject:
    """A model that is in the user's files, or on the hub, in one type."""
    own = facts.quantization
    made = [] if _quantized(own) else [type for type in rules().types if type != own]
    stem = ref.rpartition("/")[2].removesuffix(".gguf").replace(":", "-")
    ways = [_Way(own, None, None), *(_Way(t, f"{stem}-{t}.gguf".lower(), None) for t in made)]
    return _Subject(
        model=ref,
        parameters=facts.parameters,
        licence=facts.licence,
        context=facts.context,
        shape=shape,
        ways=tuple(ways),
        own=own,
        pull=pull,
    )


def _listed(ref: Ref) -> CatalogEntry | None:
    """The entry of the catalog that a ref means: by its name, or by where its weights are."""
    if isinstance(ref, NameRef):
        return catalog.find(ref.name, ref.tag)
    entries = (one for one in catalog.entries() if parse(one.ref) == ref)
    return next(entries, None)


def _of_catalog(entry: CatalogEntry) -> _Subject:
    found = {one.type: one for one in variants(entry, stored_names())}
    ways = tuple(_Way(type, None, one) for type, one in found.items())
    return _Subject(
        str(entry), entry.parameters, entry.licence, entry.context, planned(entry), ways
    )


def _quantized(type: str) -> bool:
    return type not in FILE_TYPES or FILE_TYPES[type].quantized


def _form(subject: _Subject, way: _Way, kv: str, wanted: Terms) -> Form:
    def at(context: int, cache: str) -> Prediction:
        return subject.predict(way.type, cache, replace(wanted, context=context))

    def longest(cache: str) -> int:
        low, high = 0, subject.context or wanted.context
        if at(min(_LEAST_CONTEXT, high), cache).peak > wanted.memory:
            return 0
        while low < high:  # a longer context takes more memory
            middle = (low + high + 1) // 2
            low, high = (
                (middle, high) if at(middle, cache).peak <= wanted.memory else (low, middle - 1)
            )
        return low

    prediction, known = at(wanted.context, kv), rules().loss
    made = way.made is not None if way.variant is None else way.variant.made
    return Form(
        type=way.type,
        made=made,
        prediction=prediction,
        fits=prediction.peak <= wanted.memory,
        longest={cache: longest(cache) for cache in KV_TYPES},
        loss=known.of(way.type, subject.parameters) if way.type in known.types else None,
        commands=subject.commands(way, kv, wanted.context),
    )


def _best(
    subject: _Subject, forms: Sequence[Form], kv: str, wanted: Terms
) -> tuple[str | None, tuple[Reason, ...]]:
    """The type to take, as ``recommend`` ranks the forms of one model, and why."""
    fitting = [form for form in forms if form.fits]
    fast = [form for form in fitting if speed(form.prediction) >= wanted.min_speed]
    if not fast:
        return _fastest(fitting, subject, wanted)
    tight, near = (subject.predict(type, "f16", wanted).peak for type in ("Q5_1", "Q8_0"))
    room = situation(tight, near, wanted.memory)
    judged = [
        (form_reasons(form.type, kv, form.loss, _WHOLE, form.prediction, room, wanted), form)
        for form in fast
        if form.loss is not None
    ]
    if not judged:
        return fast[0].type, ()
    why, best = max(judged, key=lambda one: (total(one[0]), -one[1].prediction.peak, one[1].type))
    return best.type, why


def _fastest(
    fitting: Sequence[Form], subject: _Subject, wanted: Terms
) -> tuple[str | None, tuple[Reason, ...]]:
    """Where no form is fast enough: the fastest of those that lose no more than Q4_0."""
    most = rules().loss.of("Q4_0", subject.parameters)
    good = [form for form in fitting if form.loss is None or form.loss <= most]

    def rank(form: Form) -> tuple[float, float, str]:
        return speed(form.prediction), -(form.loss or 0.0), form.type

    best = max(good or fitting, key=rank, default=None)
    if best is None:
        return None, ()
    says = f"none reaches {wanted.min_speed:g} tokens/s: the fastest that loses no more than Q4_0"
    return best.type, (Reason("speed", says, 0.0, wanted.use.sources["min_speed"]),)
