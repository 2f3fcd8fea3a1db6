"""How much memory a model will take, before any of it is taken.

Sums, for the decision whether to load a model and for advice:

* ``core_memory``: packed weights, KV cache and workspace. They are the executor's own sum, over the
  program with weights that have a shape but no data, so what is promised is what it takes; also
  for a file of other types that is not written yet.
* ``tokenizer_memory``: the vocabulary. The tables are the core's; what Python and the
  ``tokenizers`` library allocate besides is measured (Linux x86-64, CPython 3.11, tokenizers 0.23)
  over vocabularies of 49,152 to 262,144 tokens; it reproduces what stays resident within 5 MiB.
* ``decode_reads``: what of it one decoded token reads, which bounds the speed of decoding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketlm import _native
from pocketlm.errors import ModelFileError
from pocketlm.gguf import BlockType
from pocketlm.models.program import Attention, Floats, Linear, lower
from pocketlm.models.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What an executor allocates for; see ``pocketlm.engine.runner.Runner``.

    Attributes:
        tokens, sequences, rows: new tokens, sequences and rows of logits in a step.
        context: positions that each sequence may have.
        pool: positions that all sequences may have together, at least ``context``; None is as many
            as they can have.
        kv: type of the KV cache, "f16", "q8" or "f32".
        threads: that compute; each has a scratch buffer.
    """

    tokens: int
    sequences: int
    rows: int
    context: int
    pool: int | None = None
    kv: str = "f16"
    threads: int = 1


@dataclass(frozen=True)
class CoreMemory:
    """Bytes of packed weights, of the KV cache and of the buffers of a step."""

    weights: int
    kv: int
    workspace: int


@dataclass(frozen=True)
class DecodeReads:
    """Bytes of packed weights and of the KV cache that are read to decode one token."""

    weights: int
    kv: int


@dataclass(frozen=True)
class TokenizerMemory:
    """Bytes of a tokenizer: what stays, and the most there are while it is built."""

    kept: int
    building: int


def core_memory(
    spec: ModelSpec, capacity: Capacity, types: Mapping[str, BlockType] | None = None
) -> CoreMemory:
    """What the core would allocate for ``capacity``.

    types: block types of matrices that differ from the file's, by name.
    Raises ModelFileError for a matrix that cannot be packed, CapacityError for absurd sizes.
    """
    return core_memories(spec, [capacity], types)[0]


def core_memories(
    spec: ModelSpec,
    capacities: Sequence[Capacity],
    types: Mapping[str, BlockType] | None = None,
) -> list[CoreMemory]:
    """``core_memory`` for several capacities, which have the first one's threads."""
    executor = _native.Executor(capacities[0].threads)
    lower(spec.program, _Planned(spec, types or {}), executor)
    found = []
    for one in capacities:
        pages = kv_pages(executor.windows, one)
        sizes = executor.requirements(one.tokens, one.sequences, one.rows, pages, one.kv)
        found.append(CoreMemory(sizes["weights"], sizes["kv"], sizes["workspace"]))
    return found


