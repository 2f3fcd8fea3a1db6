"""A model's forward pass as data: named buffers, rope tables and a flat list of ops.

A family emits a Program from a ModelConfig; ``lower`` hands it to the native executor, which runs
it without Python in between. Buffers hold float32 [tokens, width]; after ``Select`` an op works on
the rows whose logits were asked for, in buffers of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from pocketlm.models.rope import Rope, frequencies

if TYPE_CHECKING:
    from pocketlm._native import Executor, Weight

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Input:
    """dst is filled from outside: where a stage of a program begins."""

    dst: str


@dataclass(frozen=True)
class Embed:
    """dst = scale * row of ``weight`` [vocab, width] for each token."""

    dst: str
    weight: str
    rows: int
    scale: float = 1.0


@dataclass(frozen=True)
class RmsNorm:
    """dst = weight * src / sqrt(mean(src^2) + eps)."""

    dst: str
    src: str
    weight: str
    eps: float


@dataclass(frozen=True)
class Part:
    """One matrix of a Linear: its ``rows`` outputs land in dst from column ``offset`` on."""

    weight: str
    rows: int
    dst: str
    offset: int = 0
    bias: str | None = None


@dataclass(frozen=True)
class Linear:
    """Each part's dst = (dst +) weight · src + bias; all parts read src once.

    ``quantize`` says how src is quantized where a weight is: "block" (8 bits, a scale for each 32),
    "fine" (twice 8 bits), "row" (8 bits, a scale for each row, for float weights too: BitNet).
    """

    src: str
    parts: tuple[Part, ...]
    accumulate: bool = False
    quantize: str = "block"


@dataclass(frozen=True)
class HeadNorms:
    """RMS norms over each q and each k head, before rotation."""

    q: str
    k: str
    eps: float


@dataclass(frozen=True)
class RotateHeads:
    """Normalizes (where asked) and rotates the q and k heads of ``qkv`` in place."""

    qkv: str
    table: str
    heads: int
    kv_heads: int
    head_dim: int
    rotary_dim: int
    norms: HeadNorms | None = None


@dataclass(frozen=True)
class Attention:
    """dst = causal attention of ``qkv``'s queries over the KV cache, its own keys included."""

    dst: str
    qkv: str
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    window: int = 0


@dataclass(frozen=True)
class Gated:
    """dst = act(gate) * up for src = [gate | up]; kind is "silu", "gelu_tanh" or "relu2"."""

    dst: str
    src: str
    kind: str


@dataclass(frozen=True)
class Add:
    """dst += src."""

    dst: str
    src: str


@dataclass(frozen=True)
class Select:
    """dst = the rows of src whose logits are asked for."""

    dst: str
    src: str


@dataclass(frozen=True)
class Softcap:
    """buffer = cap * tanh(buffer / cap)."""

    buffer: str
    cap: float


@dataclass(frozen=True)
class Finish:
    """Names the two results: the last hidden state and the logits."""

    hidden: str
    logits: str


Op = (
    Input | Embed | RmsNorm | Linear | RotateHeads | Attention | Gated | Add | Select | Softcap
    | Finish
)  # fmt: skip


@dataclass(frozen=True)
class Program:
    """The whole forward pass.

    Attributes:
        buffers: width of each buffer, by name.
        ropes: rope tables, by name.
        ops: in order of execution.
    """

    buffers: Mapping[str, int]
    ropes: Mapping[str, Rope]
    ops: tuple[Op, ...]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape that every weight must have, in order of first use; a shared one once."""
        shapes: dict[str, tuple[int, ...]] = {}
        for op in self.ops:
            if isinstance(op, Embed):
                shapes[op.weight] = (op.rows, self.buffers[op.dst])
            elif isinstance(op, RmsNorm):
                shapes[op.weight] = (self.buffers[op.src],)
            elif isinstance(op, Linear):
                for part in op.parts:
                    shapes.setdefault(part.weight, (part.rows, self.buffers[op.src]))
                    if part.bias is not None:
                        shapes[part.bias] = (part.rows,)
            elif isinstance(op, RotateHeads) and op.norms is not None:
                shapes[op.norms.q] = shapes[op.norms.k] = (op.head_dim,)
        return shapes


class Weights(Protocol):
    """Where ``lower`` gets the values of a program's weights."""

    def matrix(self, name: str) -> Weight: ...

    def vector(self, name: str) -> Floats: ...


