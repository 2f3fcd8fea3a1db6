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
from pocketlm.files import DISK_FULL, commit, create, write_all

Write = Callable[[bytes | memoryview], None]

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
