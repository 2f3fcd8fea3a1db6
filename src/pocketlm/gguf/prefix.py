"""What a GGUF file says of itself, from its first bytes alone.

For files that lie elsewhere: everything but the weights stands at the beginning, so a model can be
described from a part of its file. The checks are those of a whole file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pocketlm.errors import ModelFileError
from pocketlm.gguf.cursor import Cursor
from pocketlm.gguf.reader import Part, read_part


class TooShortError(Exception):
    """What is wanted goes on behind the bytes that are there."""


class _Prefix(Cursor):
    """A cursor in the first bytes of a file of ``size`` bytes."""

    def __init__(self, prefix: bytes, size: int, path: Path) -> None:
        super().__init__(np.frombuffer(prefix, np.uint8), path)
        self.size = size

    def need(self, nbytes: int, what: str) -> None:
        super().need(nbytes, what)
        if self.offset + nbytes > self.array.size:
            raise TooShortError

    def string(self, what: str, *, limit: int) -> str:
        at = self.offset
        self.need(self.count(f"length of {what}", each=1, limit=limit), what)
        self.offset = at
        return super().string(what, limit=limit)

    def strings(self, count: int, what: str) -> list[str]:
        try:
            return super().strings(count, what)
        except ModelFileError:
            # Whether they break off or break the format, more bytes will tell.
            raise TooShortError from None


def parse_prefix(prefix: bytes, size: int, path: Path) -> Part:
    """Parses the first bytes of a file of ``size`` bytes; the part's buffer is only those.

    Raises:
        TooShortError: more bytes are needed.
        ModelFileError, UnsupportedError: see GGUFFile.open.
    """
    return read_part(_Prefix(prefix, size, path))
