"""``verify``: reads every byte of the store again and says what is wrong and what to do about it.

Problems are files that are missing or altered. Leftovers are no problem: unfinished downloads and
bytes that no model uses, which a process that was killed leaves behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pocketlm.errors import IntegrityError, ModelFileError
from pocketlm.progress import Progress, ProgressCallback
from pocketlm.store.blobs import Blobs
from pocketlm.store.files import files_below, hash_file
from pocketlm.store.locks import locked_if_free
from pocketlm.store.manifest import FileRecord, Manifest, read_manifest
from pocketlm.store.shelf import Shelf


@dataclass(frozen=True)
class Finding:
    """One thing that ``verify`` has to say.

    Attributes:
        kind: missing, altered, unreadable (problems); unfinished, unused (leftovers).
        what: one sentence with the numbers.
        advice: what to do, as a command where there is one.
    """

    kind: str
    what: str
    path: Path
    advice: str


@dataclass(frozen=True)
class Report:
    """What ``verify`` found. ``checked`` counts the files that were read."""

    checked: int
    problems: tuple[Finding, ...]
    leftovers: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def raise_if_broken(self) -> None:
        """Raises IntegrityError with the first problem and the count of the others."""
        if self.problems:
            first, others = self.problems[0], len(self.problems) - 1
            more = f", and {others} more" if others else ""
            raise IntegrityError(f"{first.what}{more}", path=first.path, hint=first.advice)


def check(
    blobs: Blobs,
    manifests: Mapping[Path, Manifest | ModelFileError],
    progress: ProgressCallback,
) -> tuple[int, tuple[Finding, ...]]:
    """Reads every file of these manifests; the count of files read and the problems."""
    problems: list[Finding] = []
    hashes: dict[str, str | OSError] = {}  # a blob that two models share is read once
    checked = 0
    for path, manifest in manifests.items():
        if isinstance(manifest, ModelFileError):
            hint = manifest.hint or "Remove it and pull the model again."
            problems.append(Finding("unreadable", manifest.message, path, hint))
            continue
        for file in manifest.files:
            checked += 1
            finding = _check_file(blobs, manifest, file, hashes, progress)
            if finding is not None and _is_still(path, manifest):
                problems.append(finding)
    return checked, tuple(problems)


def _is_still(path: Path, manifest: Manifest) -> bool:
    """Whether no other process has removed or replaced the model while it was read."""
    try:
        return read_manifest(path) == manifest
    except (FileNotFoundError, ModelFileError):
        return False


def _check_file(
    blobs: Blobs,
    manifest: Manifest,
    file: FileRecord,
    hashes: dict[str, str | OSError],
    progress: ProgressCallback,
) -> Finding | None:
    path = Path(file.reference.path) if file.reference else blobs.path(file.sha256)
    key = str(path)
    if key not in hashes:
        hashes[key] = _hash(path, _reporter(progress, f"check {file.name}", file.size))
    found = hashes[key]
    where = f"{file.name} of {manifest.name}"
    if isinstance(found, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return Finding("missing", f"{where} is missing", path, advice(manifest, file))
    if isinstance(found, OSError):
        what = f"{where} cannot be read: {found.strerror}"
        return Finding("unreadable", what, path, advice(manifest, file))
    if found != file.sha256:
        what = f"{where} is altered: its SHA-256 is {found}, {file.sha256} was stored"
        return Finding("altered", what, path, advice(manifest, file))
    return None


def advice(manifest: Manifest, file: FileRecord) -> str:
    """What to do about a file of a model that is missing or altered."""
    if file.reference is not None:
        return f"Put the file back as it was, or 'pocketlm rm {manifest.name}' and import it again."
    if manifest.source.url is None:
        return f"Import it again after 'pocketlm rm {manifest.name}'."
    return f"Run 'pocketlm pull {manifest.name}': it fetches what is missing or damaged."


def _hash(path: Path, report: Callable[[int], None]) -> str | OSError:
    try:
        return hash_file(path, report)
    except OSError as error:
        return error


def _reporter(progress: ProgressCallback, task: str, total: int) -> Callable[[int], None]:
    return lambda done: progress(Progress(task, done, total))


def leftovers(shelf: Shelf) -> Iterator[Finding]:
    """What lies in the store and belongs to no model."""
    clean = "'pocketlm rm --unused' removes it."
    for path in files_below(shelf.partial):
        if not path.name.endswith((".json", ".tmp")):
            what = f"an unfinished download of {_size(path):,} bytes"
            yield Finding("unfinished", what, path, f"Pull the model again to go on; {clean}")
    manifests = [m for m in shelf.read_all().values() if isinstance(m, Manifest)]
    stored = [f for manifest in manifests for f in manifest.files if f.reference is None]
    used = {file.sha256 for file in stored}
    for sha256 in shelf.blobs:
        if sha256 not in used:
            what = f"{shelf.blobs.size(sha256) or 0:,} bytes that no model uses"
            yield Finding("unused", what, shelf.blobs.path(sha256), clean)
    linked = shelf.links()
    for path in files_below(shelf.models):
        if path not in linked:
            yield Finding("unused", "a name that no model accounts for", path, clean)
    for folder in (shelf.blobs.folder, shelf.manifests, shelf.partial):
        for path in files_below(folder):
            if path.name.endswith(".tmp"):
                yield Finding("unused", "a file that was not finished", path, clean)


def remove_leftovers(shelf: Shelf) -> int:
    """Removes leftovers that no process is at; returns bytes. The caller holds the store's lock."""
    freed = 0
    for finding in list(leftovers(shelf)):
        with locked_if_free(shelf.locks, _key(finding.path)) as free:
            if free:
                freed += _size(finding.path)
                finding.path.unlink(missing_ok=True)
    for note in files_below(shelf.partial):
        with locked_if_free(shelf.locks, _key(note)) as free:
            if free and note.suffix == ".json" and not note.with_suffix("").exists():
                note.unlink(missing_ok=True)
    return freed


def _key(path: Path) -> str:
    """The lock under which a file of ``partial/`` is written: KEY, KEY.json, .KEY.json.tmp and
    unpack-KEY have one."""
    name = path.name.removeprefix(".").removeprefix("unpack-")
    return name.removesuffix(".tmp").removesuffix(".json")


def _size(path: Path) -> int:
    """Bytes that removing a file frees: none where it has other names, or is gone already."""
    try:
        stat = path.lstat()
    except FileNotFoundError:
        return 0
    return stat.st_size if stat.st_nlink == 1 else 0
