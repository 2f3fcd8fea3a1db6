"""``pocketlm cp SOURCE TARGET``: a second name for a model."""

from __future__ import annotations

from typing import Annotated

import typer

from pocketlm.cli.output import AsJson


def cp(
    source: Annotated[str, typer.Argument(help="A model of the store.")],
    target: Annotated[str, typer.Argument(help="The new NAME[:TAG].")],
    as_json: AsJson = False,
) -> None:
    """Give a model a second name; no bytes are copied."""
    from pocketlm.cli.output import record, write_json
    from pocketlm.store import Store

    model = Store().copy(source, target)
    if as_json:
        write_json(record(model))
    else:
        print(f"{model.name} is the same model as {source}")
