"""Quantized matrices in PyTorch whose scales and minima are trained while their codes stay.

Between ``block_scales`` (what a block is made of) and ``distilled`` (the training). A matrix is
kept as small integers and decoded to floats where a product needs it; the gradient of its floats
is made once and summed over each block at once, so no more than one decoded matrix and one gradient
are in memory beside the integers.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pocketlm.gguf import block_elements
from pocketlm.quantize.block_scales import V_RUN, Factors
from pocketlm.quantize.codes import LAYOUTS

_CHUNK = 1 << 20  # weights decoded at a time, so that the float32 step between stays in the cache


class TunedMatrix:
    """A matrix [rows, cols] whose block scales (and minima) are ``initial * (1 + unit * delta)``.

    ``unit`` is 2 / levels of the type's codes (1/8 for Q4_0, 1/127 for Q8_0): a delta of 1 moves
    the largest weight of a block by about one step of its grid. A block of 256 weights moves
    1 / sqrt(8) as far, since a random step of its scale does 8 times the harm of one of 32. So one
    learning rate suits a file of many types. A minimum moves in units of the larger of itself and
    its block's scale, since it may be zero. Deltas are float32 [rows, blocks] and begin at zero.

    Attributes:
        scale_delta, minimum_delta: the parameters; ``minimum_delta`` is None without minima.
    """

    def __init__(self, factors: Factors, device: torch.device) -> None:
        self._u = torch.from_numpy(factors.u).to(device)
        self._v = None if factors.v is None else torch.from_numpy(factors.v).to(device)
        self._scale = torch.from_numpy(factors.scale).to(device)
        layout = LAYOUTS[factors.type]
        unit = 2 / (layout.largest - layout.smallest + 1)
        unit *= math.sqrt(32 / block_elements(factors.type))
        self._scale_unit = unit * self._scale
        self._minimum = None
        self.scale_delta = torch.zeros_like(self._scale, requires_grad=True)
        self.minimum_delta: Tensor | None = None
        if factors.minimum is not None:
            self._minimum = torch.from_numpy(factors.minimum).to(device)
            larger = torch.maximum(self._minimum.abs(), self._scale.abs())
            self._minimum_unit = unit * larger
            self.minimum_delta = torch.zeros_like(self._scale, requires_grad=True)

    def parameters(self) -> list[Tensor]:
        return [p for p in (self.scale_delta, self.minimum_delta) if p is not None]

    def fields(self) -> tuple[Tensor, Tensor | None]:
        """Scales and minima as they are now, differentiable by the deltas."""
        scale = self._scale + self._scale_unit * self.scale_delta
        if self._minimum is None or self.minimum_delta is None:
            return scale, None
        return scale, self._minimum + self._minimum_unit * self.minimum_delta

    def decode(
        self, scale: Tensor, minimum: Tensor | None, dtype: torch.dtype, rows: Tensor | None = None
    ) -> Tensor:
        """The weights for these fields: ``dtype`` [rows, cols]; of some rows only, if given."""
        u, v = self._u, self._v
        if rows is not None:
            u, v, scale = u[rows], None if v is None else v[rows], scale[rows]
            minimum = None if minimum is None else minimum[rows]
        out = torch.empty(u.shape, dtype=dtype, device=u.device)
        for part in _row_chunks(u):
            blocks = _split(u[part].float(), scale.shape[1])
            blocks.mul_(scale[part].unsqueeze(-1))
            if v is not None and minimum is not None:
                shift = _split(v[part].float(), scale.shape[1])
                shift.mul_(minimum[part].unsqueeze(-1))
                blocks.view(*shift.shape, V_RUN).add_(shift.unsqueeze(-1))
            out[part] = blocks.flatten(-2)
        return out

    def reduce(self, gradient: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The gradient of the fields for that of the weights [rows, cols] (or of some rows)."""
        u = self._u if rows is None else self._u[rows]
        v = self._v if rows is None or self._v is None else self._v[rows]
        count = self._scale.shape[1]
        scale = torch.empty((len(u), count), device=u.device)
        minimum = None if v is None else torch.empty_like(scale)
        for part in _row_chunks(u):
            floats = gradient[part].float()
            scale[part] = _split(floats * u[part].float(), count).sum(-1)
            if v is not None and minimum is not None:
                runs = _split(floats, v.shape[1]).sum(-1).mul_(v[part].float())
                minimum[part] = _split(runs, count).sum(-1)
        return scale, minimum

    def linear(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """``x`` [..., cols] times the transposed matrix, computed in ``dtype``: [..., rows]."""
        y: Tensor = _Linear.apply(x, *self.fields(), self, dtype)  # type: ignore[no-untyped-call]
        return y

    def embed(self, tokens: Tensor) -> Tensor:
        """The rows of ``tokens``: float32 [*tokens, cols]."""
        y: Tensor = _Embed.apply(tokens, *self.fields(), self)  # type: ignore[no-untyped-call]
        return y


def _split(values: Tensor, groups: int) -> Tensor:
    """The last dimension in ``groups`` equal parts: a view [..., groups, size]."""
    return values.view(*values.shape[:-1], groups, values.shape[-1] // groups)


def _row_chunks(matrix: Tensor) -> list[slice]:
    step = max(1, _CHUNK // matrix.shape[1])
    return [slice(i, i + step) for i in range(0, len(matrix), step)]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        minimum: Tensor | None,
        matrix: TunedMatrix,
        dtype: torch.dtype,
    ) -> Tensor:
        x = x.to(dtype)
        ctx.save_for_backward(x, scale, minimum)
        ctx.matrix = matrix
        return x @ matrix.decode(scale, minimum, dtype).T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, minimum = ctx.saved_tensors
        (gradient,) = gradients
        gx = gradient @ ctx.matrix.decode(scale, minimum, x.dtype)
        weights = gradient.flatten(0, -2).T @ x.flatten(0, -2)
        return gx, *ctx.matrix.reduce(weights), None, None


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, scale: Tensor, minimum: Tensor | None, matrix: TunedMatrix
    ) -> Tensor:
        ctx.save_for_backward(tokens, scale)
        ctx.matrix = matrix
        rows = matrix.decode(scale, minimum, torch.float32, tokens.flatten())
        return rows.view(*tokens.shape, -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        tokens, scale = ctx.saved_tensors
        rows = tokens.flatten()
        reduced = ctx.matrix.reduce(gradients[0].flatten(0, -2), rows)
        scattered = [
            None if part is None else torch.zeros_like(scale).index_add_(0, rows, part)
            for part in reduced
        ]
        return None, *scattered, None
