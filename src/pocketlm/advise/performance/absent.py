"""Models that are not here: a spec and a list of tensors from facts or headers, without values.

Of a catalog's entry the shapes are known; of files on the hub everything but the values and, of a
folder, the tokenizer, whose size is estimated as that of a catalog's entry is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, cast

from pocketlm.catalog import CatalogEntry
from pocketlm.convert.architecture import architecture_of
from pocketlm.convert.stream import (
    ARCHITECTURE_KEY,
    StreamTensor,
    TensorStream,
    gguf_stream,
)
from pocketlm.errors import ModelFileError, UnsupportedError
from pocketlm.gguf import BlockType, GGUFFile, Value
from pocketlm.models.families import FAMILIES
from pocketlm.models.safetensors import Entry, parse_header
from pocketlm.models.shapes import ShapeSource, counted_tokenizer, shape_spec
from pocketlm.models.spec import ModelSpec, folder_spec, gguf_spec
from pocketlm.search.hub_model import RemoteFolder

# Bytes of a token's text and type in a GGUF file, of a merge, and of a score where a tokenizer has
# scores instead: from SmolLM2 (36.0 a token with its merge) and Gemma 3 (24.8 with its score).
_TOKEN_BYTES, _MERGE_BYTES, _SCORE_BYTES = 20, 16, 5
_ABOUT_BYTES = 6_000  # of a chat template, names and licence


@dataclass(frozen=True)
class Absent:
    """Attributes:
    spec: tensors without values, and a tokenizer that is counted.
    stream: as ``quantize`` would read it, without the tokenizer.
    texts: bytes of metadata that a file of it has besides: an estimate.
    """

    spec: ModelSpec
    stream: TensorStream
    texts: int


def of_entry(entry: CatalogEntry) -> Absent:
    """A model by a catalog's facts.

    Raises UnsupportedError for an architecture that PocketLM does not run, ModelFileError for facts
    that contradict each other.
    """
    if entry.shape is None:
        raise UnsupportedError(
            f"{entry} has an architecture that PocketLM does not run",
            hint=f"It runs {', '.join(sorted(family.name for family in FAMILIES))}.",
        )
    spec = shape_spec(entry.shape, str(entry))
    source = spec.tokenizer_source
    assert isinstance(source, Mapping)
    metadata = {
        key: cast(Value, value) for key, value in source.items() if not isinstance(value, range)
    }
    stream = TensorStream(spec.path, spec.architecture, metadata, _tensors(spec))
    return Absent(spec, stream, _texts(source))


def of_gguf(file: GGUFFile) -> tuple[ModelSpec, TensorStream]:
    """A GGUF file, or a set of them, of which only the headers are known.

    Raises what ``open_model`` does.
    """
    infos = file.tensors
    shapes = {name: info.shape for name, info in infos.items()}
    types = {name: info.type for name, info in infos.items()}
    spec = gguf_spec(file.metadata, ShapeSource(file.path, shapes, types))
    return spec, gguf_stream(file)


def of_folder(folder: RemoteFolder, name: str) -> Absent:
    """A folder of safetensors of which only the headers are known, under the name ``name``.

    Raises what ``open_model`` does, and UnsupportedError for a configuration that GGUF cannot say.
    """
    path = Path(name)

    def entries() -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for file, (header, size) in folder.headers.items():
            found |= parse_header(header, size, path / file)
        return found

    spec = folder_spec(folder.config, entries, path)
    architecture = architecture_of(spec.config, path)
    shapes = {one: values.shape for one, values in architecture.factors.items()}
    shapes |= spec.program.shapes()
    types = {
        one: spec.source.type(one) if len(shape) > 1 else BlockType.F32
        for one, shape in shapes.items()
    }
    tokenizer = counted_tokenizer(spec.config.family, spec.config.vocab)
    spec = replace(spec, source=ShapeSource(path, shapes, types), tokenizer_source=tokenizer)
    metadata = {ARCHITECTURE_KEY: architecture.name, **architecture.keys}
    stream = TensorStream(path, architecture.name, metadata, _tensors(spec))
    return Absent(spec, stream, _texts(tokenizer))


def _tensors(spec: ModelSpec) -> list[StreamTensor]:
    source = spec.source
    return [empty(name, source.type(name), source.shape(name)) for name in source.names()]


def _texts(tokenizer: Mapping[str, object]) -> int:
    """Bytes of the texts that ranges stand for, and of what else a file says in words."""
    tokens, merges = (
        len(cast(range, tokenizer[f"tokenizer.ggml.{key}"])) for key in ("tokens", "merges")
    )
    each = _TOKEN_BYTES + (0 if merges else _SCORE_BYTES)
    return each * tokens + _MERGE_BYTES * merges + _ABOUT_BYTES


def empty(name: str, type: BlockType, shape: tuple[int, ...]) -> StreamTensor:
    """A tensor of a stream that has no values."""

    def nothing() -> None:
        """There are no pages."""

    def absent() -> NoReturn:
        raise ModelFileError(f"tensor '{name}' is planned with and has no values")

    return StreamTensor(name, type, shape, absent, nothing)
