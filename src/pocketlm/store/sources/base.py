"""What every source shares: what it is told, what it hands back, and the intake it works through.

A source is one function ``fetch(ref, pin, intake) -> Found``. It says which bytes make up the
model; the intake gets them, checks them and turns them into blobs.
"""

from __future__ import annotations

import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pocketlm.errors import IntegrityError, SourceError
from pocketlm.progress import Progress, ProgressCallback
from pocketlm.store import files
from pocketlm.store.blobs import Blobs
from pocketlm.store.download import Fetched, Patience, Remote, fetch, waiting_for
from pocketlm.store.locks import locked
from pocketlm.store.manifest import FileRecord, Role, Source
from pocketlm.store.web import Web


@dataclass(frozen=True)
class Pin:
    """What the catalog promises of a model's weights; nothing for a ref that is not from there."""

    sha256: str | None = None
    size: int | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Found:
    """A model whose files are all blobs now."""

    source: Source
    files: tuple[FileRecord, ...]
    licence: str | None = None


@dataclass(frozen=True)
class Content:
    """Bytes that are a blob now."""

    sha256: str
    size: int


class Intake:
    """The way into the store, for one pull: downloads, checks, and adopts as blobs.

    Args:
        partial: folder of unfinished downloads; in the file system of the blobs.
        locks: folder of lock files.
    """

    def __init__(
        self,
        blobs: Blobs,
        partial: Path,
        locks: Path,
        web: Web,
        progress: ProgressCallback,
        patience: Patience,
    ) -> None:
        self.blobs, self.partial, self.locks = blobs, partial, locks
        self.web, self.progress, self.patience = web, progress, patience
        self._wrappings: list[Fetched] = []

    def using(self, web: Web) -> Intake:
        """The same intake over other connections."""
        other = Intake(self.blobs, self.partial, self.locks, web, self.progress, self.patience)
        other._wrappings = self._wrappings
        return other

    def file(self, remote: Remote, role: Role) -> FileRecord:
        """Downloads one file of a model as a blob, or takes the blob that is there.

        The record's name is the remote's.
        """
        with locked(self.locks, remote.key, waiting=lambda: waiting_for(remote, self.progress)):
            content = self.existing(remote.sha256, remote.name)
            if content is None:
                fetched = fetch(remote, self.partial, self.web, self.progress, self.patience)
                try:
                    self.blobs.adopt(fetched.path, fetched.sha256, fetched.size)
                finally:
                    fetched.remove()
                content = Content(fetched.sha256, fetched.size)
        return FileRecord(
            name=remote.name, role=role, size=content.size, sha256=content.sha256, url=remote.url
        )

    @contextmanager
    def archive(self, remote: Remote) -> Iterator[Path]:
        """Downloads a file that is only a wrapping, to be removed by ``clean``.

        Not before: a pull that is killed after unpacking must not download again. A ``file:`` URL
        is read where it is and left there.
        """
        if remote.url.startswith("file:"):
            yield self._local(remote)
            return
        with locked(self.locks, remote.key, waiting=lambda: waiting_for(remote, self.progress)):
            fetched = fetch(remote, self.partial, self.web, self.progress, self.patience)
            try:
                yield fetched.path
            except IntegrityError:
                fetched.remove()  # the same bytes would fail again
                raise
            self._wrappings.append(fetched)

    def clean(self) -> None:
        """Removes the wrappings, once the model that came in them is in the store."""
        for fetched in self._wrappings:
            fetched.remove()

    def _local(self, remote: Remote) -> Path:
        path = path_of(remote.url)
        if not path.is_file():
            raise SourceError(f"{remote.name} is not there", path=path)
        if remote.sha256 and (found := files.hash_file(path)) != remote.sha256:
            raise IntegrityError(
                f"{remote.name} has SHA-256 {found}, {remote.sha256} was promised", path=path
            )
        return path

    def assemble(
        self, name: str, chunks: Iterable[bytes], *, key: str, size: int, sha256: str | None
    ) -> Content:
        """Writes ``size`` bytes that come out of archives as one blob.

        ``key`` names the temporary file; the caller holds the lock of that key. Raises
        IntegrityError where size or hash are not as promised.
        """
        files.make_folder(self.partial)
        temporary = self.partial / f"unpack-{key}"
        temporary.unlink(missing_ok=True)  # what a killed pull left takes the new one's space
        files.require_space(self.partial, size, f"unpacking {name}")

        def report(done: int) -> None:
            self.progress(Progress(f"unpack {name}", done, size))

        try:
            found, done = files.write_hashed(temporary, chunks, f"unpacking {name}", report)
            if done != size:
                raise IntegrityError(f"{name} has {done:,} bytes, {size:,} were promised")
            if sha256 is not None and found != sha256:
                raise IntegrityError(f"{name} has SHA-256 {found}, {sha256} was promised")
            self.blobs.adopt(temporary, found, done)
        finally:
            temporary.unlink(missing_ok=True)
        return Content(found, done)

    def existing(self, sha256: str | None, name: str) -> Content | None:
        """The blob of that hash where it is there and whole. It is read through: a blob is never
        trusted for being present, and a damaged one is removed."""
        size = self.blobs.size(sha256) if sha256 else None
        if sha256 is None or size is None:
            return None

        def report(done: int) -> None:
            self.progress(Progress(f"check {name}", done, size, sha256))

        if files.hash_file(self.blobs.path(sha256), report) == sha256:
            return Content(sha256, size)
        self.blobs.remove(sha256)
        return None


def path_of(url: str) -> Path:
    """The path of a ``file:`` URL."""
    parts = urllib.parse.urlsplit(url)
    return Path(urllib.request.url2pathname(parts.path))
