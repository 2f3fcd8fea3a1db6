"""One resumable, verified download, used by every source.

A download lives in two files of ``partial/``: ``KEY`` holds the bytes so far, ``KEY.json`` says
what they are (url, etag, size, hash). It goes on with a range request, guarded by If-Range, however
the process before it ended; the hash is taken over the whole file, so what was there before is
read again. Nothing but a file whose size and hash are right is handed on.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pocketlm.errors import IntegrityError, SourceError
from pocketlm.files import created, write_all
from pocketlm.progress import Progress, ProgressCallback
from pocketlm.store import files

if TYPE_CHECKING:
    import httpx

    from pocketlm.store.web import Web


@dataclass(frozen=True)
class Remote:
    """Bytes to be had from a URL.

    Attributes:
        name: what to call it in messages.
        size: bytes, None where the source does not say.
        sha256: lowercase hex, None where the source does not publish it.
        headers: for the URL's own host only, such as Authorization.
    """

    url: str
    name: str
    size: int | None = None
    sha256: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Names the partial file: by content where that is known, so that sources can share it."""
        if self.sha256:
            return f"sha256-{self.sha256}"
        return "url-" + hashlib.sha256(self.url.encode()).hexdigest()


@dataclass(frozen=True)
class Fetched:
    """A finished file in ``partial/``, for the caller to move away or to remove."""

    path: Path
    size: int
    sha256: str

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        _note(self.path).unlink(missing_ok=True)


@dataclass(frozen=True)
class Patience:
    """How long a broken connection is put up with: tries without one new byte, seconds between."""

    tries: int = 6
    first_wait_s: float = 0.5
    longest_wait_s: float = 15.0

    def wait_s(self, failures: int) -> float:
        return min(self.first_wait_s * 2.0 ** (failures - 1), self.longest_wait_s)


class _BrokenError(Exception):
    """The connection ended early, or the server asked to come back: worth another try."""


def fetch(
    remote: Remote,
    folder: Path,
    web: Web,
    progress: ProgressCallback,
    patience: Patience = Patience(),
) -> Fetched:
    """Brings the bytes of ``remote`` into ``folder``, going on from what is there.

    The caller holds the lock of ``remote.key``. Raises SourceError where the bytes cannot be got,
    IntegrityError where they are not those promised (the partial file is then removed) and
    CapacityError where the disk is full (it is kept).
    """
    files.make_folder(folder)
    attempt = _Attempt(remote, folder / remote.key, web, progress)
    attempt.load()
    inherited = attempt.done > 0
    _complete(attempt, patience)
    if inherited and not attempt.is_right:
        # The damage may be in what an earlier process left, as after a power cut: begin anew once.
        attempt.restart()
        _complete(attempt, patience)
    return attempt.verified()


def _complete(attempt: _Attempt, patience: Patience) -> None:
    """Asks until every byte is there, or no new one has come for too many tries."""
    remote = attempt.remote
    failures, most = 0, attempt.done
    while not attempt.complete:
        try:
            attempt.request()
        except _BrokenError as error:
            # Against the most there ever was: a server without ranges starts again each time.
            failures = 1 if attempt.done > most else failures + 1
            most = max(most, attempt.done)
            if failures >= patience.tries:
                raise SourceError(
                    f"the download of {remote.name} broke off {failures} times at byte "
                    f"{attempt.done:,}{_of(attempt.size)}: {error}",
                    hint="Run the same command again; it goes on where it stopped.",
                ) from error
            time.sleep(patience.wait_s(failures))


def waiting_for(remote: Remote, progress: ProgressCallback) -> None:
    """Reports that another process is at it."""
    progress(Progress(f"wait for another process that downloads {remote.name}", 0))


