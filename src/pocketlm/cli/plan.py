"""``pocketlm plan REF``: what a device can do with one model."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pocketlm.cli.output import AsJson
from pocketlm.errors import CapacityError


def plan(
    ref: Annotated[
        str, typer.Argument(help="A name of the catalog, a model here, a path, a hub ref.")
    ],
    device: Annotated[
        str, typer.Option(help="'this', a profile ('pocketlm device --list') or a file.")
    ] = "this",
    ram: Annotated[
        str | None, typer.Option(help="Of the device, as 4GB, instead of its own.")
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="Tokens, as 8k; default: the model's, at most 4,096.")
    ] = None,
    kv: Annotated[Literal["f16", "q8", "f32"], typer.Option(help="Type of the KV cache.")] = "f16",
    as_json: AsJson = False,
) -> None:
    """Say which types of a model fit a device, and which to take."""
    from pocketlm.advise.recommend import plan as run
    from pocketlm.advise.recommend import telling_plan as telling
    from pocketlm.cli.output import harmless, write_json, write_table

    found = run(ref, device=device, ram=ram, context=context, kv=kv)
    if as_json:
        write_json(telling.plan_record(found))
    else:
        for line in telling.plan_head(found):
            print(harmless(line))
        write_table(telling.COLUMNS, telling.plan_rows(found))
        for line in telling.plan_choice(found):
            print(harmless(line))
    if found.best is None:
        raise CapacityError(f"{found.model} fits in no type", hint=telling.plan_relaxation(found))
