"""``compare``: from refs to records. What is known is collected; what is not known stays unsaid.

A model may be on this disk (facts and sizes from its own file), known from the catalog alone, on
the hub (from the headers of its files), or behind an endpoint. Sizes, memory and speed come from
``performance``, so they are those of the files that ``quantize`` would write and of the program
that would run, also of models that are not here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from pocketlm import catalog
from pocketlm.advise.comparison.measuring import measure as measured
from pocketlm.advise.comparison.records import Comparison, Subject
from pocketlm.advise.comparison.scores import score_tables
from pocketlm.advise.comparison.sizes import sizes
from pocketlm.advise.device import Device, find_device
from pocketlm.advise.footprint import DEFAULT_TYPES
from pocketlm.advise.performance import catalog_entry, planned
from pocketlm.backends.remote.facts import remote_facts
from pocketlm.catalog import CatalogEntry, size_class
from pocketlm.engine.options import KvType
from pocketlm.errors import NotFoundError, PocketLMError, RequestError, UnsupportedError
from pocketlm.models import open_model
from pocketlm.progress import Progress, ProgressCallback, silent
from pocketlm.quantize.file_types import file_type
from pocketlm.search.hub_model import HubModel, hub_model
from pocketlm.store import Store, parse
from pocketlm.store.describe import describe_path
from pocketlm.store.importing import model_files
from pocketlm.store.refs import NameRef
from pocketlm.store.remote_refs import is_remote, parse_remote

MOST = 32
DEFAULT_CONTEXT = 4096


@dataclass(frozen=True)
class _Found:
    """A model, where its bytes are if they are here, and what catalog or hub say of it."""

    subject: Subject
    path: Path | None = None
    entry: CatalogEntry | None = None
    remote: HubModel | None = None


def compare(
    refs: Sequence[str],
    *,
    types: Sequence[str] = DEFAULT_TYPES,
    device: str | Device = "this",
    context: int | None = None,
    kv: KvType = "f16",
    threads: int | None = None,
    measure: bool = False,
    text: Path | None = None,
    progress: ProgressCallback = silent,
) -> Comparison:
    """The models side by side, in the order of the refs; a ref that is given twice counts once.

    Args:
        refs: of the store, of the catalog, paths, of the hub, whose headers are asked for, or of
            remote models, which are asked for their facts.
        types: file types whose size, memory and speed are told.
        device: that speeds are predicted for: "this", a profile's name or a file; see
            ``find_device``. What is measured is always measured here.
        context: tokens that memory is for; None is 4,096. A model with a smaller one has its own.
        kv: type of the KV cache.
        threads: that compute; None is the physical cores.
        measure: also run those that are here: speed, and loss on ``text``.
        text: a UTF-8 file; None is a text of ours.

    Raises RequestError for no ref or too many, a bad ref or an unknown type, NotFoundError (with
    names that are close) for a model that nobody knows, ModelFileError for a broken file, and what
    ``hub_model`` raises. A model
    that cannot be measured, or asked for its facts, has a note that says so.
    """
    names = list(dict.fromkeys(refs))
    if not names:
        raise RequestError("there is no model to compare")
    if len(names) > MOST:
        raise RequestError(f"{len(names)} models are too many to compare, {MOST} at most")
    if context is not None and context < 1:
        raise RequestError(f"the context is {context}, expected at least 1")
    for type in types:
        file_type(type)  # an unknown one is said before anything is opened
    where = find_device(device) if isinstance(device, str) else device
    found = [_find(ref) for ref in names]
    labels = _labels([(one.subject.name, one.subject.ref) for one in found])
    wanted = context or DEFAULT_CONTEXT
    subjects = []
    for number, (one, label) in enumerate(zip(found, labels, strict=True)):
        progress(Progress("compare", number, len(found)))
        subject = replace(one.subject, name=label)
        subjects.append(_sized(subject, one, types, where, wanted, kv, threads))
    progress(Progress("compare", len(found), len(found)))
    if measure:
        for number, one in enumerate(found):
            if one.path is not None:
                subjects[number] = _measure(subjects[number], one.path, text, kv, threads, progress)
    models = [None if one.entry is None else str(one.entry) for one in found]
    scores = score_tables(models, catalog.tables().values())
    return Comparison(tuple(subjects), wanted, kv, _title(where), scores)


def _title(device: Device) -> str:
    if device.name == "this":
        return f"this device ({device.cpu}, {device.cores} cores)"
    return device.model or device.name


def _find(ref: str) -> _Found:
    if is_remote(ref):
        return _Found(_remote(ref))
    parsed = parse(ref)
    entry = catalog.find(parsed.name, parsed.tag) if isinstance(parsed, NameRef) else None
    try:
        model = Store().resolve(ref)
    except NotFoundError:
        entry = catalog_entry(ref)
        if entry is not None:
            return _Found(_of_entry(ref, entry), entry=entry)
        remote = hub_model(ref)
        if remote is None:
            raise
        return _Found(_of_hub(ref, remote), remote=remote)
    if entry is not None and model.name != str(entry):
        entry = None  # a name of this store that the catalog has under another tag
    facts = model.manifest.facts if model.manifest is not None else describe_path(model.path)
    with closing(open_model(model.path)) as spec:
        config = spec.config
    subject = Subject(
        name=model.name if model.manifest is not None else model.path.name,
        ref=ref,
        where="here",
        family=facts.family,
        parameters=facts.parameters,
        size_class=facts.size_class,
        quantization=facts.quantization,
        file=sum(given.path.stat().st_size for given in model_files(model.path)),
        context=facts.context,
        layers=config.layers,
        hidden=config.hidden,
        vocabulary=config.vocab,
        licence=facts.licence,
    )
    if entry is not None:
        known = _of_entry(ref, entry)
        said = {name: value for name, value in vars(subject).items() if value not in (None, ())}
        subject = replace(known, **said)
    return _Found(subject, model.path, entry)


def _of_entry(ref: str, entry: CatalogEntry) -> Subject:
    shape = entry.shape
    return Subject(
        name=str(entry),
        ref=ref,
        where="catalog",
        title=entry.title or None,
        publisher=entry.publisher or None,
        family=None if shape is None else shape.family,
        parameters=entry.parameters,
        size_class=size_class(entry.parameters),
        context=entry.context,
        layers=None if shape is None else shape.layers,
        hidden=None if shape is None else shape.hidden,
        vocabulary=None if shape is None else shape.vocab,
        licence=entry.licence,
        gated=entry.gated,
        base=entry.base,
        languages=entry.languages or None,
        language_count=entry.language_count,
        released=None if entry.released is None else entry.released.isoformat(),
        uses=entry.uses,
        notes=() if entry.note is None else (entry.note,),
    )


def _of_hub(ref: str, remote: HubModel) -> Subject:
    facts = remote.facts
    return Subject(
        name=ref,
        ref=ref,
        where="hub",
        family=facts.family,
        parameters=facts.parameters,
        size_class=facts.size_class,
        quantization=facts.quantization,
        file=remote.size,
        context=facts.context,
        licence=facts.licence,
        gated=remote.gated,
    )


def _remote(ref: str) -> Subject:
    remote = parse_remote(ref)
    subject = Subject(name=ref, ref=ref, where="remote")
    try:
        facts = remote_facts(remote)
    except PocketLMError as error:
        return replace(subject, notes=(f"its endpoint tells nothing: {error}",))
    title = facts.model if facts.version is None else f"{facts.model}, version {facts.version}"
    return replace(subject, title=title, publisher=facts.publisher, context=facts.context)


def _labels(named: Sequence[tuple[str, str]]) -> list[str]:
    """The names, or the refs where two models have one name."""
    counts = Counter(name for name, _ in named)
    return [ref if counts[name] > 1 else name for name, ref in named]


def _sized(
    subject: Subject,
    found: _Found,
    types: Sequence[str],
    device: Device,
    context: int,
    kv: KvType,
    threads: int | None,
) -> Subject:
    """With sizes in all types, where its architecture is known and one that PocketLM runs."""
    source = found.path or found.entry or found.remote
    if source is None:
        return subject
    notes = subject.notes
    try:
        model = planned(source)
    except UnsupportedError as error:
        return replace(subject, notes=(*notes, f"its sizes are not known: {error.message}"))
    config = model.spec.config
    own = config.context
    if found.remote is not None:
        subject = replace(
            subject, layers=config.layers, hidden=config.hidden, vocabulary=config.vocab
        )
    if own < context:
        notes += (f"its context is {own:,} tokens, so its memory is for as many",)
    rows = sizes(model, types, device, context=min(context, own), kv=kv, threads=threads)
    if any(row.requantized for row in rows):
        notes += (f"{model.own_type} is quantized already: other types would be made of it",)
    return replace(subject, sizes=rows, notes=notes)


def _measure(
    subject: Subject,
    path: Path,
    text: Path | None,
    kv: KvType,
    threads: int | None,
    progress: ProgressCallback,
) -> Subject:
    try:
        figures = measured(
            path,
            text,
            context=subject.context or DEFAULT_CONTEXT,
            kv=kv,
            threads=threads,
            progress=progress,
        )
    except RequestError:
        raise  # the text is at fault, not the model
    except PocketLMError as error:
        return replace(subject, notes=(*subject.notes, f"it could not be measured: {error}"))
    return replace(subject, measured=figures)