def lower(program: Program, weights: Weights, executor: Executor) -> dict[str, int]:
    """Appends the program to an empty executor, op by op, fetching weights as they are met.

    Returns the executor's ids of the buffers.

    A matrix that two ops name is fetched once and shared. Raises what ``weights`` raises; a
    ValueError of the executor means that a family emitted a wrong program.
    """
    lowering = _Lowering(program, weights, executor)
    for op in program.ops:
        lowering.append(op)
    return lowering.buffers


class _Lowering:
    """The ids that the executor gave to buffers and tables, and the matrices packed so far."""

    def __init__(self, program: Program, weights: Weights, executor: Executor) -> None:
        self._executor = executor
        self._weights = weights
        self._packed: dict[str, Weight] = {}
        self.buffers = {name: executor.buffer(width) for name, width in program.buffers.items()}
        self._tables = {}
        for name, rope in program.ropes.items():
            short, long = frequencies(rope)
            self._tables[name] = executor.rope_table(short, long, rope.attention_factor)

    def append(self, op: Op) -> None:
        buffers, executor = self.buffers, self._executor
        match op:
            case Input():
                executor.input(buffers[op.dst])
            case Gated():
                executor.gated(buffers[op.dst], buffers[op.src], op.kind)
            case Add():
                executor.add(buffers[op.dst], buffers[op.src])
            case Select():
                executor.select(buffers[op.dst], buffers[op.src])
            case Softcap():
                executor.softcap(buffers[op.buffer], op.cap)
            case Finish():
                executor.finish(buffers[op.hidden], buffers[op.logits])
            case Attention():
                heads = (op.heads, op.kv_heads, op.head_dim)
                executor.attention(buffers[op.dst], buffers[op.qkv], *heads, op.scale, op.window)
            case _:
                self._append_weighted(op)

    def _append_weighted(self, op: Embed | RmsNorm | Linear | RotateHeads) -> None:
        buffers, executor = self.buffers, self._executor
        match op:
            case Embed():
                executor.embed(buffers[op.dst], self._matrix(op.weight), op.scale)
            case RmsNorm():
                weight = self._weights.vector(op.weight)
                executor.rms_norm(buffers[op.dst], buffers[op.src], weight, op.eps)
            case Linear():
                parts = [self._part(part) for part in op.parts]
                executor.linear(buffers[op.src], parts, op.accumulate, op.quantize)
            case RotateHeads():
                self._append_rotation(op)

    def _append_rotation(self, op: RotateHeads) -> None:
        q_norm = k_norm = None
        eps = 0.0
        if op.norms is not None:
            q_norm = self._weights.vector(op.norms.q)
            k_norm = self._weights.vector(op.norms.k)
            eps = op.norms.eps
        sizes = (op.heads, op.kv_heads, op.head_dim, op.rotary_dim)
        qkv, table = self.buffers[op.qkv], self._tables[op.table]
        self._executor.rope(qkv, table, *sizes, q_norm, k_norm, eps)

    def _part(self, part: Part) -> tuple[Weight, int, int, Floats | None]:
        bias = None if part.bias is None else self._weights.vector(part.bias)
        return self._matrix(part.weight), self.buffers[part.dst], part.offset, bias

    def _matrix(self, name: str) -> Weight:
        if name not in self._packed:
            self._packed[name] = self._weights.matrix(name)
        return self._packed[name]
