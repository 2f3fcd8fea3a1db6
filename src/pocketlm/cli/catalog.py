"""``pocketlm catalog``: the models that PocketLM knows by name, and catalogs of one's own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pocketlm.cli.output import AsJson
from pocketlm.errors import IntegrityError, NotFoundError, RequestError, SourceError

if TYPE_CHECKING:
    from pocketlm.catalog import CatalogEntry


def catalog(
    action: Annotated[
        Literal["list", "add", "remove", "own"], typer.Argument(help="Default: list.")
    ] = "list",
    what: Annotated[
        str | None,
        typer.Argument(help="add: a TOML file or its URL; remove: the name of a catalog."),
    ] = None,
    size_class: Annotated[
        str | None, typer.Option("--class", help="Micro, Small or Medium.")
    ] = None,
    collection: Annotated[str | None, typer.Option(help="As multilingual, code, mobile.")] = None,
    licence: Annotated[str | None, typer.Option("--license", help="As apache-2.0.")] = None,
    language: Annotated[str | None, typer.Option(help="A BCP 47 code, as es.")] = None,
    runs: Annotated[bool, typer.Option("--runs", help="Only what PocketLM itself runs.")] = False,
    name: Annotated[
        str | None, typer.Option(help="add: of the catalog; default: the file's.")
    ] = None,
    sha256: Annotated[str | None, typer.Option(help="add: of the file; a URL needs it.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the models known by name; keep catalogs of your own."""
    from pocketlm.cli.output import write_json

    if action != "add" and (name is not None or sha256 is not None):
        raise RequestError("--name and --sha256 are for 'pocketlm catalog add'")
    if action in ("list", "own") and what is not None:
        raise RequestError(
            f"'pocketlm catalog {action}' takes no name",
            hint=f"'pocketlm show {what}' tells of one model.",
        )
    if action == "list":
        _list(_filtered(size_class, collection, licence, language, runs), as_json)
        return
    if any((size_class, collection, licence, language, runs)):
        raise RequestError("--class, --collection, --license, --language and --runs are for 'list'")
    if action == "own":
        _own(as_json)
        return
    if what is None:
        raise RequestError(f"'pocketlm catalog {action}' needs a {_NEEDS[action]}")
    said = _add(what, name, sha256) if action == "add" else _remove(what)
    if as_json:
        write_json(said)
    elif action == "add":
        print(f"Added the catalog {said['name']}: {said['models']} models.")
    else:
        print(f"Removed the catalog {said['name']}.")


_NEEDS = {"add": "file or URL", "remove": "name"}


def _filtered(
    size_class: str | None,
    collection: str | None,
    licence: str | None,
    language: str | None,
    runs: bool,
) -> list[CatalogEntry]:
    """The entries that fit all that is given. Raises NotFoundError for a word that none has."""
    from pocketlm import catalog as known

    entries = list(known.entries())
    if size_class is not None:
        names = {one.lower(): one for one in known.classes()}
        wanted = _among(size_class, names, "class")
        entries = [e for e in entries if known.size_class(e.parameters) == names[wanted]]
    if collection is not None:
        wanted = _among(collection, known.collections(), "collection")
        entries = [e for e in entries if wanted in e.collections]
    if licence is not None:
        wanted = _among(licence, {e.licence.lower() for e in known.entries()}, "licence")
        entries = [e for e in entries if e.licence.lower() == wanted]
    if language is not None:
        codes = {code for e in known.entries() for code in e.languages}
        wanted = _among(language, codes, "language")
        entries = [e for e in entries if wanted in e.languages]
    return [e for e in entries if _runs(e)] if runs else entries


def _among(word: str, known: object, what: str) -> str:
    from difflib import get_close_matches

    names = sorted(known)  # type: ignore[call-overload]
    if word.lower() in names:
        return word.lower()
    close = get_close_matches(word.lower(), names, n=3) or names[:12]
    raise NotFoundError(
        f"the catalog has no {what} '{word}'", hint=f"It has, among others: {', '.join(close)}."
    )


