"""Locks between processes, so that two pulls of the same bytes fetch them once.

An advisory lock of the operating system on a small file. The system lets go of it when the process
ends, however it ends, so no stale lock is ever left. Lock files stay: removing one while another
process waits on it would let a third process in.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pocketlm.store.files import disk_errors, make_folder

_POLL_S = 0.1

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@contextmanager
def locked(folder: Path, key: str, *, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the lock called ``key``; waits for it where another process or thread has it.

    ``waiting`` is called once, before the first wait.
    """
    descriptor = _open(folder, key)
    try:
        if not _try_lock(descriptor):
            waiting()
            while not _try_lock(descriptor):
                time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked_if_free(folder: Path, key: str) -> Iterator[bool]:
    """Holds the lock where nobody else does; yields whether it does."""
    descriptor = _open(folder, key)
    try:
        yield _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _open(folder: Path, key: str) -> int:
    make_folder(folder)
    # A hash, since a key may hold characters or a length that a file name may not.
    name = hashlib.sha256(key.encode()).hexdigest()[:32] + ".lock"
    with disk_errors(folder / name, "opening the lock"):
        return os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o644)
