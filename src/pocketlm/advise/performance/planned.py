"""A model as it would be in each file type: of a file that is here, or of a catalog's facts.

Both become the same thing: a spec and a list of tensors, which know shapes and types and have no
values. ``quantize`` says from the list what it would write, and the core what it would allocate.
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
from typing import NoReturn, cast

from pocketlm.catalog import CatalogEntry, entries, find
from pocketlm.convert.stream import StreamTensor, TensorStream, open_stream
from pocketlm.errors import ModelFileError, NotFoundError, UnsupportedError
from pocketlm.gguf import BlockType, Value
from pocketlm.gguf.metadata import encode_metadata
from pocketlm.models.families import FAMILIES
from pocketlm.models.memory import TokenizerMemory, tokenizer_memory
from pocketlm.models.shapes import ShapeSource, shape_spec
from pocketlm.models.spec import ModelSpec, open_model
from pocketlm.quantize.file_types import FileType, file_type
from pocketlm.quantize.plan import FLOATS, PlannedTensor, Recipe, plan
from pocketlm.quantize.quantization import file_size
from pocketlm.store import Store, parse
from pocketlm.store.describe import describe_path
from pocketlm.store.importing import model_files
from pocketlm.store.refs import NameRef

PUBLISHED_TYPE = "BF16"
"""What the makers of a model publish it in, and ``quantize`` would start from."""

# Bytes of a token's text and type in a GGUF file, of a merge, and of a score where a tokenizer has
# scores instead: from SmolLM2 (36.0 a token with its merge) and Gemma 3 (24.8 with its score).
_TOKEN_BYTES, _MERGE_BYTES, _SCORE_BYTES = 20, 16, 5
_ABOUT_BYTES = 6_000  # of a chat template, names and licence
_FILLER = "tokenizer.texts"
_WHOLE = 1 << 16  # bytes, a multiple of every alignment in use


@dataclass(frozen=True, eq=False)
class PlannedFile:
    """A model in one file type.

    Attributes:
        type: its name, ``Q4_K_M``.
        types: of each tensor.
        size: bytes of the file.
        own: whether it is the file that is here.
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
        here: whether it is on disk.
        size: bytes on disk; None where it is not.
        parameters: weights of all its tensors.
        tokenizer: memory of it; estimated from the vocabulary where the model is not here, as are
            the texts in its file.
    """

    def __init__(
        self,
        name: str,
        spec: ModelSpec,
        stream: TensorStream,
        *,
        texts: int,
        own_type: str,
        size: int | None,
        tokenizer: TokenizerMemory,
    ) -> None:
        self.name = name
        self.spec = spec
        self.own_type = own_type
        self.here = size is not None
        self.size = size
        self.parameters = sum(math.prod(tensor.shape) for tensor in stream.tensors)
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
        """The model in a file type; None is the file that is here, or what is published.

        Raises RequestError for a type that there is not.
        """
        if type is None:
            return self._own if self.here else self.file(self.own_type)
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
        if self.here and kind.name == self.own_type and all(one.copied for one in tensors):
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


def planned(model: CatalogEntry | Path | str) -> PlannedModel:
    """A model to plan with.

    Args:
        model: an entry of the catalog, whether or not the model is here; the path of a .gguf file
            or a safetensors folder; or a ref: of the store, else of the catalog.

    Raises UnsupportedError for a model that PocketLM does not run, NotFoundError for a ref that
    neither the store nor the catalog knows, and what opening the model raises.
    """
    if isinstance(model, CatalogEntry):
        return _from_entry(model)
    if isinstance(model, Path):
        return _from_path(str(model), model)
    try:
        path = Store().resolve(model).path
    except NotFoundError:
        entry = catalog_entry(model)
        if entry is None:
            raise
        return _from_entry(entry)
    return _from_path(model, path)


def catalog_entry(ref: str) -> CatalogEntry | None:
    """What the catalog knows under a name, or of where a model comes from; None for nothing."""
    parsed = parse(ref)
    if isinstance(parsed, NameRef):
        return find(parsed.name, parsed.tag)
    return next((entry for entry in entries() if entry.ref == ref), None)


def _from_path(name: str, path: Path) -> PlannedModel:
    with closing(open_model(path)) as spec, open_stream(path) as stream:
        tokenizer = tokenizer_memory(spec)
        shapes = spec.program.shapes()
        types = {one: spec.source.type(one) for one in shapes}
        empty = replace(spec, source=ShapeSource(path, shapes, types), tokenizer_source={})
        texts = {k: v for k, v in stream.metadata.items() if k.startswith("tokenizer.")}
        return PlannedModel(
            name,
            empty,
            _without(stream, texts),
            texts=len(encode_metadata(texts)),
            own_type=describe_path(path).quantization,
            size=sum(given.path.stat().st_size for given in model_files(path)),
            tokenizer=tokenizer,
        )


def _from_entry(entry: CatalogEntry) -> PlannedModel:
    if entry.shape is None:
        raise UnsupportedError(
            f"{entry} has an architecture that PocketLM does not run",
            hint=f"It runs {', '.join(sorted(family.name for family in FAMILIES))}.",
        )
    spec = shape_spec(entry.shape, str(entry))
    source = spec.tokenizer_source
    assert isinstance(source, Mapping)
    counted = {key: value for key, value in source.items() if isinstance(value, range)}
    metadata = {key: cast(Value, source[key]) for key in source if key not in counted}
    tokens, merges = (len(counted[f"tokenizer.ggml.{key}"]) for key in ("tokens", "merges"))
    each = _TOKEN_BYTES + (0 if merges else _SCORE_BYTES)
    texts = each * tokens + _MERGE_BYTES * merges + _ABOUT_BYTES
    names = spec.source.names()
    tensors = [_empty(one, spec.source.type(one), spec.source.shape(one)) for one in names]
    return PlannedModel(
        str(entry),
        spec,
        TensorStream(spec.path, spec.architecture, metadata, tensors),
        texts=texts,
        own_type=PUBLISHED_TYPE,
        size=None,
        tokenizer=tokenizer_memory(spec),
    )


def _without(stream: TensorStream, texts: Mapping[str, Value]) -> TensorStream:
    """The same stream, without its file's values and without the tokenizer's texts."""
    rest = {key: value for key, value in stream.metadata.items() if key not in texts}
    tensors = [_empty(one.name, one.type, one.shape) for one in stream.tensors]
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


def _empty(name: str, type: BlockType, shape: tuple[int, ...]) -> StreamTensor:
    def nothing() -> None:
        """There are no pages."""

    def absent() -> NoReturn:
        raise ModelFileError(f"tensor '{name}' is planned with and has no values")

    return StreamTensor(name, type, shape, absent, nothing)