class _Attempt:
    """One download: what is known of the bytes and how many of them are on disk."""

    def __init__(self, remote: Remote, path: Path, web: Web, progress: ProgressCallback) -> None:
        self.remote, self.path, self.web, self.progress = remote, path, web, progress
        self.size = remote.size
        self.etag: str | None = None
        self.done = 0
        self.complete = False
        self.hash = hashlib.sha256()

    def load(self) -> None:
        """Takes up what an earlier process left, where it belongs to the same bytes."""
        if not self.path.exists():
            return
        note = _read_note(self.path)
        same = self.remote.sha256 is not None or note.get("url") == self.remote.url
        if not same or (self.remote.sha256 is None and not note.get("etag")):
            self.restart()
            return
        etag = note.get("etag")
        if note.get("url") == self.remote.url and isinstance(etag, str):
            self.etag = etag
        self._rehash()
        if self.size is not None and self.done > self.size:
            self.restart()
        self.complete = self.size is not None and self.done == self.size

    def _rehash(self) -> None:
        for chunk in files.chunks_of(self.path):
            self.hash.update(chunk)
            self.done += len(chunk)
            self._report("check")

    def _report(self, what: str) -> None:
        remote = self.remote
        self.progress(Progress(f"{what} {remote.name}", self.done, self.size, remote.sha256))

    def restart(self) -> None:
        self.path.unlink(missing_ok=True)
        self.done, self.complete, self.etag, self.hash = 0, False, None, hashlib.sha256()
        self.size = self.remote.size

    @property
    def is_right(self) -> bool:
        """Whether the bytes have the hash that was promised, if one was."""
        return self.remote.sha256 in (None, self.hash.hexdigest())

    def request(self) -> None:
        """One request: the rest of the bytes, or all of them."""
        headers = dict(self.remote.headers)
        # Compressed in transit, neither ranges nor sizes would be those of the file.
        headers["Accept-Encoding"] = "identity"
        if self.done:
            headers["Range"] = f"bytes={self.done}-"
            if self.etag:
                headers["If-Range"] = self.etag
        with self.web.stream(self.remote.url, headers, _broken) as response:
            if self.done and response.status_code == 416:
                self._at_the_end(response)
                return
            self._check_status(response)
            self._receive(response)

    def _check_status(self, response: httpx.Response) -> None:
        status = response.status_code
        if status in (408, 425, 429) or status >= 500:
            raise _BrokenError(f"the server answered {status}")
        if status not in (200, 206):
            raise self.web.refusal(response, self.remote.name)
        if status == 206:
            start, total = _content_range(response)
            if start != self.done:
                self.restart()
                raise _BrokenError("the server sent another range than the one asked for")
            self._learn(total)
        else:
            if self.done:
                self.restart()  # it cannot do ranges, or the file has changed
            self._learn(_number(response.headers.get("Content-Length", "")))
        self.etag = _strong(response.headers.get("ETag"))

    def _learn(self, total: int | None) -> None:
        if total is None:
            return
        if self.size is not None and total != self.size:
            self.discard()
            raise IntegrityError(
                f"{self.remote.name} has {total:,} bytes at {self.remote.url}, "
                f"{self.size:,} were promised"
            )
        self.size = total

    def _receive(self, response: httpx.Response) -> None:
        if self.size is not None:
            files.require_space(self.path.parent, self.size - self.done, self.remote.name)
        with files.disk_errors(self.path, f"the download of {self.remote.name}"):
            self._write_note()
            with created(self.path, os.O_APPEND) as descriptor:
                for chunk in self.web.chunks(response, _broken):
                    write_all(descriptor, chunk)
                    self.hash.update(chunk)
                    self.done += len(chunk)
                    self._check_length()
                    self._report("download")
        if self.size is not None and self.done < self.size:
            raise _BrokenError("the body ended early")
        self.complete = True

    def _check_length(self) -> None:
        if self.size is not None and self.done > self.size:
            self.discard()
            raise IntegrityError(
                f"{self.remote.name} is longer than the {self.size:,} bytes that were promised"
            )

    def _at_the_end(self, response: httpx.Response) -> None:
        """416: there is nothing after our bytes, or our bytes are not of this file."""
        _, total = _content_range(response)
        if total == self.done:
            self._learn(total)
            self.complete = True
        else:
            self.restart()

    def _write_note(self) -> None:
        facts = {
            "url": self.remote.url,
            "etag": self.etag,
            "size": self.size,
            "sha256": self.remote.sha256,
        }
        files.write_file(_note(self.path), json.dumps(facts, indent=1).encode())

    def discard(self) -> None:
        Fetched(self.path, 0, "").remove()

    def verified(self) -> Fetched:
        found = self.hash.hexdigest()
        if not self.is_right:
            self.discard()
            raise IntegrityError(
                f"{self.remote.name} has SHA-256 {found}, {self.remote.sha256} was promised",
                hint="The bytes were thrown away. Try again, or another source: a proxy or the "
                "server may have altered them.",
            )
        if not self.path.exists():
            self.path.touch()  # an empty file is a file
        return Fetched(self.path, self.done, found)


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read_note(path: Path) -> dict[str, object]:
    try:
        note = json.loads(_note(path).read_bytes())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _content_range(response: httpx.Response) -> tuple[int | None, int | None]:
    """First byte and total of ``Content-Range: bytes 5-9/10`` (RFC 9110 §14.4)."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    span, _, total = rest.partition("/")
    start = span.partition("-")[0]
    if unit != "bytes":
        return None, None
    return _number(start), _number(total)


def _number(text: str) -> int | None:
    """A count of bytes in a header; None for what is none (or has more digits than any file)."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _strong(etag: str | None) -> str | None:
    """If-Range takes strong validators only (RFC 9110 §13.1.5)."""
    return etag if etag and not etag.startswith("W/") else None


def _of(size: int | None) -> str:
    return f" of {size:,}" if size is not None else ""


def _broken(error: Exception) -> Exception:
    return _BrokenError(str(error).rstrip(".") or type(error).__name__)