def kv_pages(windows: Sequence[int], capacity: Capacity) -> list[int]:
    """Pages of the KV cache for groups of layers with these windows (0: all positions are seen).

    As many as all sequences can hold at once, each with a whole context or all within the pool:
    with n new tokens one holds at most (window + n - 3) // page + 2 (see ``pages_held``), and a
    step has ``tokens`` new ones over all sequences.
    """
    page, sequences = _native.PAGE_POSITIONS, capacity.sequences
    whole = sequences * pages_held(0, capacity.context, capacity.tokens, page)
    if capacity.pool is not None:
        whole = min(whole, -(-capacity.pool // page))
    return [
        min(whole, (sequences * (window - 3) + capacity.tokens) // page + 2 * sequences)
        if window
        else whole
        for window in windows
    ]


def pages_held(window: int, positions: int, new: int, page: int) -> int:
    """The most pages that a sequence of ``positions`` needs while ``new`` of them are computed.

    The first new token sees window - 1 positions before itself, so window - 1 + new positions are
    read or written; n consecutive ones touch at most (n - 2) // page + 2 pages.
    """
    whole = -(-positions // page)
    return min(whole, (window + new - 3) // page + 2) if window else whole


def decode_reads(
    spec: ModelSpec,
    positions: int,
    kv: str = "f16",
    types: Mapping[str, BlockType] | None = None,
) -> DecodeReads:
    """What the token at position ``positions`` of a sequence reads: all matrices but the rows of
    the embedding that it is not, and the keys and values before it, of a sliding window its last.

    types: as in ``core_memory``.
    """
    planned, shapes = _Planned(spec, types or {}), spec.program.shapes()
    ops = spec.program.ops
    matrices = {part.weight for op in ops if isinstance(op, Linear) for part in op.parts}
    weights = sum(planned.matrix(name).nbytes for name in matrices if len(shapes[name]) == 2)
    page = _native.PAGE_POSITIONS
    capacity = Capacity(tokens=1, sequences=1, rows=1, context=page, kv=kv)  # one of each layer
    per_position = core_memory(spec, capacity).kv / page
    layers = [op for op in ops if isinstance(op, Attention)]
    widths = [op.kv_heads * op.head_dim for op in layers]
    seen = [min(positions, op.window or positions) for op in layers]
    share = sum(w * s for w, s in zip(widths, seen, strict=True)) / max(1, sum(widths))
    return DecodeReads(weights, round(per_position * share))


def tokenizer_memory(spec: ModelSpec) -> TokenizerMemory:
    """What the model's tokenizer takes, from the size of its vocabulary and merges.

    Of a GGUF file the core keeps the texts and two hash tables (``native/text``): an id for each
    of at least twice as many slots as tokens, 16 bytes for each of at least 1.5 times as many as
    the file has merges. Python keeps holes where the file's strings were, which are gone with it.
    """
    source = spec.tokenizer_source
    if isinstance(source, Path):
        return _library_memory(source, spec.config.vocab)
    tokens, merges = (_length(source.get(f"tokenizer.ggml.{key}")) for key in ("tokens", "merges"))
    tables = 4 * _power_of_two(2 * tokens) + 16 * _power_of_two(3 * merges // 2)
    kept = 2_500_000 + tables + 38 * tokens
    return TokenizerMemory(kept, max(kept, 2_500_000 + 200 * tokens + 100 * merges))


def _library_memory(folder: Path, tokens: int) -> TokenizerMemory:
    """What the ``tokenizers`` library takes for a folder's tokenizer.json.

    It keeps three hash tables: text to id and id to text (33 bytes a bucket) and pairs to their
    merge (17), of which there are about two for each token; a table is at most 7/8 full. Each token
    has its text in all of them and as a string of Python. While it is built there is a tree of the
    file, 26 times its size, of which holes of twice the file stay.
    """
    file = folder / "tokenizer.json"
    size = file.stat().st_size if file.is_file() else 0
    tables = 76 * _power_of_two(8 * tokens // 7) + 17 * _power_of_two(16 * tokens // 7)
    kept = tables + 183 * tokens + 2 * size
    return TokenizerMemory(kept, max(kept, 26 * size))


def _length(value: object) -> int:
    """Of a list; a range stands for texts that are counted and not known (``shapes``)."""
    return len(value) if isinstance(value, list | range) else 0


def _power_of_two(least: int) -> int:
    """The smallest one above ``least``."""
    return 1 << max(2, least.bit_length())


class _Planned:
    """Weights of a program as shapes without data."""

    def __init__(self, spec: ModelSpec, types: Mapping[str, BlockType]) -> None:
        self._spec = spec
        self._types = types
        self._shapes = spec.program.shapes()

    def matrix(self, name: str) -> _native.Weight:
        type = self._types.get(name) or self._spec.source.type(name)
        try:
            return _native.Weight.plan(int(type), *self._shapes[name])
        except ValueError as error:
            raise ModelFileError(f"tensor '{name}': {error}", path=self._spec.path) from error

    def vector(self, name: str) -> Floats:
        return np.zeros(self._shapes[name], np.float32)
