"""Catalogs of users and companies: TOML files in the ``catalogs`` folder of the home.

They come behind the one that ships with PocketLM and cannot replace its models. A file that cannot
be read is named in a warning and left out, so that one fault does not take the others away.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pocketlm.catalog.entry import CatalogEntry, read_entries
from pocketlm.errors import ModelFileError, NotFoundError, RequestError
from pocketlm.files import save

MOST_BYTES = 8 << 20
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OwnCatalog:
    """One such file: its models, or what is wrong with it."""

    name: str
    path: Path
    entries: tuple[CatalogEntry, ...]
    fault: str | None


def own_catalogs(home: Path) -> Sequence[OwnCatalog]:
    """Those of a home, by name."""
    found = []
    for path in sorted((home / "catalogs").glob("*.toml")):
        try:
            facts = path.stat()
        except OSError:
            continue  # removed meanwhile
        found.append(_read(path, facts.st_mtime_ns, facts.st_size))
    return found


@lru_cache(maxsize=64)
def _read(path: Path, changed: int, size: int) -> OwnCatalog:
    try:
        if size > MOST_BYTES:
            raise ModelFileError(f"the catalog has {size:,} bytes, at most {MOST_BYTES:,} can be")
        entries = read_entries(path.read_text("utf-8"), origin=path.stem)
    except (ModelFileError, OSError, UnicodeDecodeError) as error:
        _log.warning("the catalog %s is left out: %s", path, error)
        return OwnCatalog(path.stem, path, (), str(error))
    return OwnCatalog(path.stem, path, entries, None)


def merged(shipped: Sequence[CatalogEntry], own: Sequence[OwnCatalog]) -> dict[str, CatalogEntry]:
    """All entries by ``NAME:TAG``. What ships wins, then the first catalog by name; what is left
    out by that is said."""
    found = {str(entry): entry for entry in shipped}
    for catalog in own:
        for entry in catalog.entries:
            other = found.setdefault(str(entry), entry)
            if other is not entry:
                _say_hidden(catalog.path, str(entry), other.origin or "PocketLM")
    return found


@lru_cache(maxsize=256)
def _say_hidden(path: Path, name: str, other: str) -> None:
    """Once for each."""
    _log.warning("%s of the catalog %s is left out: that of %s has the name", name, path, other)


def add_catalog(
    home: Path, name: str, content: bytes, shipped: Sequence[CatalogEntry]
) -> OwnCatalog:
    """Keeps a catalog under a name, in place of an earlier one of that name.

    Raises RequestError for a name that cannot be a file's and for models that ship with PocketLM,
    ModelFileError for a faulty catalog.
    """
    path = _path(home, name)
    try:
        entries = read_entries(content.decode("utf-8"), origin=name)
    except UnicodeDecodeError as error:
        raise ModelFileError(f"the catalog {name} is not UTF-8: {error}") from error
    except ModelFileError as error:
        raise ModelFileError(f"the catalog {name} cannot be kept: {error}") from error
    taken = {str(entry) for entry in shipped} & {str(entry) for entry in entries}
    if taken:
        raise RequestError(
            f"{min(taken)} is in the catalog that ships with PocketLM",
            hint="A catalog of yours cannot replace it: give the model another tag.",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, content)
    return OwnCatalog(name, path, entries, None)


def remove_catalog(home: Path, name: str) -> None:
    """Raises NotFoundError where there is none of that name."""
    try:
        _path(home, name).unlink()
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no catalog of yours named '{name}'") from error


def _path(home: Path, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise RequestError(
            f"'{name}' cannot name a catalog (lower-case letters, digits, '_' and '-')"
        )
    return home / "catalogs" / f"{name}.toml"
