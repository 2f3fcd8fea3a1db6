"""One conversion, from names to files: what ``pocketlm convert`` and ``pocketlm.convert`` call.

Floats are written by ``convert`` itself; a quantized type is a recipe of ``quantize``, rounded by
its default method. The model's own files say most of what the new file says; name and source come
from the store where it knows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pocketlm.convert.floats import FLOAT_TYPES
from pocketlm.convert.stream import TensorStream, open_stream
from pocketlm.convert.to_folder import write_folder
from pocketlm.convert.write import write_floats
from pocketlm.engine.machine import available_cores
from pocketlm.errors import RequestError
from pocketlm.gguf import BlockType, GGUFFile, Value
from pocketlm.gguf.file_types import FILE_TYPE_KEY
from pocketlm.progress import ProgressCallback, silent
from pocketlm.quantize.file_types import FileType, file_type
from pocketlm.quantize.files import encoder, refuse_overwriting, write_quantized
from pocketlm.quantize.plan import Recipe, plan
from pocketlm.store import Store, StoredModel
from pocketlm.store.refs import HubRef, parse


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        path: the file or folder.
        architecture: GGUF's name of it.
        type: the file type, as ``Q4_K_M``, or the type of most weights.
        tensors: how many.
        size: bytes of everything.
    """

    path: Path
    architecture: str
    type: str
    tensors: int
    size: int


def convert(
    source: str | Path,
    out: str | Path,
    *,
    type: str | None = None,
    to: Literal["gguf", "hf"] = "gguf",
    name: str | None = None,
    force: bool = False,
    threads: int | None = None,
    progress: ProgressCallback = silent,
) -> Converted:
    """Writes a model in another format: a Hugging Face folder as GGUF, or GGUF as such a folder.

    Args:
        source: a ref of the store, the path of a folder or of a .gguf file.
        out: the file, or with ``to="hf"`` the folder, to write.
        type: ``f32``, ``f16``, ``bf16``, or for GGUF any type that ``pocketlm.quantize`` writes;
            None leaves every tensor in its own type (a folder made of quantized weights has f16).
        to: "gguf", or "hf" for a folder that transformers loads.
        name: what the GGUF file calls the model.
        force: replace a file that is there; a folder never is.
        threads: for quantized types; default: the physical cores.
        progress: in bytes of the new weights.

    Raises UnsupportedError for an architecture or tokenizer that PocketLM does not know,
    ModelFileError for broken files and for weights that are not finite, RequestError where
    something is in the way, CapacityError for a full disk. Nothing half is ever left.
    """
    model, out = Store().resolve(str(source)), Path(out)
    wanted = None if type is None else file_type(type)
    if to == "hf":
        _refuse_existing(model.path, out, force=False)
        return _to_folder(model, out, wanted, name, progress)
    _refuse_existing(model.path, out, force=force)
    with open_stream(model.path) as stream:
        extra = _known(model, name, stream.metadata)
        if wanted is None and model.path.is_file():
            extra |= _file_type(model.path)
        if wanted is None or wanted.type in FLOAT_TYPES:
            plain = None if wanted is None else wanted.type
            written = write_floats(stream, out, type=plain, extra_metadata=extra, progress=progress)
            label, tensors = written.type.name, written.tensors
        else:
            tensors = _quantized(stream, out, wanted, extra, threads, progress)
            label = wanted.name
        return Converted(out, stream.architecture, label, tensors, out.stat().st_size)


def _refuse_existing(source: Path, out: Path, *, force: bool) -> None:
    if not out.exists():
        return
    if out.is_file():
        refuse_overwriting(source, out)
    if out.is_dir() or not force:
        hint = "Name another." if out.is_dir() else "Name another, or say --force to replace it."
        raise RequestError("there is something at this path already", path=out, hint=hint)


def _to_folder(
    model: StoredModel,
    out: Path,
    wanted: FileType | None,
    name: str | None,
    progress: ProgressCallback,
) -> Converted:
    if wanted is not None and wanted.type not in FLOAT_TYPES:
        raise RequestError(f"a folder has f32, f16 or bf16 weights, not {wanted.name}")
    if name is not None:
        raise RequestError("a folder is called as it is named", hint="Leave --name out.")
    chosen: BlockType | None = None if wanted is None else wanted.type
    written = write_folder(model.path, out, type=chosen, progress=progress)
    size = sum(file.stat().st_size for file in out.iterdir())
    return Converted(out, written.architecture, written.type.name, written.tensors, size)


def _quantized(
    stream: TensorStream,
    out: Path,
    wanted: FileType,
    extra: Mapping[str, Value],
    threads: int | None,
    progress: ProgressCallback,
) -> int:
    """Writes a quantized file by the default method; how many tensors it has."""
    recipe = Recipe(wanted)
    planned = plan(stream, recipe)
    write_quantized(
        stream,
        planned,
        out,
        recipe=recipe,
        encode=encoder("search", None, threads=threads or available_cores()),
        extra_metadata=extra,
        progress=progress,
    )
    return len(planned)


def _file_type(path: Path) -> dict[str, Value]:
    """What a GGUF file says it is, for a copy of it."""
    with GGUFFile.open(path) as file:
        return {key: file.metadata[key] for key in (FILE_TYPE_KEY,) if key in file.metadata}


def _known(model: StoredModel, name: str | None, own: Mapping[str, Value]) -> dict[str, Value]:
    """What the store knows beside the files: name and source, and a licence if they have none."""
    known: dict[str, Value] = {}
    if model.manifest is not None:
        source, licence = model.manifest.source, model.manifest.facts.licence
        ref = parse(source.ref)
        if isinstance(ref, HubRef):
            known |= {"general.name": ref.repo, "general.organization": ref.org}
            if source.url is not None:
                known["general.source.repo_url"] = source.url
                known["general.source.url"] = f"{source.url}/tree/{source.revision}"
        if licence is not None and "general.license" not in own:
            known["general.license"] = licence
    return known if name is None else known | {"general.name": name}
