"""``pocketlm import PATH [NAME]``: a name for model files that are on this machine already."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pocketlm.cli.output import AsJson


def import_model(
    path: Annotated[Path, typer.Argument(help="A .gguf file or a folder of safetensors.")],
    name: Annotated[
        str | None, typer.Argument(help="NAME[:TAG]; made from the file's name if not given.")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the bytes into the store.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give model files of your own a name here."""
    from pocketlm.cli.output import progress, record, write_json
    from pocketlm.store import Store

    with progress() as report:
        model = Store().import_path(path, name, copy=copy, progress=report)
    if as_json:
        write_json(record(model))
    else:
        how = "a copy of" if copy else "the files at"
        print(f"{model.name} is {how} {path}")
