"""KL(original || quantized) of next-token distributions, from last hidden states to gradients.

The top of ``distilled``'s model. With a vocabulary of 262,144, the logits of a few hundred
positions take more memory than the model, so the output matrix, the softmax and the divergence are
one function that goes through the positions in chunks and makes all gradients on the way. Logits
are always computed in float32: a bfloat16 one near 20 is only good to 0.06, which is more than an
8-bit quantization does to it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pocketlm.quantize.tuned_weights import TunedMatrix

_LOGITS = 1 << 22  # of one chunk, for original and quantized model each


def divergence(
    hidden: Tensor,
    matrix: TunedMatrix | Tensor,
    target: Tensor,
    target_matrix: Tensor,
    softcap: float | None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Mean over positions of KL(original || quantized) in nats, differentiable.

    Args:
        hidden: the quantized model's last hidden states, float32 [positions, width].
        matrix: its output matrix, tuned or a plain float32 tensor [vocab, width].
        target, target_matrix: the original's, float32.
        softcap: of both models' logits.
        dtype: of the products that make gradients.
    """
    fields: tuple[Tensor | None, Tensor | None] = (None, None)
    if isinstance(matrix, TunedMatrix):
        fields = matrix.fields()
    others = (matrix, target, target_matrix, softcap, dtype)
    loss: Tensor = _Divergence.apply(hidden, *fields, *others)  # type: ignore[no-untyped-call]
    return loss


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        scale: Tensor | None,
        minimum: Tensor | None,
        matrix: TunedMatrix | Tensor,
        target: Tensor,
        target_matrix: Tensor,
        softcap: float | None,
        dtype: torch.dtype,
    ) -> Tensor:
        weight = matrix
        if isinstance(matrix, TunedMatrix):
            assert scale is not None
            weight = matrix.decode(scale, minimum, torch.float32)
        assert isinstance(weight, Tensor)
        rounded = weight.to(dtype)
        sums = torch.zeros_like(rounded) if isinstance(matrix, TunedMatrix) else None
        total, gradient = hidden.new_zeros(()), torch.empty_like(hidden)
        for part in _chunks(len(hidden), len(weight)):
            expected = _logits(target[part], target_matrix, softcap)
            found = _logits(hidden[part], weight, softcap)
            slope = None if softcap is None else 1 - (found / softcap).square()
            found, expected = found.log_softmax(-1), expected.log_softmax(-1)
            p = expected.exp()
            total += (p * expected.sub_(found)).sum()
            error = found.exp_().sub_(p).div_(len(hidden))
            if slope is not None:
                error.mul_(slope)
            error = error.to(dtype)
            gradient[part] = (error @ rounded).float()
            if sums is not None:
                sums.addmm_(error.T, hidden[part].to(dtype))
        reduced = (
            matrix.reduce(sums) if isinstance(matrix, TunedMatrix) and sums is not None else ()
        )
        ctx.gradients = (gradient, *reduced)
        return total / len(hidden)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (outer,) = gradients
        made = [None if g is None else g * outer for g in ctx.gradients]
        made += [None] * (3 - len(made))
        return *made, None, None, None, None, None


def _logits(hidden: Tensor, weight: Tensor, softcap: float | None) -> Tensor:
    values = hidden @ weight.T
    return values if softcap is None else softcap * torch.tanh(values / softcap)


def _chunks(positions: int, vocabulary: int) -> list[slice]:
    step = max(16, _LOGITS // vocabulary)
    return [slice(i, i + step) for i in range(0, positions, step)]
