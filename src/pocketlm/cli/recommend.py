"""``pocketlm recommend``: which model, in which type, for this device and this use."""

from __future__ import annotations

from typing import Annotated

import typer

from pocketlm.cli.output import AsJson
from pocketlm.errors import CapacityError


def recommend(
    use: Annotated[
        str | None, typer.Option(help="What for: chat-mobile, coding …; default: by the device.")
    ] = None,
    ram: Annotated[
        str | None, typer.Option(help="Of the device, as 4GB, instead of its own.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="'this', a profile ('pocketlm device --list') or a file.")
    ] = "this",
    min_speed: Annotated[
        float | None, typer.Option(help="Tokens/s with a full context; default: the use's.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Tokens, as 8k; default: the use's.")] = None,
    license: Annotated[
        str | None, typer.Option(help="'permissive' or licences, with commas; default: any.")
    ] = None,
    lang: Annotated[str | None, typer.Option(help="A language, as es or Spanish.")] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Only models that are in the store.")
    ] = False,
    limit: Annotated[int, typer.Option(help="How many models to tell of.", min=1)] = 3,
    explain: Annotated[
        bool, typer.Option("--explain", help="Every reason, rule, form and limit.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Recommend models for a device and a use, with the reasons."""
    from pocketlm.advise.recommend import Wish, telling
    from pocketlm.advise.recommend import recommend as run
    from pocketlm.cli.output import harmless, write_json

    found = run(
        Wish(
            use=use,
            device=device,
            ram=ram,
            min_speed=min_speed,
            context=context,
            license=license,
            lang=lang,
            offline=True if offline else None,
        )
    )
    if as_json:
        write_json(telling.record(found, limit if not explain else None))
    else:
        for line in telling.recommended_lines(found, limit, explain=explain):
            print(harmless(line))
    if not found.ranked:
        raise CapacityError(
            "no model of the catalog keeps every limit", hint=telling.relaxation_text(found)
        )
