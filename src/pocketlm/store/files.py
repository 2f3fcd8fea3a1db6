"""Writing files so that a crash leaves the old state or the new one, and hashing them.

The bottom of the store: every byte it keeps goes through ``write_all``, every name it gives through
``commit`` (fsync the file, rename it, fsync the folder). A full disk becomes a CapacityError with
the numbers wherever it is met.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pocketlm.errors import CapacityError, IntegrityError, PocketLMError

CHUNK = 1 << 20
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def free_bytes(folder: Path) -> int:
    """Bytes that can still be written in the file system of ``folder``."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_space(folder: Path, wanted: int, what: str) -> None:
    """Raises CapacityError where ``wanted`` more bytes do not fit on the disk of ``folder``."""
    free = free_bytes(folder)
    if wanted > free:
        raise CapacityError(
            f"{what} needs {wanted:,} bytes but only {free:,} are free on the disk of {folder}",
            hint="Free some space, or set POCKETLM_HOME to a folder on a larger disk.",
        )


@contextmanager
def disk_errors(path: Path, what: str) -> Iterator[None]:
    """The operating system's errors in our words: a full disk is a CapacityError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise PocketLMError(f"{what} failed: {error.strerror}", path=path) from error
        raise CapacityError(
            f"the disk is full: {what} stopped, {free_bytes(path.parent):,} bytes are free",
            path=path,
            hint="Free some space and run the same command again; it goes on where it stopped.",
        ) from error


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Writes all of ``data``: one ``os.write`` may write less than it was given."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Makes the names in ``folder`` durable; Windows cannot open a folder and journals names."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Makes a folder, and the missing ones above it, durable by their names."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with disk_errors(folder, "making the folder"):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def commit(temporary: Path, target: Path, size: int) -> None:
    """Gives a finished file of ``size`` bytes its name: content first, then name, then folder.

    Both paths must be in the same file system. Readers see the old file or the whole new one.
    Raises IntegrityError where the file system has not kept every byte that it took, CapacityError
    and PocketLMError where it says so itself.
    """
    make_folder(target.parent)
    with disk_errors(target, f"storing {target.name}"):
        descriptor = os.open(temporary, os.O_RDWR | getattr(os, "O_BINARY", 0))
        try:
            os.fsync(descriptor)
            found = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        if found != size:
            raise IntegrityError(
                f"{found:,} of the {size:,} bytes that were written are there: the disk lost some",
                path=temporary,
            )
        temporary.replace(target)
        sync_folder(target.parent)


def write_file(target: Path, data: bytes) -> None:
    """Writes a small file atomically. Raises CapacityError where the disk is full.

    The caller holds a lock that keeps others from writing the same file: the temporary file has one
    name, so that what a killed process leaves is taken up by the next and does not pile up.
    """
    make_folder(target.parent)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with disk_errors(target, f"writing {target.name}"):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
            descriptor = os.open(temporary, flags, 0o644)
            try:
                write_all(descriptor, data)
            finally:
                os.close(descriptor)
            commit(temporary, target, len(data))
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def files_below(folder: Path) -> list[Path]:
    """Every file and link below a folder, in order. What other processes remove meanwhile is left
    out, where ``Path.rglob`` would raise."""
    found = [Path(top, name) for top, _, names in os.walk(folder) for name in names]
    return sorted(found)


def chunks_of(path: Path) -> Iterator[bytes]:
    """The bytes of a file, a chunk at a time."""
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def hash_file(path: Path, report: Callable[[int], None] = lambda done: None) -> str:
    """SHA-256 of a file as lowercase hex. ``report`` is told the bytes read so far."""
    digest, done = hashlib.sha256(), 0
    for chunk in chunks_of(path):
        digest.update(chunk)
        done += len(chunk)
        report(done)
    return digest.hexdigest()
