"""Blobs: the bytes of the store, each in a file named by its SHA-256.

A blob's file is read-only and plain. A model's files are hard links to blobs under ``models/``
with the names they had at their source, so that other tools find a path that ends in .gguf.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from pocketlm.store import files

_BLOB = re.compile(r"sha256-([0-9a-f]{64})")


class Blobs:
    """The folder of blobs. Thread-safe: every change is one rename or one unlink."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        return self.folder / f"sha256-{sha256}"

    def size(self, sha256: str) -> int | None:
        """Bytes of the blob, None where it is not there."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def adopt(self, temporary: Path, sha256: str, size: int) -> None:
        """Moves a finished file, whose hash and size the caller knows, in as a blob."""
        path = self.path(sha256)
        files.commit(temporary, path, size)
        with files.disk_errors(path, "making the blob read-only"):
            path.chmod(0o444)  # not before: a file that may not be written cannot be synced

    def remove(self, sha256: str) -> int:
        """Removes a blob; returns the bytes it had."""
        size = self.size(sha256) or 0
        path = self.path(sha256)
        if os.name == "nt" and path.exists():
            path.chmod(0o644)
        path.unlink(missing_ok=True)
        return size

    def __iter__(self) -> Iterator[str]:
        """The SHA-256 of every blob that is there."""
        if self.folder.is_dir():
            for path in sorted(self.folder.iterdir()):
                if match := _BLOB.fullmatch(path.name):
                    yield match[1]

    def is_linked(self, sha256: str, target: Path) -> bool:
        """Whether ``target`` is another name of the blob, or the copy that ``link`` had to make."""
        blob = self.path(sha256)
        try:
            there, here = target.stat(), blob.stat()
        except FileNotFoundError:
            return False
        copied = (there.st_size, there.st_mtime_ns) == (here.st_size, here.st_mtime_ns)
        return os.path.samestat(there, here) or copied

    def link(self, sha256: str, target: Path) -> None:
        """Makes ``target`` another name of the blob, in the place of what is there.

        A hard link where the file system has them, else a relative symbolic link, else a copy. The
        caller keeps others from linking the same target.
        """
        files.make_folder(target.parent)
        temporary = target.with_name(f".{target.name}.tmp")
        with files.disk_errors(target, f"giving {target.name} its name"):
            temporary.unlink(missing_ok=True)
            try:
                _link(self.path(sha256), temporary)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)


def _link(blob: Path, target: Path) -> None:
    try:
        os.link(blob, target)
        return
    except FileNotFoundError:
        raise  # the blob is gone; a symbolic link to nothing would hide it
    except OSError:
        pass  # not on this file system
    try:
        target.symlink_to(os.path.relpath(blob, target.parent))
    except OSError:
        files.require_space(target.parent, blob.stat().st_size, f"a copy of {target.name}")
        shutil.copy2(blob, target)
