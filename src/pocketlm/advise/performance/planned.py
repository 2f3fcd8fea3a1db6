"""A model as it would be in each file type: of a file that is here, of headers, of facts.

All become the same thing: a spec and a list of tensors, which know shapes and types and have no
values. ``absent`` makes them of what is not here: a catalog's facts, the headers of files on the
hub. ``quantize`` says from the list what it would write, and the core what it would allocate.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from pocketlm.advise.performance.absent import Absent, empty, of_entry, of_folder, of_gguf
from pocketlm.catalog import CatalogEntry, entries, find
from pocketlm.convert.stream import TensorStream, open_stream
from pocketlm.errors import CapacityError, NotFoundError
from pocketlm.gguf import BlockType, GGUFFile, Value
from pocketlm.gguf.metadata import encode_metadata
from pocketlm.models.memory import TokenizerMemory, tokenizer_memory
from pocketlm.models.shapes import ShapeSource
from pocketlm.models.spec import ModelSpec, open_model
from pocketlm.quantize.file_types import FileType, file_type
from pocketlm.quantize.plan import FLOATS, PlannedTensor, Recipe, plan
from pocketlm.quantize.quantization import file_size
from pocketlm.search.hub_model import HubModel, hub_model
from pocketlm.store import Store, parse
from pocketlm.store.describe import describe_path
from pocketlm.store.importing import model_files
from pocketlm.store.refs import NameRef

PUBLISHED_TYPE = "BF16"
"""What the makers of a model publish it in, and ``quantize`` would start from."""

Where = Literal["here", "catalog", "hub"]
"""On this disk, or known from the catalog or from the headers of its files on the hub."""

_MOST_WEIGHTS = 200_000_000_000
_MOST_VOCABULARY = 1 << 20
_FILLER = "tokenizer.texts"
_WHOLE = 1 << 16  # bytes, a multiple of every alignment in use


@dataclass(frozen=True, eq=False)
class PlannedFile:
    """A model in one file type.

    Attributes:
        type: its name, ``Q4_K_M``.
        types: of each tensor.
        size: bytes of the file.
        own: whether it is the file itself, which is here or on the hub.
        requantized: whether it would be made of a file that is quantized already.
    """

    type: str
    types: Mapping[str, BlockType]
    size: int
    own: bool
    requantized: bool


class PlannedModel:
    """A model that is planned with.

    Attributes:
        name: the ref.
        spec: its program; tensors without values.
        own_type: the type that it is in: the file's, or what its makers publish.
        where: it is known from; ``here`` whether it is on disk.
        size: bytes of its files; None where it is known from the catalog.
        parameters: weights of all its tensors.
        tokenizer: memory of it; estimated from the vocabulary where there is no GGUF file, as are
            the texts in the files that could be made.

    Raises CapacityError for a model that is too large for anybody to plan with: shapes that only
    claim to be a model's would take hours.
    """

    def __init__(
        self,
        name: str,
        spec: ModelSpec,
        stream: TensorStream,
        *,
        texts: int,
        own_type: str,
        where: Where,
        size: int | None,
        tokenizer: TokenizerMemory,
    ) -> None:
        self.parameters = sum(math.prod(tensor.shape) for tensor in stream.tensors)
        _refuse_absurd(name, self.parameters, spec.config.vocab)
        self.name = name
        self.spec = spec
        self.own_type = own_type
        self.where = where
        self.here = where == "here"
        self.size = size
        self.tokenizer = tokenizer
        self._stream, self._texts = _filled(stream, texts)
        self._files: dict[str, PlannedFile] = {}

    @cached_property
    def fingerprint(self) -> str:
        """The same for models of the same program: its family, shapes and windows."""
        config, shapes = self.spec.config, self.spec.program.shapes()
        facts = [config.family, config.windows, sorted(shapes.items())]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def file(self, type: str | None = None) -> PlannedFile:
        """The model in a file type; None is as it is: the file itself, or what is published.

        Raises RequestError for a type that there is not.
        """
        if type is None:
            return self.file(self.own_type) if self.size is None else self._own
        kind = file_type(type)
        if kind.name not in self._files:
            self._files[kind.name] = self._planned(kind)
        return self._files[kind.name]

    @cached_property
    def _own(self) -> PlannedFile:
        assert self.size is not None
        types = {tensor.name: tensor.type for tensor in self._stream.tensors}
        return PlannedFile(self.own_type, types, self.size, own=True, requantized=False)

    def _planned(self, kind: FileType) -> PlannedFile:
        recipe = Recipe(kind, allow_requantize=True)
        tensors = plan(self._stream, recipe)
        is_own = self.size is not None and kind.name == self.own_type
        if is_own and all(one.copied for one in tensors):
            return self._own
        return PlannedFile(
            kind.name,
            {one.tensor.name: one.type for one in tensors},
            file_size(self._stream, tensors, recipe) + self._texts,
            own=False,
            requantized=any(_lossy_again(one) for one in tensors),
        )


def _lossy_again(tensor: PlannedTensor) -> bool:
    return not (tensor.copied or tensor.tensor.type in FLOATS)


def _refuse_absurd(name: str, weights: int, vocabulary: int) -> None:
    if weights > _MOST_WEIGHTS or vocabulary > _MOST_VOCABULARY:
        raise CapacityError(
            f"the shape of {name} has {weights:,} weights and a vocabulary of {vocabulary:,}: "
            "too many to plan with"
        )


def planned(model: CatalogEntry | HubModel | Path | str) -> PlannedModel:
    """A model to plan with.

    Args:
        model: an entry of the catalog, whether or not the model is here; a model of the hub; the
            path of a .gguf file or a safetensors folder; or a ref: of the store, else of the
            catalog, else of the hub, whose headers are asked for.

    Raises UnsupportedError for a model that PocketLM does not run, NotFoundError for a ref that
    nobody knows, CapacityError for absurd sizes, and what opening the model or ``hub_model``
    raises.
    """
    if isinstance(model, CatalogEntry):
        return _from_entry(model)
    if isinstance(model, HubModel):
        return _from_hub(model)
    if isinstance(model, Path):
        return _from_path(str(model), model)
    try:
        path = Store().resolve(model).path
    except NotFoundError:
        entry = catalog_entry(model)
        if entry is not None:
            return _from_entry(entry)
        remote = hub_model(model)
        if remote is None:
            raise
        return _from_hub(remote)
    return _from_path(model, path)


def catalog_entry(ref: str) -> CatalogEntry | None:
    """What the catalog knows under a name, or of where a model comes from; None for nothing."""
    parsed = parse(ref)
    if isinstance(parsed, NameRef):
        return find(parsed.name, parsed.tag)
    return next((entry for entry in entries() if entry.ref == ref), None)


def _from_path(name: str, path: Path) -> PlannedModel:
    with closing(open_model(path)) as spec, open_stream(path) as stream:
        size = sum(given.path.stat().st_size for given in model_files(path))
        type = describe_path(path).quantization
        return _of_files(name, spec, stream, own_type=type, where="here", size=size)


def _from_hub(model: HubModel) -> PlannedModel:
    name, type = str(model.ref), model.facts.quantization
    if isinstance(model.weights, GGUFFile):
        spec, stream = of_gguf(model.weights)
        return _of_files(name, spec, stream, own_type=type, where="hub", size=model.size)
    folder = of_folder(model.weights, name)
    return _of_absent(name, folder, own_type=type, where="hub", size=model.size)


def _from_entry(entry: CatalogEntry) -> PlannedModel:
    name = str(entry)
    return _of_absent(name, of_entry(entry), own_type=PUBLISHED_TYPE, where="catalog", size=None)


def _of_files(
    name: str, spec: ModelSpec, stream: TensorStream, *, own_type: str, where: Where, size: int
) -> PlannedModel:
    """Of files that say everything but, perhaps, the values of tensors."""
    shapes = spec.program.shapes()
    types = {one: spec.source.type(one) for one in shapes}
    source = ShapeSource(spec.path, shapes, types)
    texts = {k: v for k, v in stream.metadata.items() if k.startswith("tokenizer.")}
    return PlannedModel(
        name,
        replace(spec, source=source, tokenizer_source={}),
        _without(stream, texts),
        texts=len(encode_metadata(texts)),
        own_type=own_type,
        where=where,
        size=size,
        tokenizer=tokenizer_memory(spec),
    )


def _of_absent(
    name: str, model: Absent, *, own_type: str, where: Where, size: int | None
) -> PlannedModel:
    return PlannedModel(
        name,
        model.spec,
        model.stream,
        texts=model.texts,
        own_type=own_type,
        where=where,
        size=size,
        tokenizer=tokenizer_memory(model.spec),
    )


def _without(stream: TensorStream, texts: Mapping[str, Value]) -> TensorStream:
    """The same stream, without its file's values and without the tokenizer's texts."""
    rest = {key: value for key, value in stream.metadata.items() if key not in texts}
    tensors = [empty(one.name, one.type, one.shape) for one in stream.tensors]
    return TensorStream(stream.path, stream.architecture, rest, tensors)


def _filled(stream: TensorStream, texts: int) -> tuple[TensorStream, int]:
    """The stream of a file that has ``texts`` bytes more of metadata, and how many it still lacks.

    A filler takes the place of all but whole multiples of the alignment, which shift what follows
    and change nothing else: so no header of megabytes is made for each size.
    """
    frame = len(encode_metadata({_FILLER: ""}))
    if texts < frame:
        return stream, 0
    length = (texts - frame) % _WHOLE
    metadata = {**stream.metadata, _FILLER: " " * length}
    return replace(stream, metadata=metadata), texts - frame - length
