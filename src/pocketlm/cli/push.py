"""``pocketlm push REF [TARGET]``: a model onto a registry."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pocketlm.cli.output import AsJson


def push(
    ref: Annotated[str, typer.Argument(help="A model of the store.")],
    target: Annotated[
        str | None,
        typer.Argument(help="ollama:HOST/NAMESPACE/NAME:TAG; default: where REF itself names one."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put a model onto a registry of Ollama's protocol."""
    from pocketlm.cli.output import progress, size_text, write_json
    from pocketlm.store import Store

    with progress() as report:
        pushed = Store().push(ref, target, report)
    if as_json:
        write_json(asdict(pushed))
    else:
        print(f"{pushed.model} is at {pushed.target} now ({size_text(pushed.size)})")
