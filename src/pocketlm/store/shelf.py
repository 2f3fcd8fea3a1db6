"""The shelf: which names there are, and the files behind each.

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

from dataclasses import dataclass
from pathlib import Path

from pocketlm.errors import ModelFileError
from pocketlm.store import refs
from pocketlm.store.blobs import Blobs
from pocketlm.store.files import disk_errors, files_below, write_file
from pocketlm.store.locks import locked
from pocketlm.store.manifest import FileRecord, Manifest, read_manifest
from pocketlm.store.refs import PathRef, StoredRef

_MANIFEST = "manifest.json"


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


class Shelf:
    """Names, manifests, links and blobs below one folder, safe between processes."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.blobs = Blobs(home / "blobs")
        self.manifests = home / "manifests"
        self.models = home / "models"
        self.partial = home / "partial"
        self.locks = home / "locks"

    def has(self, name: StoredRef) -> bool:
        return self.manifest_path(name).exists()

    def manifest(self, name: StoredRef) -> Manifest | None:
        """None where there is no such model. Raises ModelFileError for a broken manifest."""
        try:
            return read_manifest(self.manifest_path(name))
        except FileNotFoundError:
            return None

    def readable(self, name: StoredRef) -> Manifest | None:
        """As ``manifest``, but None for one that is broken: a pull writes it anew."""
        path = self.manifest_path(name)
        found = self.read([path]).get(path)
        return found if isinstance(found, Manifest) else None

    def manifest_path(self, name: StoredRef) -> Path:
        return self.manifests / name.folder / _MANIFEST

    def read_all(self) -> dict[Path, Manifest | ModelFileError]:
        """Every manifest, or why it cannot be read."""
        return self.read([p for p in files_below(self.manifests) if p.name == _MANIFEST])

    def read(self, paths: list[Path]) -> dict[Path, Manifest | ModelFileError]:
        """The manifests at these paths, or why they cannot be read."""
        found: dict[Path, Manifest | ModelFileError] = {}
        for path in paths:
            try:
                found[path] = read_manifest(path)
            except ModelFileError as error:
                found[path] = error
            except FileNotFoundError:
                continue  # removed meanwhile
        return found

    def tags(self, name: str) -> list[str]:
        """The tags that a name has here."""
        paths = files_below(self.manifests / name)
        return [path.parent.name for path in paths if path.name == _MANIFEST]

    def opened(self, manifest: Manifest) -> StoredModel:
        """The model, without a look at its files."""
        weights = sorted((f for f in manifest.files if f.role == "weights"), key=lambda f: f.name)
        if weights[0].reference is not None:
            path = Path(weights[0].reference.path)
        else:
            path = self.models / name_of(manifest).folder / weights[0].name
        if manifest.facts.format == "safetensors":
            path = path.parent
        return StoredModel(manifest.name, path, manifest)

    def file_path(self, file: FileRecord) -> Path:
        """Where the bytes of a file are."""
        reference = file.reference
        return self.blobs.path(file.sha256) if reference is None else Path(reference.path)

    def put(self, manifest: Manifest) -> bool:
        """Makes a model known, in the place of one of that name.

        False where a blob of it has been removed since it was stored.
        """
        with locked(self.locks, "store"):
            for file in manifest.files:
                if file.reference is None and self.blobs.size(file.sha256) != file.size:
                    return False
            path = self.manifest_path(name_of(manifest))
            before = self.read([path]).get(path)
            self.link(manifest)
            write_file(path, manifest.to_json())
            if isinstance(before, Manifest):
                self._collect(before)
        return True

    def link(self, manifest: Manifest) -> None:
        """Gives the blobs of a model their plain names, where they do not have them."""
        folder = self.models / name_of(manifest).folder
        missing = [
            file
            for file in manifest.files
            if file.reference is None and not self.blobs.is_linked(file.sha256, folder / file.name)
        ]
        if missing:  # nothing is locked or written where all is in order: a store may be read-only
            with locked(self.locks, "links"):
                for file in missing:
                    self.blobs.link(file.sha256, folder / file.name)

    def remove(self, name: StoredRef) -> Removed | None:
        """Removes a model and the blobs that no other uses; None where there is no such model.

        Referenced files are not touched.
        """
        path = self.manifest_path(name)
        with disk_errors(path, f"the removal of {name}"), locked(self.locks, "store"):
            manifest = self.read([path]).get(path)
            if manifest is None:
                return None
            path.unlink()
            _prune(path.parent, self.manifests)
            if not isinstance(manifest, Manifest):
                return Removed(str(name), 0, 0)  # its blobs are left to remove_unused
            freed = self._collect(manifest)
        stored = {f.sha256: f.size for f in manifest.files if f.reference is None}
        return Removed(str(name), freed, sum(stored.values()) - freed)

    def _collect(self, gone: Manifest) -> int:
        """Unlinks what only ``gone`` used; returns bytes. The caller holds the store's lock."""
        name = name_of(gone)
        now = self.manifest(name)
        staying = {file.name for file in now.files} if now else set()
        for file in gone.files:
            if file.reference is None and file.name not in staying:
                link = self.models / name.folder / file.name
                link.unlink(missing_ok=True)
                _prune(link.parent, self.models)
        mine = {file.sha256 for file in gone.files if file.reference is None}
        try:
            used = self.used_blobs()
        except ModelFileError:
            return 0  # what a broken manifest uses is not known: all blobs stay
        return sum(self.blobs.remove(sha256) for sha256 in mine - used)

    def used_blobs(self) -> set[str]:
        """The SHA-256 of every blob that a manifest names.

        Raises ModelFileError where a manifest cannot be read: what it uses is not known then.
        """
        used: set[str] = set()
        for manifest in self.read_all().values():
            if isinstance(manifest, ModelFileError):
                raise manifest
            used |= {file.sha256 for file in manifest.files if file.reference is None}
        return used

    def links(self) -> set[Path]:
        """Every path below ``models/`` that a manifest accounts for."""
        return {
            self.models / name_of(manifest).folder / file.name
            for manifest in self.read_all().values()
            if isinstance(manifest, Manifest)
            for file in manifest.files
            if file.reference is None
        }


def name_of(manifest: Manifest) -> StoredRef:
    """The name of a manifest as a ref. Raises ModelFileError where it is none."""
    parsed = refs.parse(manifest.name)
    if isinstance(parsed, PathRef):
        raise ModelFileError(f"a manifest is named '{manifest.name}', which is a path")
    return parsed


def _prune(folder: Path, top: Path) -> None:
    """Removes empty folders from ``folder`` up to but without ``top``."""
    while folder != top and top in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
