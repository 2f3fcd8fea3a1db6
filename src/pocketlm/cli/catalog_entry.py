"""What the catalog says of a model, for people: ``show`` of one that is not here, and of one that
is."""

from __future__ import annotations

from collections.abc import Iterator

from pocketlm.catalog import CatalogEntry, size_class, tables
from pocketlm.catalog.entry import Shape
from pocketlm.size_classes import claimed, other_view

Line = tuple[str, str]


def parameters_text(parameters: int, *names: str) -> str:
    """A count with its class; what else is said where a name, or the field, sees it otherwise."""
    own = size_class(parameters)
    outside = "outside the classes Micro, Small and Medium"
    text = f"{parameters:,} ({outside if own == 'outside' else own})"
    for name in names:
        said = claimed(name)
        if said is not None and size_class(said) != own:
            text += f"; {name} sounds like {size_class(said)}"
            break
    view = other_view(parameters)
    return text if view is None else f"{text}; {view}"


def entry_lines(entry: CatalogEntry) -> Iterator[Line]:
    """All facts of a model of the catalog."""
    if entry.title:
        yield "title", f"{entry.title}, {entry.publisher}" if entry.publisher else entry.title
    yield "parameters", parameters_text(entry.parameters, str(entry), entry.ref)
    if entry.non_embedding is not None:
        yield "", f"{entry.non_embedding:,} outside of the embedding"
    if entry.listed is not None:
        yield "", f"{entry.listed:,} as the hub lists it"
    yield "context", f"{entry.context:,} tokens"
    yield "licence", entry.licence + (" (gated: it wants an account)" if entry.gated else "")
    if entry.shape is not None:
        yield "architecture", shape_text(entry.shape)
    yield from described(entry)
    for i, weights in enumerate(entry.weights):
        whose = "" if weights.official else ", by others"
        yield "weights" if i == 0 else "", f"{weights.ref} ({weights.quantization}{whose})"
    for i, (fact, source) in enumerate(entry.sources.items()):
        yield "sources" if i == 0 else "", f"{fact}: {source}"


def described(entry: CatalogEntry) -> Iterator[Line]:
    """What only the catalog knows, and no file of the model says."""
    if entry.released is not None:
        yield "released", entry.released.isoformat()
    if entry.languages:
        more = f" ({entry.language_count} claimed)" if entry.language_count else ""
        yield "languages", ", ".join(entry.languages) + more
    if entry.uses:
        yield "uses", ", ".join(entry.uses)
    if entry.collections:
        yield "collections", ", ".join(entry.collections)
    if entry.base:
        yield "kind", "base model: it continues text and follows no instructions"
    if entry.note:
        yield "note", entry.note
    names = list(dict.fromkeys(score.table for score in entry.scores))
    for i, name in enumerate(names):
        scores = [one for one in entry.scores if one.table == name]
        values = ", ".join(f"{one.benchmark} {one.value:g}" for one in scores)
        table = tables()[name]
        mode = "" if table.mode is None else f", {table.mode}"
        yield "scores" if i == 0 else "", f"{values} ({name}, measured by {table.evaluator}{mode})"


def shape_text(shape: Shape) -> str:
    """An architecture in a line."""
    window = ""
    if shape.window is not None:
        window = f", windows of {shape.window:,} in all but each {shape.full_every}th layer"
    return (
        f"{shape.family}: {shape.layers} layers, width {shape.hidden:,}, {shape.heads} heads of "
        f"{shape.head_dim} ({shape.kv_heads} for keys and values), feed-forward {shape.ffn:,}, "
        f"vocabulary {shape.vocab:,}{' (tied)' if shape.tied else ''}"
        f"{window}"
    )
