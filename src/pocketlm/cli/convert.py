"""``pocketlm convert REF -o OUT``: a Hugging Face folder as a GGUF file, and the way back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from pocketlm.cli.output import AsJson


def convert(
    ref: Annotated[str, typer.Argument(help="A folder, hf:ORG/REPO, a .gguf file, a model here.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file or folder to write.")],
    type: Annotated[
        str | None, typer.Option(help="f32, f16, bf16, q8_0, q4_k_m …; default: as it is.")
    ] = None,
    to: Annotated[
        Literal["gguf", "hf"], typer.Option(help="A GGUF file, or a folder for transformers.")
    ] = "gguf",
    name: Annotated[str | None, typer.Option(help="What the file calls the model.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    threads: Annotated[int | None, typer.Option(help="Default: the physical cores.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a safetensors model as GGUF, or a GGUF as safetensors."""
    from pocketlm.cli.fetching import fetch
    from pocketlm.cli.output import harmless, progress, size_text, write_json
    from pocketlm.conversion import convert as run

    fetch(ref)
    with progress() as report:
        found = run(
            ref,
            output,
            type=type,
            to=to,
            name=name,
            force=force,
            threads=threads,
            progress=report,
        )
    if as_json:
        write_json(asdict(found) | {"path": str(found.path)})
    else:
        print(
            f"{harmless(str(found.path))}: {found.architecture}, {found.type}, "
            f"{found.tensors} tensors, {size_text(found.size)}"
        )
