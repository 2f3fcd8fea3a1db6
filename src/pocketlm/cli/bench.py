"""``pocketlm bench REF...``: how fast models run, beside other engines, in one interleaved run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pocketlm.cli.output import AsJson
from pocketlm.errors import RequestError

if TYPE_CHECKING:
    from pocketlm.evaluate.speed.results import Speed


def bench(
    refs: Annotated[
        list[str], typer.Argument(metavar="REF...", help="Models: names, .gguf files, folders.")
    ],
    against: Annotated[
        str | None,
        typer.Option(help="Engines to compare with, with commas: llamacpp, llamacpp-nofa, ik."),
    ] = None,
    prompt: Annotated[int, typer.Option("--prompt", "-p", help="Tokens of prefill.")] = 512,
    generate: Annotated[int, typer.Option("--generate", "-n", help="Tokens of decode.")] = 128,
    depth: Annotated[
        int, typer.Option("--depth", "-d", help="Decode once more after so many; 0: do not.")
    ] = 2048,
    batch: Annotated[
        str, typer.Option(help="Sequences decoded together, with commas; 0: none.")
    ] = "1,4,16",
    rounds: Annotated[int, typer.Option(help="Rounds that count, after one that does not.")] = 5,
    threads: Annotated[int | None, typer.Option(help="Default: the physical cores.")] = None,
    kv: Annotated[Literal["f16", "q8", "f32"], typer.Option(help="Type of the KV cache.")] = "f16",
    plot: Annotated[Path | None, typer.Option(help="Draw it: a .png or .svg file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write every sample as CSV.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables as Markdown.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure speed, first token and memory, beside other engines."""
    from pocketlm.advise.performance.remembering import remember_speed
    from pocketlm.advise.speed_tables import console_text, csv_text, markdown_text
    from pocketlm.cli.fetching import fetch
    from pocketlm.cli.output import harmless, progress, write_json
    from pocketlm.evaluate.speed.bench import bench as run
    from pocketlm.files import save

    if plot is not None:
        from pocketlm.advise.footprint_picture import picture_format, require_matplotlib
        from pocketlm.advise.speed_picture import draw

        format = picture_format(plot)  # what cannot be drawn is said before the work
        require_matplotlib()
    peers = [name.strip() for name in (against or "").split(",") if name.strip()]
    sizes = _sizes(batch)
    for ref in refs:
        fetch(ref)

    def keep(found: Speed) -> None:
        if csv is not None:
            save(csv, csv_text(found).encode())
        if markdown is not None:
            save(markdown, markdown_text(found).encode())
        if plot is not None:
            save(plot, draw(found, format))
        remember_speed(found)

    with progress() as report:
        found = run(
            refs,
            against=peers,
            prompt=prompt,
            generate=generate,
            depth=depth,
            batch=sizes,
            rounds=rounds,
            threads=threads,
            kv=kv,
            progress=report,
            measured=keep,
        )
    if as_json:
        write_json(asdict(found))
        return
    print(harmless(console_text(found)), end="")


def _sizes(batch: str) -> list[int]:
    """``1,4,16`` as numbers; ``0`` is none."""
    try:
        sizes = [int(part) for part in batch.split(",")]
    except ValueError:
        raise RequestError(
            f"--batch is '{batch}', expected numbers", hint="For example: --batch 1,4,16."
        ) from None
    return [] if sizes == [0] else sizes
