"""A model's program in PyTorch, with gradients: what ``distilled`` trains through.

The native executor runs the same ops (``models/program.py``) without gradients; here they are
differentiable functions over [batch, tokens, width]. Activations are not quantized, all sequences
of a batch are equally long and begin at position 0, and there is no KV cache. Matrix products run
in the weights' dtype, everything else in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from pocketlm.models.program import (
    Add,
    Attention,
    Embed,
    Finish,
    Gated,
    Linear,
    Op,
    Program,
    RmsNorm,
    RotateHeads,
    Select,
    Softcap,
)
from pocketlm.models.rope import LongRope, Rope, frequencies


class Weights(Protocol):
    """A program's weights, by canonical name."""

    def embed(self, name: str, tokens: Tensor) -> Tensor:
        """Rows of a matrix, float32 [*tokens, cols]."""

    def linear(self, name: str, x: Tensor) -> Tensor:
        """``x`` [..., cols] times the transposed matrix: [..., rows]."""

    def vector(self, name: str) -> Tensor: ...


@dataclass(frozen=True)
class Head:
    """How logits come from the last hidden state: ``weight`` · hidden, capped where it says so."""

    weight: str
    softcap: float | None


def head_of(program: Program) -> Head:
    """The output matrix of a program and the cap on its logits."""
    finish = program.ops[-1]
    assert isinstance(finish, Finish)
    weight = next(
        op.parts[0].weight
        for op in program.ops
        if isinstance(op, Linear) and op.parts[0].dst == finish.logits
    )
    caps = [op.cap for op in program.ops if isinstance(op, Softcap) and op.buffer == finish.logits]
    return Head(weight, caps[0] if caps else None)


def hidden_states(program: Program, weights: Weights, tokens: Tensor) -> Tensor:
    """The last hidden state, normalized, of ``tokens`` [batch, T]: float32 [batch, T, hidden]."""
    finish = program.ops[-1]
    assert isinstance(finish, Finish)
    run = _Run(program, weights, tokens)
    for op in program.ops:
        if isinstance(op, Linear) and op.parts[0].dst == finish.logits:
            break
        run.apply(op)
    return run.state[finish.hidden]


def logits(program: Program, weights: Weights, tokens: Tensor) -> Tensor:
    """Logits of ``tokens`` [batch, T]: float32 [batch, T, vocab]."""
    head = head_of(program)
    values = weights.linear(head.weight, hidden_states(program, weights, tokens)).float()
    return values if head.softcap is None else head.softcap * torch.tanh(values / head.softcap)


class _Run:
    """The buffers of one forward pass."""

    def __init__(self, program: Program, weights: Weights, tokens: Tensor) -> None:
        self._program = program
        self._weights = weights
        self._tokens = tokens
        self.state: dict[str, Tensor] = {}

    def apply(self, op: Op) -> None:
        state = self.state
        match op:
            case Embed():
                state[op.dst] = self._weights.embed(op.weight, self._tokens) * op.scale
            case RmsNorm():
                weight = self._weights.vector(op.weight)
                state[op.dst] = _rms_norm(state[op.src], weight, op.eps)
            case Linear():
                self._linear(op)
            case RotateHeads():
                self._rotate(op)
            case Attention():
                state[op.dst] = _attention(op, state[op.qkv])
            case Gated():
                state[op.dst] = _gated(op.kind, state[op.src])
            case Add():
                state[op.dst] = state[op.dst] + state[op.src]
            case Select():
                state[op.dst] = state[op.src]
            case Softcap() | Finish():
                raise AssertionError("the head is not run op by op")

    def _linear(self, op: Linear) -> None:
        """All parts of one destination, side by side; they cover it in the order of offsets."""
        src = self.state[op.src]
        for dst in dict.fromkeys(part.dst for part in op.parts):
            outputs, width = [], 0
            for part in sorted((p for p in op.parts if p.dst == dst), key=lambda p: p.offset):
                assert part.offset == width
                y = self._weights.linear(part.weight, src)
                if part.bias is not None:
                    y = y + self._weights.vector(part.bias).to(y.dtype)
                outputs.append(y)
                width += part.rows
            assert width == self._program.buffers[dst]
            joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
            self.state[dst] = self.state[dst] + joined if op.accumulate else joined

    def _rotate(self, op: RotateHeads) -> None:
        rope = self._program.ropes[op.table]
        qkv = self.state[op.qkv]
        heads = qkv.view(*qkv.shape[:-1], -1, op.head_dim)
        q, k, v = torch.split(heads, [op.heads, op.kv_heads, op.kv_heads], dim=-2)
        if op.norms is not None:
            q = _rms_norm(q, self._weights.vector(op.norms.q), op.norms.eps)
            k = _rms_norm(k, self._weights.vector(op.norms.k), op.norms.eps)
        cos, sin = _angles(rope, self._tokens.shape[1], qkv.device)
        turned = [_turn(x.float(), cos, sin, op.rotary_dim).to(v.dtype) for x in (q, k)]
        self.state[op.qkv] = torch.cat([*turned, v], dim=-2).flatten(-2)


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return functional.rms_norm(x.float(), (x.shape[-1],), weight, eps)


@lru_cache(maxsize=16)
def _angles(rope: Rope, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin [length, 1, rotary_dim / 2] times the attention factor."""
    short, long = frequencies(rope)
    switch = rope.scaling.original_context if isinstance(rope.scaling, LongRope) else None
    chosen = long if long is not None and switch is not None and length > switch else short
    positions = torch.arange(length, dtype=torch.float32)
    angles = (positions[:, None] * torch.from_numpy(chosen)).unsqueeze(1).to(device)
    return angles.cos() * rope.attention_factor, angles.sin() * rope.attention_factor


def _turn(x: Tensor, cos: Tensor, sin: Tensor, dim: int) -> Tensor:
    """The first ``dim`` values of each head rotated, halves against each other."""
    a, b, rest = torch.split(x, [dim // 2, dim // 2, x.shape[-1] - dim], dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)


def _attention(op: Attention, qkv: Tensor) -> Tensor:
    heads = qkv.view(*qkv.shape[:-1], -1, op.head_dim).transpose(1, 2)
    q, k, v = torch.split(heads, [op.heads, op.kv_heads, op.kv_heads], dim=1)
    k, v = (x.repeat_interleave(op.heads // op.kv_heads, dim=1) for x in (k, v))
    length = qkv.shape[1]
    windowed = 0 < op.window < length
    mask = _window_mask(length, op.window, qkv.device) if windowed else None
    out = functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=not windowed, scale=op.scale
    )
    return out.transpose(1, 2).flatten(-2)


@lru_cache(maxsize=4)
def _window_mask(length: int, window: int, device: torch.device) -> Tensor:
    """True where a query (row) sees a key (column)."""
    seen = torch.ones(length, length, dtype=torch.bool, device=device)
    return seen.tril() & ~seen.tril(-window)


def _gated(kind: str, src: Tensor) -> Tensor:
    gate, up = src.chunk(2, dim=-1)
    match kind:
        case "silu":
            return functional.silu(gate) * up
        case "gelu_tanh":
            return functional.gelu(gate, approximate="tanh") * up
        case "relu2":
            return functional.relu(gate).square() * up
    raise AssertionError(f"no activation '{kind}'")
