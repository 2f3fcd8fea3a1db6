"""How long work reports that it goes on: one callable, so that no floor knows about terminals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One report: what is being done, how much of it, of how much (bytes unless said otherwise).

    ``total`` is None where it is not known in advance; ``sha256`` is of the file that is moved,
    where one is and its hash is known.
    """

    task: str
    done: int
    total: int | None = None
    sha256: str | None = None


ProgressCallback = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """The callback that shows nothing."""
