"""The store: how a ref becomes a model on this disk. The one door to this floor.

``pull`` goes from the ref to its source, from the source to blobs, from the blobs to facts, and
ends with a manifest on the shelf. ``resolve`` only looks. Everything else keeps the shelf in order.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pocketlm.errors import CapacityError, IntegrityError, NotFoundError, RequestError
from pocketlm.progress import Progress, ProgressCallback, silent
from pocketlm.settings import Settings
from pocketlm.store import checking, refs
from pocketlm.store.checking import Report
from pocketlm.store.files import disk_errors
from pocketlm.store.locks import locked
from pocketlm.store.manifest import FileRecord, Manifest, Source
from pocketlm.store.refs import HubRef, NameRef, OllamaRef, PackageRef, PathRef, StoredRef
from pocketlm.store.setup import Setup, setup
from pocketlm.store.shelf import Removed, Shelf, StoredModel

if TYPE_CHECKING:
    from pocketlm.store.creating import Additions, Base
    from pocketlm.store.download import Patience
    from pocketlm.store.egress import Egress
    from pocketlm.store.push import Pushed
    from pocketlm.store.sources.base import Found, Intake, Pin

_COMMIT_TRIES = 3


@dataclass(frozen=True)
class _Wanted:
    """What a pull is to bring: under which name, from which source, and what is promised of it."""

    name: StoredRef
    source: HubRef | OllamaRef | PackageRef
    pin: Pin


class Store:
    """The models below one folder. Any number of processes and threads may use the same folder.

    Args:
        home: the folder; the one of ``Settings`` if None.
        offline: never use the network; as ``Settings`` says if None.
        patience: with broken connections; None is the usual one.
        egress: where pulls may go; None is anywhere, for a user's own.
    """

    def __init__(
        self,
        home: Path | None = None,
        *,
        offline: bool | None = None,
        patience: Patience | None = None,
        egress: Egress | None = None,
    ) -> None:
        settings = Settings.from_environment()
        self.home = home or settings.home
        self.offline = settings.offline if offline is None else offline
        self.patience = patience
        self.egress = egress
        self.shelf = Shelf(self.home)

    # Looking

    def list(self) -> Sequence[StoredModel]:
        """Every model, by name. A manifest that cannot be read is left to ``verify``."""
        manifests = self.shelf.read_all().values()
        found = [self.shelf.opened(m) for m in manifests if isinstance(m, Manifest)]
        return sorted(found, key=lambda model: model.name)

    def resolve(
        self, ref: str, *, pull: bool = False, progress: ProgressCallback = silent
    ) -> StoredModel:
        """The model that ``ref`` names; pulled first if it is not here and ``pull`` is set.

        A path resolves to itself. Raises NotFoundError, with names that are close, RequestError for
        what is no ref, IntegrityError where a file of the model is gone or has another size, or is
        the user's own and has been altered.
        """
        parsed = refs.parse(ref)
        if isinstance(parsed, PathRef):
            if not parsed.path.exists():
                raise NotFoundError(f"there is no file or folder {parsed.path}")
            return StoredModel(str(parsed), parsed.path, None)
        name = self._with_tag(parsed)
        manifest = self.shelf.manifest(name)
        if manifest is None:
            if pull:
                return self.pull(ref, progress)
            raise self._not_found(name)
        for file in manifest.files:
            self._require(manifest, file)
        manifest = self._touched(manifest, progress)
        self.shelf.link(manifest)
        return self.shelf.opened(manifest)

    def setup(self, model: StoredModel) -> Setup:
        """How a model is to be run: what its maker put beside the weights."""
        return setup(self.shelf, model)

    def _require(self, manifest: Manifest, file: FileRecord) -> None:
        """Raises IntegrityError where a file is not there in its size."""
        path = self.shelf.file_path(file)
        size = path.stat().st_size if path.is_file() else None
        if size != file.size:
            what = "is not there any more" if size is None else f"has {size:,} bytes now"
            raise IntegrityError(
                f"{file.name} of {manifest.name} {what} ({file.size:,} when it was stored)",
                path=path,
                hint=checking.advice(manifest, file),
            )

    def _touched(self, manifest: Manifest, progress: ProgressCallback) -> Manifest:
        """Reads again what the user's own files have become where their time has changed.

        The new time of unaltered ones is remembered, so that they are read once.
        """
        files = tuple(self._reread(manifest, file, progress) for file in manifest.files)
        if files == manifest.files:
            return manifest
        renewed = manifest.model_copy(update={"files": files})
        with suppress(OSError, CapacityError):  # a store may be read-only
            self.shelf.put(renewed)
        return renewed

    def _reread(
        self, manifest: Manifest, file: FileRecord, progress: ProgressCallback
    ) -> FileRecord:
        if file.reference is None:
            return file
        path = Path(file.reference.path)
        if path.stat().st_mtime_ns == file.reference.mtime_ns:
            return file
        from pocketlm.store import importing

        now = importing.refer(importing.Given(path, file.role), progress)
        if now.sha256 != file.sha256:
            raise IntegrityError(
                f"{file.name} of {manifest.name} has been altered since it was imported",
                path=path,
                hint=checking.advice(manifest, file),
            )
        return now

    # Getting

    def pull(self, ref: str, progress: ProgressCallback = silent) -> StoredModel:
        """Brings a model into the store, or makes sure that it is there and whole.

        Raises NotFoundError, SourceError (the network), IntegrityError (not the bytes promised),
        ModelFileError (they are no model) and CapacityError (the disk).
        """
        from pocketlm.store.download import Patience
        from pocketlm.store.sources.base import Intake
        from pocketlm.store.web import Web

        parsed = refs.parse(ref)
        if isinstance(parsed, PathRef):
            raise RequestError(
                f"{parsed.path} is a file, there is nothing to pull",
                hint=f"'pocketlm import {parsed.path}' gives it a name in the store.",
            )
        wanted = self._wanted(self._with_tag(parsed))
        shelf = self.shelf
        with (
            disk_errors(self.home, f"the pull of {wanted.name}"),
            self._naming(wanted.name, progress),
            Web(offline=self.offline, egress=self.egress) as web,
        ):
            there = shelf.readable(wanted.name)
            patience = self.patience or Patience()
            intake = Intake(shelf.blobs, shelf.partial, shelf.locks, web, progress, patience)
            if there is not None and _is_pinned(wanted) and _is_whole(there, intake):
                shelf.link(there)
                return shelf.opened(there)
            for _ in range(_COMMIT_TRIES):
                found = _fetch(wanted, intake)
                manifest = self._describe(wanted, found)
                if manifest is not None and shelf.put(manifest):
                    intake.clean()
                    return shelf.opened(manifest)
        raise IntegrityError(f"blobs of {wanted.name} vanish as fast as they are stored")

    def _wanted(self, name: StoredRef) -> _Wanted:
        """Where a name is to be had: the ref itself, the catalog, or where it came from before."""
        from pocketlm import catalog
        from pocketlm.store.sources.base import Pin

        if not isinstance(name, NameRef):
            return _Wanted(name, name, Pin())
        entry = catalog.find(name.name, name.tag)
        if entry is not None:
            source = refs.parse(entry.ref)
            if isinstance(source, HubRef | PackageRef) and entry.file is not None:
                source = replace(source, file=entry.file)
            assert not isinstance(source, PathRef | NameRef), "the catalog's refs name sources"
            return _Wanted(name, source, Pin(entry.sha256, entry.size, entry.licence))
        manifest = self.shelf.manifest(name)
        if manifest is None:
            raise self._not_found(name)
        if manifest.source.base is not None:
            raise RequestError(f"{name} was created here: there is nothing to pull")
        source = refs.parse(manifest.source.ref)
        if isinstance(source, PathRef | NameRef):
            raise RequestError(
                f"{name} was imported from {source}: there is nothing to pull",
                hint=f"To check it run 'pocketlm verify {name}'.",
            )
        return _Wanted(name, source, Pin())

    def _describe(self, wanted: _Wanted, found: Found) -> Manifest | None:
        """The manifest of what was found; None where another process has removed a blob since."""
        from pocketlm.store.describe import describe

        try:
            facts = describe([(f, self.shelf.blobs.path(f.sha256)) for f in found.files])
        except (NotFoundError, FileNotFoundError):
            if all(self.shelf.blobs.size(file.sha256) is not None for file in found.files):
                raise
            return None
        licence = wanted.pin.licence or found.licence or facts.licence
        return Manifest(
            name=str(wanted.name),
            created=_now(),
            source=found.source,
            facts=facts.model_copy(update={"licence": licence}),
            files=found.files,
        )

    def import_path(
        self,
        path: Path,
        name: str | None = None,
        *,
        copy: bool = False,
        progress: ProgressCallback = silent,
    ) -> StoredModel:
        """Gives a GGUF file, or a folder of safetensors, of the user's a name.

        The files are referenced where they are, unless ``copy``. Raises ModelFileError for files
        that are no model, RequestError where the name is taken.
        """
        from pocketlm.store import importing
        from pocketlm.store.describe import describe

        given = importing.model_files(path.expanduser().absolute())
        stored = self._new_name(name or importing.suggested_name(path))
        shelf = self.shelf
        with self._naming(stored, progress):
            records = tuple(
                importing.copy_in(one, shelf.blobs, shelf.partial, shelf.locks, progress)
                if copy
                else importing.refer(one, progress)
                for one in given
            )
            manifest = Manifest(
                name=str(stored),
                created=_now(),
                source=Source(ref=str(given[0].path)),
                facts=describe([(r, g.path) for r, g in zip(records, given, strict=True)]),
                files=records,
            )
            if not shelf.put(manifest):
                raise IntegrityError(f"the copy of {path.name} was removed while it was made")
        return shelf.opened(manifest)

    def push(
        self, ref: str, target: str | None = None, progress: ProgressCallback = silent
    ) -> Pushed:
        """Puts a model onto a registry, under the name ``target``, else under its own.

        Raises NotFoundError, RequestError for a target that is of no registry, and what
        ``pocketlm.store.push`` does.
        """
        from pocketlm.store.push import push
        from pocketlm.store.web import Web

        model = self.resolve(ref)
        where = refs.parse(target or ref)
        if not isinstance(where, OllamaRef):
            raise RequestError(
                f"'{target or ref}' names no registry",
                hint="Name a target: ollama:HOST/NAMESPACE/NAME:TAG.",
            )
        with Web(offline=self.offline, egress=self.egress) as web:
            return push(self.shelf, model, where, web, progress)

    # Keeping order

    def create(self, name: NameRef, base: Base, additions: Additions) -> StoredModel:
        """Keeps a model made of another one; see ``pocketlm.store.creating.create``."""
        from pocketlm.store.creating import create

        return create(self.shelf, name, base, additions)

    def copy(self, source: str, target: str) -> StoredModel:
        """Gives a model a second name; no bytes are copied."""
        name = self._stored(source)
        found = self.shelf.manifest(name)
        if found is None:
            raise self._not_found(name)
        manifest = found.model_copy(update={"name": str(self._new_name(target))})
        if not self.shelf.put(manifest):
            if not self.shelf.has(name):  # another process has just removed it
                raise self._not_found(name)
            raise IntegrityError(
                f"files of {source} are missing", hint=f"Run 'pocketlm verify {source}'."
            )
        return self.shelf.opened(manifest)

    def remove(self, ref: str) -> Removed:
        """Removes a model and the blobs that no other uses. Referenced files are not touched."""
        name = self._stored(ref)
        removed = self.shelf.remove(name)
        if removed is None:
            raise self._not_found(name)
        return removed

    def verify(self, ref: str | None = None, progress: ProgressCallback = silent) -> Report:
        """Reads every byte of one model, or of all, again. Does not raise for what it finds."""
        shelf = self.shelf
        if ref is not None:
            name = self._stored(ref)
            if not shelf.has(name):
                raise self._not_found(name)
            manifests = shelf.read([shelf.manifest_path(name)])
            return Report(*checking.check(shelf.blobs, manifests, progress), ())
        checked, problems = checking.check(shelf.blobs, shelf.read_all(), progress)
        return Report(checked, problems, tuple(checking.leftovers(shelf)))

    def remove_unused(self) -> int:
        """Removes unfinished downloads that no process is at, and what no model uses; bytes.

        Raises ModelFileError where a manifest cannot be read: the blobs it names must not go.
        """
        with disk_errors(self.home, "the removal"), locked(self.shelf.locks, "store"):
            self.shelf.used_blobs()
            return checking.remove_leftovers(self.shelf)

    # Names

    def _naming(self, name: StoredRef, progress: ProgressCallback) -> AbstractContextManager[None]:
        """The lock under which a name gets its content."""

        def waiting() -> None:
            progress(Progress(f"wait for another process that pulls {name}", 0))

        return locked(self.shelf.locks, f"model {name.folder.as_posix()}", waiting=waiting)

    def _stored(self, ref: str) -> StoredRef:
        """A ref that must be a name of the store."""
        parsed = refs.parse(ref)
        if isinstance(parsed, PathRef):
            raise RequestError(
                f"'{ref}' is a path, not a model of the store",
                hint=f"'pocketlm import {ref}' gives it a name.",
            )
        return self._with_tag(parsed)

    def _new_name(self, text: str) -> NameRef:
        """A name that is not taken yet. Raises RequestError where it is."""
        name = refs.parse_name(text)
        name = NameRef(name.name, name.tag or "latest")
        if self.shelf.has(name):
            raise RequestError(
                f"there is a model {name} already",
                hint=f"Choose another name, or 'pocketlm rm {name}' first.",
            )
        return name

    def full_name(self, ref: str) -> str:
        """The name, with its tag, that ``ref`` stands for, whether that is here or not.

        Raises RequestError for what is no name, NotFoundError where several models could be meant.
        """
        return str(self._stored(ref))

    def _with_tag(self, ref: StoredRef) -> StoredRef:
        """The name with the tag that is meant where none is given: ``latest`` if there is one here,
        the catalog's default, or the only one here."""
        if not isinstance(ref, NameRef) or ref.tag is not None:
            return ref
        latest = NameRef(ref.name, "latest")
        if self.shelf.has(latest):
            return latest
        from pocketlm import catalog

        entry = catalog.find(ref.name, None)
        if entry is not None:
            return NameRef(entry.name, entry.tag)
        tags = self.shelf.tags(ref.name)
        return NameRef(ref.name, tags[0]) if len(tags) == 1 else latest

    def _not_found(self, name: StoredRef) -> NotFoundError:
        from pocketlm import catalog

        known = catalog.names()
        if not isinstance(name, NameRef) or str(name) in known:
            return NotFoundError(
                f"{name} is not in the store {self.home}",
                hint=f"Get it with 'pocketlm pull {name}'.",
            )
        if Path(name.name).exists():
            return NotFoundError(
                f"there is no model {name}", hint=f"The path is written './{name.name}'."
            )
        every = list(dict.fromkeys([*(model.name for model in self.list()), *known]))
        close = [one for one in every if one.partition(":")[0] == name.name]
        others = [one for one in every if one not in close]
        close += difflib.get_close_matches(str(name), others, n=3, cutoff=0.5)
        return NotFoundError(
            f"there is no model {name} here or in the catalog",
            hint=f"Close: {', '.join(close[:8])}."
            if close
            else "'pocketlm list' shows what is here.",
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


def _is_whole(manifest: Manifest, intake: Intake) -> bool:
    """Whether every blob is there with the right bytes; damaged ones are removed."""
    whole = [intake.existing(file.sha256, file.name) is not None for file in manifest.files]
    return all(whole)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
