"""Whether the disk has room for what is about to be written, asked before minutes of work."""

from __future__ import annotations

import shutil
from pathlib import Path

from pocketlm.errors import CapacityError, RequestError


def require_space(folder: Path, needed: int) -> None:
    """Raises CapacityError where fewer than ``needed`` bytes are free, RequestError for no folder.

    Others write too, so a disk may still fill up on the way.
    """
    if not folder.is_dir():
        raise RequestError("cannot write: there is no such folder", path=folder)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CapacityError(
            f"{needed:,} bytes are to be written but the disk has {free:,} left",
            path=folder,
            hint="Free some space, or write to another disk.",
        )
