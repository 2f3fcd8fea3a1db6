"""What the ops of a program mean, in NumPy: an executor for one sequence, all positions at once.

It takes the same calls as ``_native.Executor``, so that a program can be checked without the core:
when the core disagrees with transformers and this does not, the program is not to blame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pocketlm.gguf import BlockType, dequantize
from pocketlm.models.spec import ModelSpec

Array = np.ndarray[Any, np.dtype[Any]]
State = dict[int, Array]

FLOATS = (BlockType.F32, BlockType.F16, BlockType.BF16)


@dataclass(frozen=True)
class ReferenceWeight:
    """A matrix in float64, and whether its activations are quantized as the core does it."""

    values: Array
    quantized: bool


class ReferenceWeights:
    """A spec's weights, decoded; with ``activations`` those of quantized weights are quantized."""

    def __init__(self, spec: ModelSpec, *, activations: bool = False) -> None:
        self._source = spec.source
        self._activations = activations

    def matrix(self, name: str) -> ReferenceWeight:
        matrix = self._source.matrix(name)
        values = dequantize(matrix.type, np.array(matrix.data), (matrix.rows, matrix.cols))
        values = values if matrix.row_map is None else values[matrix.row_map]
        quantized = self._activations and matrix.type not in FLOATS
        return ReferenceWeight(values.astype(np.float64), quantized)

    def vector(self, name: str) -> Array:
        return self._source.vector(name)


def norm(x: Array, weight: Array, eps: float) -> Array:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def activate(kind: str, x: Array) -> Array:
    if kind == "silu":
        return x / (1 + np.exp(-x))
    if kind == "relu2":
        return np.maximum(x, 0) ** 2
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def quantized(x: Array) -> Array:
    """8 bits with one scale a row; float32 rounding decides which way a tie goes."""
    x = x.astype(np.float32)
    scale = np.float32(127) / np.maximum(np.abs(x).max(-1, keepdims=True), np.float32(1e-5))
    return (np.clip(np.rint(x * scale), -128, 127) / scale).astype(np.float64)


def input_of(weight: ReferenceWeight, x: Array, quantize: str) -> Array:
    """What a product with ``weight`` reads."""
    if quantize == "row":
        return quantized(x)
    if not weight.quantized:
        return x
    blocks = x.reshape(len(x), -1, 32)
    coarse = quantized(blocks)
    if quantize == "fine":
        coarse = coarse + quantized(blocks.astype(np.float32) - coarse)
    return coarse.reshape(x.shape)


class ReferenceExecutor:
    """Collects closures over the buffers; ``run`` applies them to a sequence."""

    def __init__(self) -> None:
        self._buffers: list[int] = []
        self._tables: list[tuple[Array, Array | None, float]] = []
        self._ops: list[Callable[[State], None]] = []
        self._tokens = np.zeros(0, dtype=np.int64)
        self._variant = 0
        self._logits = -1

    def run(self, tokens: Array, *, variant: int = 0) -> Array:
        self._tokens, self._variant = np.asarray(tokens), variant
        state = {i: np.zeros((len(tokens), width)) for i, width in enumerate(self._buffers)}
        for op in self._ops:
            op(state)
        return state[self._logits]

    def buffer(self, width: int) -> int:
        self._buffers.append(width)
        return len(self._buffers) - 1

    def rope_table(self, short: Array, long: Array | None, factor: float) -> int:
        self._tables.append((short, long, factor))
        return len(self._tables) - 1

    def embed(self, dst: int, weight: ReferenceWeight, scale: float) -> None:
        def op(s: State) -> None:
            s[dst][:] = weight.values[self._tokens] * scale

        self._ops.append(op)

    def rms_norm(self, dst: int, src: int, weight: Array, eps: float) -> None:
        def op(s: State) -> None:
            s[dst][:] = norm(s[src], weight, eps)

        self._ops.append(op)

    def linear(self, src: int, parts: list[Any], accumulate: bool, quantize: str) -> None:
        def op(s: State) -> None:
            for weight, dst, offset, bias in parts:
                y = input_of(weight, s[src], quantize) @ weight.values.T
                y += 0 if bias is None else bias
                columns = slice(offset, offset + len(weight.values))
                s[dst][:, columns] = y + (s[dst][:, columns] if accumulate else 0)

        self._ops.append(op)

    def rope(
        self,
        qkv: int,
        table: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        rotary_dim: int,
        q_norm: Array | None,
        k_norm: Array | None,
        eps: float,
    ) -> None:
        def op(s: State) -> None:
            short, long, factor = self._tables[table]
            inv_freq = long if self._variant and long is not None else short
            angles = np.arange(len(self._tokens), dtype=np.float32)[:, None] * inv_freq
            cos, sin = np.cos(angles)[:, None] * factor, np.sin(angles)[:, None] * factor
            rotated = heads + kv_heads
            x = s[qkv][:, : rotated * head_dim].reshape(-1, rotated, head_dim)
            for weight, which in ((q_norm, slice(0, heads)), (k_norm, slice(heads, rotated))):
                if weight is not None:
                    x[:, which] = norm(x[:, which], weight, eps)
            half = rotary_dim // 2
            a, b = x[..., :half].copy(), x[..., half:rotary_dim].copy()
            x[..., :half], x[..., half:rotary_dim] = a * cos - b * sin, b * cos + a * sin
            s[qkv][:, : rotated * head_dim] = x.reshape(len(x), -1)

        self._ops.append(op)

    def attention(
        self,
        dst: int,
        qkv: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        scale: float,
        window: int,
    ) -> None:
        def op(s: State) -> None:
            n = len(self._tokens)
            x = s[qkv].reshape(n, heads + 2 * kv_heads, head_dim).transpose(1, 0, 2)
            q, k, v = x[:heads], x[heads : heads + kv_heads], x[heads + kv_heads :]
            k, v = (np.repeat(m, heads // kv_heads, axis=0) for m in (k, v))
            distance = np.arange(n)[:, None] - np.arange(n)
            seen = (distance >= 0) & ((distance < window) if window else True)
            scores = np.where(seen, q @ k.transpose(0, 2, 1) * scale, -np.inf)
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            s[dst][:] = (weights @ v).transpose(1, 0, 2).reshape(n, -1)

        self._ops.append(op)

    def gated(self, dst: int, src: int, kind: str) -> None:
        def op(s: State) -> None:
            gate, up = np.split(s[src], 2, axis=1)
            s[dst][:] = activate(kind, gate) * up

        self._ops.append(op)

    def add(self, dst: int, src: int) -> None:
        self._ops.append(lambda s: s.update({dst: s[dst] + s[src]}))

    def select(self, dst: int, src: int) -> None:
        self._ops.append(lambda s: s.update({dst: s[src].copy()}))

    def softcap(self, buffer: int, cap: float) -> None:
        self._ops.append(lambda s: s.update({buffer: cap * np.tanh(s[buffer] / cap)}))

    def finish(self, hidden: int, logits: int) -> None:
        self._logits = logits
