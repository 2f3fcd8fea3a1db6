"""Reading little-endian fields from a buffer that nobody trusts.

Every read says what it reads, so that an error can name the field and its byte offset, and checks
the bytes left before it touches or allocates anything. Under `reader`, `metadata` and `tensors`,
which know the format; this knows only numbers and strings.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketlm import _native
from pocketlm.errors import ModelFileError

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class Cursor:
    """A position in a buffer; reads move it forward.

    Args:
        buffer: the whole file, one byte an element.
        path: for errors.
    """

    def __init__(self, buffer: npt.NDArray[np.uint8], path: Path) -> None:
        self.array = buffer
        self.view = buffer.data
        self.size = buffer.size
        self.path = path
        self.offset = 0

    def error(
        self, message: str, *, at: int | None = None, hint: str | None = None
    ) -> ModelFileError:
        """A ModelFileError at byte `at`, the present position unless given."""
        offset = self.offset if at is None else at
        return ModelFileError(message, path=self.path, offset=offset, hint=hint)

    def left(self) -> int:
        """Bytes from here to the end."""
        return self.size - self.offset

    def need(self, nbytes: int, what: str) -> None:
        """Raises unless `nbytes` more bytes are there."""
        if nbytes > self.size - self.offset:
            raise self.error(
                f"{what} takes {nbytes:,} bytes, but {self.left():,} are left",
                hint="The file is probably incomplete.",
            )

    def u32(self, what: str) -> int:
        return int(self.unpack(_U32, what))

    def u64(self, what: str) -> int:
        return int(self.unpack(_U64, what))

    def unpack(self, format: struct.Struct, what: str) -> int | float:
        """One number."""
        self.need(format.size, what)
        value: int | float = format.unpack_from(self.view, self.offset)[0]
        self.offset += format.size
        return value

    def count(self, what: str, *, each: int, limit: int) -> int:
        """A u64 that counts items of at least `each` bytes which follow in the file."""
        at = self.offset
        count = self.u64(what)
        if count > limit:
            raise self.error(f"{what} is {count:,}, more than the limit of {limit:,}", at=at)
        if count * each > self.left():
            raise self.error(
                f"{what} is {count:,}, but the {self.left():,} bytes left "
                f"hold at most {self.left() // each:,}",
                at=at,
                hint="The file is probably incomplete.",
            )
        return count

    def string(self, what: str, *, limit: int) -> str:
        """A u64 length and that many bytes of UTF-8."""
        at = self.offset
        length = self.count(f"length of {what}", each=1, limit=limit)
        start = self.offset
        self.offset += length
        try:
            return str(self.view[start : self.offset], "utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"{what} is not UTF-8", at=at) from error

    def strings(self, count: int, what: str) -> list[str]:
        """`count` strings in a row."""
        at = self.offset
        try:
            values, self.offset = _native.read_strings(self.array, at, count)
        except ModelFileError as error:
            raise self.error(f"{what}: {error.message}", at=at) from None
        return values

    def numbers(self, dtype: np.dtype[Any], count: int, what: str) -> npt.NDArray[Any]:
        """`count` numbers in a row, copied: fields of a file have no alignment."""
        nbytes = count * dtype.itemsize
        self.need(nbytes, what)
        values = np.frombuffer(self.view, dtype, count, self.offset).copy()
        values.flags.writeable = False
        self.offset += nbytes
        return values
