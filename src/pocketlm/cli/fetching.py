"""A model for ``run`` and ``chat``: pulled first where it is not in the store, with progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pocketlm import Model


def load(ref: str, **options: Any) -> Model:
    """``pocketlm.load`` with progress on stderr; options as there."""
    import pocketlm
    from pocketlm.cli.output import progress

    with progress() as report:
        return pocketlm.load(ref, pull=True, progress=report, **options)
