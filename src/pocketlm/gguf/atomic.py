"""One file written so that a crash at any moment leaves the old file or the whole new one.

Used by `writer`. The bytes go to a temporary file in the same folder, which gets its name only when
it is complete and on the disk; whatever goes wrong before, the temporary file is removed.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pocketlm.errors import CapacityError, PocketLMError, RequestError

Write = Callable[[bytes | memoryview], None]

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_CALLERS_FAULT = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
}


@contextmanager
def atomic_file(path: Path) -> Iterator[Write]:
    """Gives a function that appends bytes; `path` appears when the block ends without an error.

    Raises:
        CapacityError: the disk is full.
        RequestError: there is no such folder, or it cannot be written to.
        PocketLMError: the disk failed.
    """
    temporary = path.parent / f".{path.name}.part-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with _typed_errors(path):
        descriptor = os.open(temporary, flags, 0o644)
    try:
        try:

            def write(data: bytes | memoryview) -> None:
                with _typed_errors(path):
                    write_all(descriptor, data)

            yield write
            with _typed_errors(path):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with _typed_errors(path):
            temporary.replace(path)
            _sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """All of `data`: one `os.write` may write less than it was given."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # cannot open a folder; its file system journals names
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _typed_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise CapacityError(
                f"the disk is full: {error.strerror}", path=path, hint="Free some space."
            ) from error
        kind = RequestError if error.errno in _CALLERS_FAULT else PocketLMError
        raise kind(f"cannot write the file: {error.strerror}", path=path) from error
