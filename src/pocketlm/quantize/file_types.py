"""The names of quantized files: ``Q4_K_M`` and what it stands for.

A name promises a size: which block type most weights have, and by which published mix some layers
get better ones (``mix``).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from pocketlm.errors import RequestError
from pocketlm.gguf import BlockType
from pocketlm.gguf.file_types import FILE_TYPE_IDS


@dataclass(frozen=True)
class FileType:
    """One kind of file.

    Attributes:
        name: as it is asked for.
        type: block type of most weights.
    """

    name: str
    type: BlockType

    @property
    def id(self) -> int:
        """``general.file_type`` in the file."""
        return FILE_TYPE_IDS[self.name]

    @property
    def quantized(self) -> bool:
        return self.type not in (BlockType.F32, BlockType.F16, BlockType.BF16)


FILE_TYPES = {
    kind.name: kind
    for kind in (
        FileType("F32", BlockType.F32),
        FileType("F16", BlockType.F16),
        FileType("BF16", BlockType.BF16),
        FileType("Q8_0", BlockType.Q8_0),
        FileType("Q6_K", BlockType.Q6_K),
        FileType("Q5_1", BlockType.Q5_1),
        FileType("Q5_K_M", BlockType.Q5_K),
        FileType("Q5_K_S", BlockType.Q5_K),
        FileType("Q5_0", BlockType.Q5_0),
        FileType("Q4_1", BlockType.Q4_1),
        FileType("Q4_K_M", BlockType.Q4_K),
        FileType("Q4_K_S", BlockType.Q4_K),
        FileType("Q4_0", BlockType.Q4_0),
        FileType("Q3_K_L", BlockType.Q3_K),
        FileType("Q3_K_M", BlockType.Q3_K),
        FileType("Q3_K_S", BlockType.Q3_K),
        FileType("Q2_K", BlockType.Q2_K),
        FileType("Q2_K_S", BlockType.Q2_K),
        FileType("TQ2_0", BlockType.TQ2_0),
        FileType("TQ1_0", BlockType.TQ1_0),
    )
}
# What people also call them.
_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}


def file_type(name: str) -> FileType:
    """The file type of this name, in any case. Raises RequestError, with the closest name."""
    wanted = name.upper()
    found = FILE_TYPES.get(_ALIASES.get(wanted, wanted))
    if found is None:
        raise _unknown("file type", name, list(FILE_TYPES))
    return found


def writable_type(name: str) -> BlockType:
    """A block type that weights can be written in. Raises RequestError, with the closest name."""
    known = sorted({kind.type.name for kind in FILE_TYPES.values()})
    if name.upper() not in known:
        raise _unknown("block type", name, known)
    return BlockType[name.upper()]


def _unknown(what: str, name: str, known: list[str]) -> RequestError:
    close = difflib.get_close_matches(name.upper(), known, n=1)
    meant = f"Did you mean {close[0]}? " if close else ""
    return RequestError(
        f"there is no {what} '{name}'", hint=f"{meant}There are {', '.join(known)}."
    )
