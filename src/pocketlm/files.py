"""Writing files so that a crash at any moment leaves the old file or the whole new one.

The ground floor of everything that writes. The bytes go to a temporary file beside the target, and
``commit`` gives it the target's name when it is complete and on the disk.

``atomic_file`` is the whole of that, for files that users ask for: GGUF files, folders, tables,
pictures. The store makes its own of the parts. There what the operating system refuses is raised
as it comes (OSError): each floor says in its own words what it was doing, and ``DISK_FULL`` tells
it when the disk was too small.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pocketlm.errors import CapacityError, IntegrityError, PocketLMError, RequestError

Write = Callable[[bytes | memoryview], None]

DISK_FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
_CALLERS_FAULT = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
}
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would translate line ends


def create(path: Path, how: int) -> int:
    """A descriptor that writes to ``path``, made if it is not there.

    how: ``os.O_EXCL`` (it must be new), ``os.O_TRUNC`` (what is there goes) or ``os.O_APPEND``.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | _BINARY | how, 0o644)


@contextmanager
def created(path: Path, how: int) -> Iterator[int]:
    """``create``, closed at the end of the block."""
    descriptor = create(path, how)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


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


def commit(temporary: Path, target: Path, size: int) -> None:
    """Gives a finished file of ``size`` bytes its name: content first, then name, then folder.

    Both paths must be in the same file system. Readers see the old file or the whole new one.
    Raises IntegrityError where the file system has not kept every byte that it took.
    """
    descriptor = os.open(temporary, os.O_RDWR | _BINARY)
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


@contextmanager
def atomic_file(path: Path) -> Iterator[Write]:
    """Gives a function that appends bytes; ``path`` appears when the block ends without an error.

    Raises:
        CapacityError: the disk is full.
        RequestError: there is no such folder, or it cannot be written to.
        PocketLMError: the disk failed.
    """
    temporary = path.parent / f".{path.name}.part-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    size = 0
    with _typed_errors(path):
        descriptor = create(temporary, os.O_EXCL)
    try:
        try:

            def write(data: bytes | memoryview) -> None:
                nonlocal size
                with _typed_errors(path):
                    write_all(descriptor, data)
                size += memoryview(data).nbytes

            yield write
        finally:
            os.close(descriptor)
        with _typed_errors(path):
            commit(temporary, path, size)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _typed_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise CapacityError(
                f"the disk is full: {error.strerror}", path=path, hint="Free some space."
            ) from error
        kind = RequestError if error.errno in _CALLERS_FAULT else PocketLMError
        raise kind(f"cannot write the file: {error.strerror}", path=path) from error


def save(path: Path, data: bytes) -> None:
    """A whole file at once. Raises as ``atomic_file``."""
    with atomic_file(path) as write:
        write(data)
