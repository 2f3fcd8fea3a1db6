"""Models of one's own, from a recipe: what ``pocketlm create`` and ``/api/create`` call.

The store keeps them (``store.creating``); a wish for fewer bits goes through ``quantize`` first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pocketlm.errors import NotFoundError, RequestError
from pocketlm.progress import ProgressCallback, silent
from pocketlm.store import Store, StoredModel, files, importing
from pocketlm.store.creating import (
    Additions,
    Base,
    base_of_blobs,
    base_of_model,
    created_name,
)
from pocketlm.store.describe import describe
from pocketlm.store.manifest import FileRecord, Source
from pocketlm.store.modelfile import Modelfile
from pocketlm.store.refs import NameRef, PathRef, parse
from pocketlm.store.setup import is_record


@dataclass(frozen=True, kw_only=True)
class Creation:
    """What is to be made.

    Attributes:
        name: of the new model; one that has it is replaced.
        base: a ref of the store, or with ``paths`` a path; None where ``blobs`` are given.
        blobs: digests of blobs of the store by the file's name.
        quantize: a file type as ``Q4_K_M``; the weights must not be quantized already.
        paths: whether ``base`` may be a path. Never for clients of a server.
    """

    name: str
    base: str | None = None
    blobs: Mapping[str, str] | None = None
    additions: Additions = field(default_factory=Additions)
    quantize: str | None = None
    paths: bool = False


def of_modelfile(
    name: str, modelfile: Modelfile, folder: Path, *, quantize: str | None = None
) -> Creation:
    """What a Modelfile of the user's own says; its paths begin at ``folder``, where it lies."""
    base = parse(modelfile.base)
    return Creation(
        name=name,
        base=str(folder.absolute() / base.path) if isinstance(base, PathRef) else modelfile.base,
        additions=Additions(
            template=modelfile.template,
            system=modelfile.system,
            params=modelfile.params,
            messages=modelfile.messages or None,
            licences=modelfile.licences or None,
        ),
        quantize=quantize,
        paths=True,
    )


def make(store: Store, creation: Creation, progress: ProgressCallback = silent) -> StoredModel:
    """Creates the model.

    Raises RequestError for a recipe that makes no sense, NotFoundError for a base that is not here,
    ModelFileError for files that are no model, CapacityError for a full disk. What was there before
    stays until the new model is whole.
    """
    name = created_name(creation.name)
    base = _base(store, creation, progress)
    if creation.quantize:
        base = _quantized(store, base, creation.quantize, name, progress)
    return store.create(name, base, creation.additions)


def _base(store: Store, creation: Creation, progress: ProgressCallback) -> Base:
    if (creation.base is None) == (creation.blobs is None):
        raise RequestError("neither 'from' or 'files' was specified; expected one of them")
    if creation.blobs is not None:
        return base_of_blobs(store.shelf, creation.blobs, progress)
    assert creation.base is not None
    parsed = parse(creation.base)
    if not isinstance(parsed, PathRef):
        return base_of_model(store.resolve(creation.base, progress=progress))
    if not creation.paths:
        raise NotFoundError(f"there is no model '{creation.base[:200]}'")
    return _base_of_path(parsed.path, progress)


def _base_of_path(path: Path, progress: ProgressCallback) -> Base:
    """Files of the user's own, used where they lie."""
    given = importing.model_files(path.expanduser().absolute())
    records = tuple(importing.refer(one, progress) for one in given)
    facts = describe([(r, one.path) for r, one in zip(records, given, strict=True)])
    return Base(records, facts, Source(ref=str(given[0].path), base=str(path)))


def _quantized(
    store: Store, base: Base, type: str, name: NameRef, progress: ProgressCallback
) -> Base:
    """The base with other weights: a new GGUF file, stored as a blob. Records stay."""
    from pocketlm.quantize.quantization import quantize

    shelf = store.shelf
    files.make_folder(shelf.partial)
    with tempfile.TemporaryDirectory(prefix="create-", dir=shelf.partial) as folder:
        source = _laid_out(store, base, Path(folder, "source"))
        out = Path(folder, f"{name.name}-{name.tag}.gguf")
        quantize(source, out, type, progress=progress)
        sha256, size = files.hash_file(out), out.stat().st_size
        record = FileRecord(name=out.name, role="weights", size=size, sha256=sha256)
        facts = describe([(record, out)])
        shelf.blobs.adopt(out, sha256, size)
    kept = [file for file in base.files if is_record(file)]
    return replace(base, files=(record, *kept), facts=facts)


def _laid_out(store: Store, base: Base, folder: Path) -> Path:
    """The weights under their own names in one folder; the file, or the folder of safetensors."""
    folder.mkdir()
    for file in base.files:
        if file.reference is not None:
            (folder / file.name).symlink_to(Path(file.reference.path))
        else:
            store.shelf.blobs.link(file.sha256, folder / file.name)
    weights = sorted(file.name for file in base.files if file.role == "weights")
    return folder / weights[0] if base.facts.format == "gguf" else folder
