"""A model for ``run`` and ``chat``: pulled first where it is not in the store, with progress."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pocketlm import Model


def load(ref: str, **options: Any) -> Model:
    """``pocketlm.load`` with progress on stderr; options as there."""
    import pocketlm
    from pocketlm.cli.output import progress
    from pocketlm.store import Store, parse
    from pocketlm.store.refs import PathRef

    store = Store()
    try:
        store.resolve(ref)
    except pocketlm.NotFoundError:
        if store.offline or isinstance(parse(ref), PathRef):
            raise
        print(f"pocketlm: {ref} is not in the store, so it is pulled now", file=sys.stderr)
        with progress() as report:
            store.pull(ref, report)
    with progress() as report:
        return pocketlm.load(ref, progress=report, **options)
