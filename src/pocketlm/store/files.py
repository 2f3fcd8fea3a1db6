"""The store's files: written durably, hashed, and every error of the disk in our words.

The bottom of the store: every name it gives goes through ``commit``. A full disk becomes a
CapacityError with the numbers wherever it is met.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pocketlm import files
from pocketlm.errors import CapacityError, PocketLMError

CHUNK = 1 << 20


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
        if error.errno not in files.DISK_FULL:
            raise PocketLMError(f"{what} failed: {error.strerror}", path=path) from error
        raise CapacityError(
            f"the disk is full: {what} stopped, {free_bytes(path.parent):,} bytes are free",
            path=path,
            hint="Free some space and run the same command again; it goes on where it stopped.",
        ) from error


def make_folder(folder: Path) -> None:
    """Makes a folder, and the missing ones above it, durable by their names."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with disk_errors(folder, "making the folder"):
        folder.mkdir(exist_ok=True)
        files.sync_folder(folder.parent)


def commit(temporary: Path, target: Path, size: int) -> None:
    """``files.commit``, in a folder that is made where it is missing.

    Raises IntegrityError where the file system has not kept every byte that it took, CapacityError
    and PocketLMError where it says so itself.
    """
    make_folder(target.parent)
    with disk_errors(target, f"storing {target.name}"):
        files.commit(temporary, target, size)


def write_file(target: Path, data: bytes) -> None:
    """Writes a small file atomically. Raises CapacityError where the disk is full.

    The caller holds a lock that keeps others from writing the same file: the temporary file has one
    name, so that what a killed process leaves is taken up by the next and does not pile up.
    """
    make_folder(target.parent)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with disk_errors(target, f"writing {target.name}"):
            with files.created(temporary, os.O_TRUNC) as descriptor:
                files.write_all(descriptor, data)
            commit(temporary, target, len(data))
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_hashed(
    path: Path, chunks: Iterable[bytes], what: str, report: Callable[[int], None]
) -> tuple[str, int]:
    """Writes a file anew; its SHA-256 as lowercase hex, and its size.

    ``what`` is going on says an error; ``report`` is told the bytes written so far.
    """
    digest, done = hashlib.sha256(), 0
    with disk_errors(path, what), files.created(path, os.O_TRUNC) as descriptor:
        for chunk in chunks:
            files.write_all(descriptor, chunk)
            digest.update(chunk)
            done += len(chunk)
            report(done)
    return digest.hexdigest(), done


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
