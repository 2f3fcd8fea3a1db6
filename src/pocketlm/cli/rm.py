"""``pocketlm rm NAME...``: remove models, and what no model uses."""

from __future__ import annotations

from typing import Annotated

import typer

from pocketlm.cli.output import AsJson
from pocketlm.errors import RequestError


def rm(
    names: Annotated[list[str] | None, typer.Argument(help="Models of the store.")] = None,
    unused: Annotated[
        bool,
        typer.Option("--unused", help="Also unfinished downloads and bytes that no model uses."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove models, never files of your own."""
    from pocketlm.cli.output import size_text, write_json
    from pocketlm.store import Store

    if not names and not unused:
        raise RequestError("nothing to remove was named", hint="Give a name, or --unused.")
    store = Store()
    removed = []
    for name in names or []:
        one = store.remove(name)
        removed.append({"name": one.name, "freed": one.freed, "kept": one.kept})
        if not as_json:
            kept = f" ({size_text(one.kept)} are kept for other models)" if one.kept else ""
            print(f"removed {one.name}, {size_text(one.freed)} freed{kept}")
    freed = store.remove_unused() if unused else None
    if as_json:
        write_json({"removed": removed, "unused_freed": freed})
    elif freed is not None:
        print(f"removed what no model uses, {size_text(freed)} freed")
