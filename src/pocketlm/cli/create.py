"""``pocketlm create NAME -f Modelfile``: a model of one's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from pocketlm.cli.output import AsJson
from pocketlm.errors import RequestError


def create(
    name: Annotated[str, typer.Argument(help="The new NAME[:TAG]; a model of it is replaced.")],
    file: Annotated[
        Path, typer.Option("--file", "-f", help="The Modelfile; '-' reads it from stdin.")
    ] = Path("Modelfile"),
    quantize: Annotated[
        str | None, typer.Option("--quantize", "-q", help="Q4_K_M, Q8_0 …: in fewer bits a weight.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a model of your own from weights that are here."""
    from pocketlm.cli.fetching import fetch
    from pocketlm.cli.output import progress, record, write_json
    from pocketlm.creation import make, of_modelfile
    from pocketlm.store import Store
    from pocketlm.store.modelfile import parse_modelfile

    modelfile = parse_modelfile(_read(file))
    wanted = of_modelfile(name, modelfile, file.parent, quantize=quantize)
    fetch(wanted.base or "")
    with progress() as report:
        model = make(Store(), wanted, report)
    if as_json:
        write_json(record(model))
    else:
        print(f"{model.name}: from {modelfile.base}")


def _read(file: Path) -> str:
    if str(file) == "-":
        return sys.stdin.read()
    if not file.is_file():
        raise RequestError("there is no such file", path=file, hint="Name one with --file.")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RequestError("the Modelfile is not UTF-8", path=file) from error
