"""``pocketlm show REF``: what a model is, or where its file lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pocketlm.cli.output import AsJson
from pocketlm.errors import NotFoundError, RequestError

if TYPE_CHECKING:
    from pocketlm.catalog import CatalogEntry
    from pocketlm.store.manifest import Facts, Manifest


def show(
    ref: Annotated[str, typer.Argument(help="A model of the store or the catalog, or a path.")],
    path: Annotated[
        bool, typer.Option("--path", help="Only the path of the weights, for other tools.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a model is: family, size, licence, source, files."""
    from pocketlm.cli.catalog_entry import described
    from pocketlm.cli.output import record, write_json
    from pocketlm.store import Store
    from pocketlm.store.describe import describe_path
    from pocketlm.store.remote_refs import is_remote

    if is_remote(ref):
        from pocketlm.cli.remote import show as show_remote

        if path:
            raise RequestError(f"{ref} runs elsewhere: it has no path here")
        show_remote(ref, as_json=as_json)
        return
    entry = _known(ref)
    try:
        model = Store().resolve(ref)
    except NotFoundError:
        if entry is None or path:
            raise
        _show_entry(entry, as_json)
        return
    if path:
        if as_json:
            write_json({"name": model.name, "path": str(model.path)})
        else:
            print(model.path)
        return
    facts = model.manifest.facts if model.manifest is not None else describe_path(model.path)
    if as_json:
        known = None if entry is None else entry.model_dump(mode="json")
        write_json({**record(model), "facts": facts.model_dump(mode="json"), "catalog": known})
        return
    print(model.name)
    _lines(_about(facts, model.name))
    if entry is not None:
        _lines(list(described(entry)))
    if model.manifest is not None:
        _lines(_kept(model.manifest))
    print(f"  {'path':<13} {model.path}")


def _known(ref: str) -> CatalogEntry | None:
    """What the catalog has under a ref, be it its own name or where it has the model from."""
    from pocketlm import catalog
    from pocketlm.store import parse
    from pocketlm.store.refs import NameRef

    parsed = parse(ref)
    if isinstance(parsed, NameRef):
        return catalog.find(parsed.name, parsed.tag)
    return next((entry for entry in catalog.entries() if entry.ref == ref), None)


def _show_entry(entry: CatalogEntry, as_json: bool) -> None:
    from pocketlm.catalog import size_class
    from pocketlm.cli.catalog_entry import entry_lines
    from pocketlm.cli.output import write_json

    if as_json:
        own = {"class": size_class(entry.parameters), "here": False}
        write_json({**entry.model_dump(mode="json"), **own})
        return
    print(f"{entry} (not here: 'pocketlm pull {entry}' gets it)")
    _lines(list(entry_lines(entry)))


def _about(facts: Facts, name: str) -> list[tuple[str, str]]:
    from pocketlm.cli.catalog_entry import parameters_text

    context = "not said" if facts.context is None else f"{facts.context:,} tokens"
    return [
        ("family", f"{facts.family} ({facts.format})"),
        ("parameters", parameters_text(facts.parameters, name)),
        ("quantization", facts.quantization),
        ("context", context),
        ("licence", facts.licence or "not said"),
    ]


def _kept(manifest: Manifest) -> list[tuple[str, str]]:
    from pocketlm.cli.output import size_text

    found = [("source", manifest.source.ref)]
    if manifest.source.revision:
        found.append(("revision", manifest.source.revision))
    found.append(("stored", f"{manifest.created:%Y-%m-%d %H:%M %Z}"))
    for file in manifest.files:
        where = "" if file.reference is None else f" (referenced: {file.reference.path})"
        found.append((file.role, f"{file.name}, {size_text(file.size)}{where}"))
        found.append(("", f"sha256 {file.sha256}"))
    return found


def _lines(pairs: list[tuple[str, str]]) -> None:
    from pocketlm.cli.output import harmless

    for name, value in pairs:
        print(f"  {name:<13} {harmless(value)}")
