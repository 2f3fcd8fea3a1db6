"""A model for ``run``, ``chat`` and ``eval``: pulled first where it is not in the store."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pocketlm import Model
    from pocketlm.store.refs import Ref


def load(ref: str, **options: Any) -> Model:
    """``pocketlm.load`` with progress on stderr; options as there."""
    import pocketlm
    from pocketlm.cli.output import progress

    fetch(ref)
    with progress() as report:
        return pocketlm.load(ref, progress=report, **options)


def warn_of_base(ref: str) -> None:
    """Says on stderr where the catalog knows that a model does not follow instructions."""
    from pocketlm import catalog
    from pocketlm.store import parse
    from pocketlm.store.refs import NameRef

    parsed = parse(ref)
    entry = catalog.find(parsed.name, parsed.tag) if isinstance(parsed, NameRef) else None
    if entry is not None and entry.base:
        print(
            f"pocketlm: {entry} is a base model: it continues text and follows no instructions; "
            "'pocketlm run --raw' is made for that",
            file=sys.stderr,
        )


def fetch(ref: str) -> None:
    """Pulls a model that is not here but can be pulled, with progress on stderr."""
    import pocketlm
    from pocketlm.cli.output import progress
    from pocketlm.store import Store, parse

    store = Store()
    try:
        store.resolve(ref)
    except pocketlm.NotFoundError:
        if store.offline or not _can_be_pulled(parse(ref)):
            raise
        print(f"pocketlm: {ref} is not in the store, so it is pulled now", file=sys.stderr)
        with progress() as report:
            store.pull(ref, report)


def _can_be_pulled(ref: Ref) -> bool:
    from pocketlm import catalog
    from pocketlm.store.refs import NameRef, PathRef

    if isinstance(ref, NameRef):
        return catalog.find(ref.name, ref.tag) is not None
    return not isinstance(ref, PathRef)
