"""``pocketlm stop [REF]``: has a running server unload a model, or end."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pocketlm.cli.output import AsJson
from pocketlm.cli.serving import Url


def stop(
    ref: Annotated[
        str | None, typer.Argument(help="A loaded model; without one the server ends.")
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Unload a model of a running server, or end the server."""
    from pocketlm.cli.output import write_json
    from pocketlm.cli.serving import ask

    if ref is None:
        said = ask("POST", "/admin/stop", url, {})
        line = "the server ends once the answers under way have"
    else:
        said = ask("POST", "/admin/unload", url, {"model": ref})
        line = f"{ref} is unloaded" if said["unloaded"] else f"{ref} was not loaded"
    if as_json:
        write_json(said)
    else:
        print(f"pocketlm: {line}", file=sys.stderr)
