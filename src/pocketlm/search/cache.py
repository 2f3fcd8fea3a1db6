"""Answers that are kept, so that a search works without a network and says how old it is.

One JSON file an answer, below ``search/`` in the home. Losing one is no loss: a file that cannot be
read is named and skipped, one that cannot be written is not kept, and the oldest go when all of
them take too much.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

MOST_BYTES = 64 << 20
MOST_FILES = 4096
_VERSION = 1


@dataclass(frozen=True)
class Kept:
    """An answer.

    Attributes:
        body: what its JSON says.
        fetched: when it came, or was last found to be still so; in UTC.
        headers: of the answer, by lowercase name: those that are needed again.
    """

    body: object
    fetched: datetime
    headers: Mapping[str, str] = field(default_factory=dict)


class Cache:
    """Answers by key. Threads and processes may share one.

    Attributes:
        faults: what was wrong with files, for the user.
    """

    def __init__(
        self, folder: Path, *, most_bytes: int = MOST_BYTES, most_files: int = MOST_FILES
    ) -> None:
        self.folder = folder
        self.faults: list[str] = []
        self._most_bytes, self._most_files = most_bytes, most_files
        self._lock = threading.Lock()

    def get(self, key: str) -> Kept | None:
        found = self._read(self._path(key))
        return found[1] if found is not None and found[0] == key else None

    def beginning(self, prefix: str) -> list[Kept]:
        """Answers whose keys begin so, the newest first."""
        try:
            paths = [path for path in self._files() if path.suffix == ".json"]
        except OSError:
            return []
        found = [one for path in paths if (one := self._read(path)) is not None]
        fitting = [kept for key, kept in found if key.startswith(prefix)]
        return sorted(fitting, key=lambda kept: kept.fetched, reverse=True)

    def put(self, key: str, kept: Kept) -> None:
        document = {
            "version": _VERSION,
            "key": key,
            "fetched": kept.fetched.isoformat(),
            "headers": dict(kept.headers),
            "body": kept.body,
        }
        try:
            data = json.dumps(document).encode()
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(".tmp", dir=self.folder)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(data)
                Path(name).replace(self._path(key))
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except (OSError, ValueError, RecursionError) as error:
            self._fault(f"an answer could not be kept in {self.folder}: {error}")

    def _read(self, path: Path) -> tuple[str, Kept] | None:
        try:
            if path.stat().st_size > self._most_bytes:
                raise ValueError("it is too large")
            return _kept(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            self._fault(f"the cached answer {path} was skipped: {error}")
            return None

    def prune(self) -> None:
        """Removes the oldest files until the rest are within the bounds."""
        with suppress(OSError):
            files = sorted(
                ((path.stat().st_mtime, path.stat().st_size, path) for path in self._files()),
                reverse=True,
            )
            taken = 0
            for rank, (_, size, path) in enumerate(files):
                taken += size
                if taken > self._most_bytes or rank >= self._most_files:
                    path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return [p for p in self.folder.iterdir() if p.suffix in (".json", ".tmp") and p.is_file()]

    def _path(self, key: str) -> Path:
        return self.folder / (hashlib.sha256(key.encode()).hexdigest()[:32] + ".json")

    def _fault(self, text: str) -> None:
        with self._lock:
            if text not in self.faults:
                self.faults.append(text)


def _kept(document: object) -> tuple[str, Kept]:
    """A key and its answer. Raises ValueError for what ``put`` did not write."""
    if not isinstance(document, dict) or document.get("version") != _VERSION:
        raise ValueError("it is not of this version")
    key, fetched, headers = (document.get(name) for name in ("key", "fetched", "headers"))
    texts = isinstance(key, str) and isinstance(fetched, str)
    if not texts or not isinstance(headers, dict) or "body" not in document:
        raise ValueError("it is not whole")
    when = datetime.fromisoformat(str(fetched))
    if when.tzinfo is None:
        raise ValueError("its time has no zone")
    named = {str(name): str(value) for name, value in headers.items()}
    return str(key), Kept(document["body"], when.astimezone(UTC), named)
