"""``pocketlm convert REF -o OUT``: a Hugging Face folder as a GGUF file, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pocketlm.cli.output import AsJson

if TYPE_CHECKING:
    from pocketlm.gguf import BlockType, Value
    from pocketlm.progress import ProgressCallback
    from pocketlm.store import StoredModel


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
    as_json: AsJson = False,
) -> None:
    """Write a model in another format: safetensors to GGUF, or GGUF to safetensors."""
    from pocketlm.cli.fetching import fetch
    from pocketlm.cli.output import harmless, progress, size_text, write_json
    from pocketlm.store import Store

    fetch(ref)
    model = Store().resolve(ref)
    _check_output(model.path, output, force=force and to == "gguf")
    with progress() as report:
        if to == "hf":
            found = _to_folder(model, output, type, report)
        else:
            found = _to_gguf(model, output, type, name, report)
    if as_json:
        write_json(found)
    else:
        print(
            f"{harmless(str(output))}: {found['architecture']}, {found['type']}, "
            f"{found['tensors']} tensors, {size_text(found['size'])}"
        )


def _check_output(source: Path, output: Path, *, force: bool) -> None:
    from pocketlm.errors import RequestError

    if not output.exists():
        return
    if output.samefile(source):
        raise RequestError("the output is the model itself", path=output)
    if output.is_dir() or not force:
        hint = "Name another." if output.is_dir() else "Name another, or say --force to replace it."
        raise RequestError("there is something at this path already", path=output, hint=hint)


def _to_folder(
    model: StoredModel, output: Path, type: str | None, progress: ProgressCallback
) -> dict[str, Any]:
    from pocketlm.convert.to_folder import write_folder

    written = write_folder(model.path, output, type=_float_type(type), progress=progress)
    return {
        "path": str(output),
        "architecture": written.architecture,
        "type": written.type.name,
        "tensors": written.tensors,
        "size": sum(file.stat().st_size for file in output.iterdir()),
    }


def _float_type(name: str | None) -> BlockType | None:
    from pocketlm.errors import RequestError
    from pocketlm.gguf import BlockType

    if name is None:
        return None
    known = {"F32": BlockType.F32, "F16": BlockType.F16, "BF16": BlockType.BF16}
    if name.upper() not in known:
        raise RequestError(f"a folder has f32, f16 or bf16 weights, found '{name}'")
    return known[name.upper()]


def _to_gguf(
    model: StoredModel,
    output: Path,
    type: str | None,
    name: str | None,
    progress: ProgressCallback,
) -> dict[str, Any]:
    from pocketlm.convert import open_stream
    from pocketlm.convert.write import write_floats

    with open_stream(model.path) as stream:
        wanted = _float_type(type)
        extra = _said(model, name, stream.metadata)
        written = write_floats(stream, output, type=wanted, extra_metadata=extra, progress=progress)
        architecture = stream.architecture
    return {
        "path": str(output),
        "architecture": architecture,
        "type": written.type.name,
        "tensors": written.tensors,
        "size": output.stat().st_size,
    }


def _said(model: StoredModel, name: str | None, own: Mapping[str, Value]) -> dict[str, Value]:
    """What is known beside the model's own files: name, source, and the licence if they have none."""
    from pocketlm.store.refs import HubRef, parse

    said: dict[str, Value] = {}
    if model.manifest is not None:
        source, licence = model.manifest.source, model.manifest.facts.licence
        ref = parse(source.ref)
        if isinstance(ref, HubRef):
            said |= {"general.name": ref.repo, "general.organization": ref.org}
            if source.url is not None:
                said["general.source.repo_url"] = source.url
                said["general.source.url"] = f"{source.url}/tree/{source.revision}"
        if licence is not None and "general.license" not in own:
            said["general.license"] = licence
    if name is not None:
        said["general.name"] = name
    return said