def _runs(entry: CatalogEntry) -> bool:
    from pocketlm.models.families import FAMILIES

    return entry.shape is not None and entry.shape.family in {one.name for one in FAMILIES}


def _list(entries: Sequence[CatalogEntry], as_json: bool) -> None:
    from pocketlm.catalog import size_class
    from pocketlm.cli.output import count_text, write_json, write_table
    from pocketlm.store import Store

    here = {model.name for model in Store().list()}
    if as_json:
        write_json(
            [
                {
                    **entry.model_dump(mode="json"),
                    "class": size_class(entry.parameters),
                    "runs": _runs(entry),
                    "here": str(entry) in here,
                }
                for entry in entries
            ]
        )
        return
    if not entries:
        print("No model of the catalog fits all of this.")
    rows = [
        (
            str(entry),
            count_text(entry.parameters),
            size_class(entry.parameters),
            f"{entry.context:,}",
            entry.licence,
            entry.publisher or "not said",
            ", ".join(_notes(entry, str(entry) in here)),
        )
        for entry in entries
    ]
    write_table(("NAME", "PARAMETERS", "CLASS", "CONTEXT", "LICENCE", "PUBLISHER", "NOTE"), rows)


def _notes(entry: CatalogEntry, here: bool) -> list[str]:
    words = {
        "here": here,
        "gated": entry.gated,
        "base": entry.base,
        "does not run": not _runs(entry),
        f"of {entry.origin}": bool(entry.origin),
    }
    return [word for word, true in words.items() if true]


def _add(what: str, name: str | None, sha256: str | None) -> dict[str, object]:
    from pocketlm import catalog as known
    from pocketlm.catalog.own import add_catalog
    from pocketlm.store import Store

    store = Store()
    remote = what.startswith(("https://", "http://"))
    if remote and sha256 is None:
        raise RequestError(
            "a catalog from the network needs its SHA-256, else whoever serves it decides what "
            "you run",
            hint="Ask its maker for the hash and give it with --sha256.",
        )
    content = _download(what, store.offline) if remote else _read(Path(what))
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise IntegrityError(f"the catalog's SHA-256 is {found}, expected {sha256.lower()}")
    stem = Path(what.partition("?")[0]).stem.lower()
    made = add_catalog(store.home, name or stem, content, known.shipped())
    return {"name": made.name, "models": len(made.entries), "sha256": found}


def _read(path: Path) -> bytes:
    from pocketlm.catalog.own import MOST_BYTES

    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise NotFoundError(f"the catalog cannot be read: {error.strerror}", path=path) from error
    if len(content) > MOST_BYTES:
        raise RequestError(f"the catalog has more than {MOST_BYTES:,} bytes")
    return content


def _download(url: str, offline: bool) -> bytes:
    from pocketlm.catalog.own import MOST_BYTES
    from pocketlm.store.web import Web

    with Web(offline=offline) as web:
        response, content = web.get(url)
    if response.status_code != 200:
        raise SourceError(f"{url} answers with status {response.status_code}")
    if len(content) > MOST_BYTES:
        raise RequestError(f"the catalog has more than {MOST_BYTES:,} bytes")
    return content


def _remove(name: str) -> dict[str, object]:
    from pocketlm.catalog.own import remove_catalog
    from pocketlm.store import Store

    remove_catalog(Store().home, name)
    return {"name": name}


def _own(as_json: bool) -> None:
    from pocketlm.catalog.own import own_catalogs
    from pocketlm.cli.output import write_json, write_table
    from pocketlm.store import Store

    found = own_catalogs(Store().home)
    if as_json:
        write_json(
            [
                {"name": c.name, "path": str(c.path), "models": len(c.entries), "fault": c.fault}
                for c in found
            ]
        )
        return
    if not found:
        print("There are no catalogs of your own. 'pocketlm catalog add FILE' adds one.")
    rows = [(c.name, str(len(c.entries)), str(c.path), c.fault or "") for c in found]
    write_table(("NAME", "MODELS", "FILE", "FAULT"), rows)
