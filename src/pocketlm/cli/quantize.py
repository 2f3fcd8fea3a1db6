"""``pocketlm quantize REF OUT TYPE``: a model in fewer bits a weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pocketlm.cli.output import AsJson

if TYPE_CHECKING:
    from pocketlm.quantize.plan import PlannedTensor
    from pocketlm.quantize.quantization import Quantized


def quantize(
    ref: Annotated[str, typer.Argument(help="The model: a .gguf file, a folder, hf:ORG/REPO …")],
    out: Annotated[Path, typer.Argument(help="The file to write.")],
    type: Annotated[str, typer.Argument(help="Q4_K_M, Q4_0, Q8_0 … in any case.")],
    method: Annotated[
        Literal["nearest", "search", "calibrated", "distilled"],
        typer.Option(help="How weights are rounded; each takes longer and loses less."),
    ] = "search",
    calibration: Annotated[
        str | None,
        typer.Option(help="A UTF-8 text, or 'builtin': the default where a method needs one."),
    ] = None,
    calibration_tokens: Annotated[
        int | None,
        typer.Option(help="Use no more of the calibration text; default: 32768.", min=1),
    ] = None,
    imatrix: Annotated[
        Path | None, typer.Option(help="An importance matrix to use, .gguf or .dat.")
    ] = None,
    save_imatrix: Annotated[
        Path | None, typer.Option(help="Write the importance matrix that is measured.")
    ] = None,
    tensor: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN=TYPE", help="A block type for tensors of such a name."),
    ] = None,
    output_type: Annotated[
        str | None, typer.Option(help="Block type of the output matrix.")
    ] = None,
    embedding_type: Annotated[str | None, typer.Option(help="Block type of the embedding.")] = None,
    pure: Annotated[bool, typer.Option("--pure", help="One block type for all matrices.")] = False,
    allow_requantize: Annotated[
        bool, typer.Option("--allow-requantize", help="Accept a model that is quantized already.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the tensors and sizes; write nothing.")
    ] = False,
    threads: Annotated[int | None, typer.Option(help="Default: the physical cores.", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Write a model in fewer bits a weight."""
    from pocketlm.cli.fetching import fetch
    from pocketlm.cli.output import progress, write_json
    from pocketlm.quantize.quantization import quantize as run
    from pocketlm.quantize.quantization import source_path

    fetch(ref)
    options: dict[str, Any] = {
        "overrides": tensor or (),
        "output_type": output_type,
        "embedding_type": embedding_type,
        "pure": pure,
        "allow_requantize": allow_requantize,
    }
    if dry_run:
        guided = method in ("calibrated", "distilled") or calibration is not None or imatrix
        _dry_run(source_path(ref), type, options, bool(guided), as_json)
        return
    with progress() as report:
        found = run(
            ref,
            out,
            type,
            method=method,
            calibration=calibration,
            calibration_tokens=calibration_tokens,
            imatrix=imatrix,
            save_imatrix=save_imatrix,
            force=force,
            threads=threads,
            progress=report,
            **options,
        )
    if as_json:
        write_json(asdict(found) | {"path": str(found.path)})
    else:
        _write(found)


def _write(found: Quantized) -> None:
    from pocketlm.cli.output import harmless, size_text

    print(
        f"{harmless(str(found.path))}: {found.file_type}, {size_text(found.size)}, "
        f"{found.bits_per_weight:.2f} bits per weight"
    )
    for method, divergence in found.held_out.items():
        kept = "  (kept)" if method == found.method else ""
        print(f"  {method:<11} mean KL {divergence:.5f} on held-out calibration text{kept}")
    if found.fallbacks:
        print(
            f"  {len(found.fallbacks)} tensors have rows that the wanted type's blocks do not "
            f"fit: they are {', '.join(sorted(set(found.fallbacks.values())))}"
        )


def _dry_run(path: Path, type: str, options: dict[str, Any], guided: bool, as_json: bool) -> None:
    from pocketlm.cli.output import size_text, write_json, write_table
    from pocketlm.convert.stream import open_stream
    from pocketlm.quantize.plan import plan
    from pocketlm.quantize.quantization import file_size, make_recipe

    recipe = make_recipe(type, **options)
    with open_stream(path) as stream:
        planned = plan(stream, recipe, has_importance=guided)
        size = file_size(stream, planned, recipe)
    bits = 8 * size / sum(math.prod(item.tensor.shape) for item in planned)
    if as_json:
        rows = [_record(item) for item in planned]
        write_json({"tensors": rows, "size": size, "bits_per_weight": bits})
        return
    write_table(("TENSOR", "SHAPE", "FROM", "TO", "BYTES", ""), _rows(planned))
    print(f"{len(planned)} tensors, {size_text(size)}, {bits:.2f} bits per weight")


def _record(item: PlannedTensor) -> dict[str, Any]:
    return {
        "name": item.tensor.name,
        "shape": list(item.tensor.shape),
        "from": item.tensor.type.name,
        "to": item.type.name,
        "bytes": item.nbytes,
        "fallback_from": None if item.fallback is None else item.fallback.name,
    }


def _rows(planned: Sequence[PlannedTensor]) -> list[tuple[str, ...]]:
    return [
        (
            item.tensor.name,
            " × ".join(map(str, item.tensor.shape)),
            item.tensor.type.name,
            item.type.name,
            f"{item.nbytes:,}",
            "" if item.fallback is None else f"its rows do not fit {item.fallback.name}",
        )
        for item in planned
    ]
