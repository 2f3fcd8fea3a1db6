"""Bytes that a client brings to become a blob: written, hashed and counted as they come.

They become a blob only whole and only under their own hash; whatever else happens, nothing stays.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import ExitStack

from pocketlm.errors import CapacityError, RequestError
from pocketlm.files import create, write_all
from pocketlm.store.files import disk_errors, make_folder, require_space
from pocketlm.store.locks import locked
from pocketlm.store.shelf import Shelf

_MOST_BYTES = 128 << 30  # larger than any model of 30 billion parameters in F32
_ROOM = 256 << 20  # that an upload of unknown size must find on the disk, again and again


class Upload:
    """One blob on its way. For one thread at a time.

    upload = Upload(shelf, sha256)
    try:
        upload.open(size)
        upload.write(data) ...
        upload.finish()
    finally:
        upload.close()
    """

    def __init__(self, shelf: Shelf, sha256: str) -> None:
        self._shelf = shelf
        self._sha256 = sha256
        self._key = f"upload-{secrets.token_hex(16)}"
        self._path = shelf.partial / self._key
        self._hash = hashlib.sha256()
        self._done = 0
        self._checked = 0  # bytes that the disk had room for
        self._descriptor: int | None = None
        self._held = ExitStack()

    def open(self, size: int | None) -> None:
        """Begins. ``size`` is what the client announces, None where it does not.

        Raises CapacityError for more than is taken or fits on the disk.
        """
        make_folder(self._shelf.partial)
        if size is not None:
            self._check_size(size)
            require_space(self._shelf.partial, size, "the upload")
            self._checked = size
        self._held.enter_context(locked(self._shelf.locks, self._key))
        with disk_errors(self._path, "the upload"):
            self._descriptor = create(self._path, os.O_EXCL)

    def write(self, data: bytes) -> None:
        """Takes more. Raises CapacityError where the disk is full, or soon would be."""
        assert self._descriptor is not None, "the upload is open"
        self._check_size(self._done + len(data))
        if self._done + len(data) > self._checked:
            require_space(self._shelf.partial, _ROOM, "the upload")
            self._checked = self._done + _ROOM
        with disk_errors(self._path, "the upload"):
            write_all(self._descriptor, data)
        self._hash.update(data)
        self._done += len(data)

    def finish(self) -> None:
        """Makes the bytes a blob. Raises RequestError where they are not those of their name."""
        self._close_file()
        found = self._hash.hexdigest()
        if found != self._sha256:
            raise RequestError(
                f"digest mismatch, expected sha256:{self._sha256}, got sha256:{found}"
            )
        self._shelf.blobs.adopt(self._path, found, self._done)

    def close(self) -> None:
        """Leaves nothing behind."""
        self._close_file()
        self._path.unlink(missing_ok=True)
        self._held.close()

    def _close_file(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _check_size(self, size: int) -> None:
        if size > _MOST_BYTES:
            raise CapacityError(f"an upload has at most {_MOST_BYTES:,} bytes, found {size:,}")
