"""``pocketlm footprint REF...``: what models take on disk and in memory, in each type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pocketlm.cli.output import AsJson
from pocketlm.errors import RequestError

if TYPE_CHECKING:
    from pocketlm.advise.footprint import Footprint


def footprint(
    refs: Annotated[
        list[str],
        typer.Argument(
            metavar="REF...", help="Names of catalog or store, files, folders, hub refs."
        ),
    ],
    types: Annotated[
        str | None, typer.Option(help="File types, with commas; 'none' for the files alone.")
    ] = None,
    context: Annotated[
        int | None, typer.Option(help="Tokens in memory; default: the model's, at most 4,096.")
    ] = None,
    kv: Annotated[Literal["f16", "q8", "f32"], typer.Option(help="Type of the KV cache.")] = "f16",
    threads: Annotated[int | None, typer.Option(help="Default: the physical cores.")] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also run the files that are here, and measure.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw it: a .png or .svg file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table as CSV.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the memory footprint of models and file types."""
    from pocketlm.advise.footprint import DEFAULT_TYPES
    from pocketlm.advise.footprint import footprint as compute
    from pocketlm.advise.footprint_table import csv_text
    from pocketlm.cli.fetching import fetch
    from pocketlm.cli.output import progress, write_json
    from pocketlm.files import save

    if plot is not None:
        from pocketlm.advise.footprint_picture import draw, picture_format, require_matplotlib

        format = picture_format(plot)  # what cannot be drawn is said before the work
        require_matplotlib()
    wanted = DEFAULT_TYPES if types is None else _names(types)
    found: list[Footprint] = []
    for ref in dict.fromkeys(refs):
        if measure or not _known_elsewhere(ref):
            fetch(ref)
        with progress() as report:
            found += compute(
                ref,
                wanted,
                context=context,
                kv=kv,
                threads=threads,
                measure=measure,
                progress=report,
            )
    if csv is not None:
        save(csv, csv_text(found).encode())
    if plot is not None:
        save(plot, draw(found, format))
    if as_json:
        write_json([asdict(one) for one in found])
        return
    _write(found)


def _known_elsewhere(ref: str) -> bool:
    """Whether the catalog, or the hub with some headers, tells enough of a model."""
    from pocketlm.advise.performance import catalog_entry
    from pocketlm.store import parse
    from pocketlm.store.refs import HubRef

    return isinstance(parse(ref), HubRef) or catalog_entry(ref) is not None


def _names(types: str) -> tuple[str, ...]:
    """``Q4_0,Q4_K_M`` as names."""
    if types.strip().lower() == "none":
        return ()
    names = tuple(name.strip() for name in types.split(",") if name.strip())
    if not names:
        raise RequestError("--types names no file type", hint="For example: --types Q4_0,Q4_K_M.")
    return names


def _write(found: Sequence[Footprint]) -> None:
    from pocketlm.cli.output import harmless, size_text, write_table

    measured = any(one.measured_peak for one in found)
    head = ["TYPE", "FILE", "BITS/WEIGHT", "VS F16", "WEIGHTS", "KV/1K", "PEAK"]
    head += ["MEASURED"] * measured + ["NOTE"]
    for number, model in enumerate(dict.fromkeys(one.model for one in found)):
        rows = [one for one in found if one.model == model]
        where = "" if rows[0].where == "here" else f", from the {rows[0].where}"
        print(f"{chr(10) if number else ''}{harmless(model)}, context {rows[0].context:,}{where}")
        write_table(
            head,
            [
                (
                    one.type,
                    size_text(one.file),
                    f"{one.bits_per_weight:.2f}",
                    _change(-100 * one.reduction),
                    size_text(one.weights),
                    size_text(one.kv_per_1k),
                    size_text(one.peak),
                    *([size_text(one.measured_peak) if one.measured_peak else ""] * measured),
                    _note(one, rows[0]),
                )
                for one in rows
            ],
        )


def _change(percent: float) -> str:
    return f"{percent:+.1f} %" if abs(percent) >= 0.05 else "same"


def _note(one: Footprint, original: Footprint) -> str:
    if one.on_disk:
        return "on disk"
    if one is original:
        return "as published"
    return f"made again from {original.type}" if one.requantized else ""
