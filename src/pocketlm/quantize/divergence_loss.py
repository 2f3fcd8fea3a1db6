"""KL(original || quantized) of next-token distributions, from last hidden states to gradients.

The top of ``distilled``'s model. With a vocabulary of 262,144, the logits of a few hundred
positions take more memory than the model, so the output matrix, the softmax and the divergence are
one function that goes through the positions in chunks and makes all gradients on the way.
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
) -> Tensor:
    """Mean over positions of KL(original || quantized) in nats, differentiable.

    Args:
        hidden: the quantized model's last hidden states, float32 [positions, width].
        matrix: its output matrix, tuned or a plain tensor [vocab, width].
        target, target_matrix: the original's.
        softcap: of both models' logits.
    """
    fields: tuple[Tensor | None, Tensor | None] = (None, None)
    if isinstance(matrix, TunedMatrix):
        fields = matrix.fields()
    others = (matrix, target, target_matrix, softcap)
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
    ) -> Tensor:
        tuned = isinstance(matrix, TunedMatrix)
        weight = matrix
        if isinstance(matrix, TunedMatrix):
            assert scale is not None
            weight = matrix.decode(scale, minimum, target_matrix.dtype)
        assert isinstance(weight, Tensor)
        total = hidden.new_zeros(())
        gradient = torch.empty_like(hidden)
        sums = torch.zeros_like(weight) if tuned and hidden.requires_grad else None
        for part in _chunks(len(hidden), len(weight)):
            h = hidden[part].to(weight.dtype)
            expected = _logits(target[part].to(weight.dtype), target_matrix, softcap)
            found = _logits(h, weight, softcap)
            slope = None if softcap is None else 1 - (found / softcap).square()
            found, expected = found.log_softmax(-1), expected.log_softmax(-1)
            p = expected.exp()
            total += (p * expected.sub_(found)).sum()
            error = found.exp_().sub_(p).div_(len(hidden))
            if slope is not None:
                error.mul_(slope)
            error = error.to(weight.dtype)
            gradient[part] = error @ weight
            if sums is not None:
                sums.addmm_(error.T, h)
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
        return *made, None, None, None, None


def _logits(hidden: Tensor, weight: Tensor, softcap: float | None) -> Tensor:
    values = (hidden @ weight.T).float()
    return values if softcap is None else softcap * torch.tanh(values / softcap)


def _chunks(positions: int, vocabulary: int) -> list[slice]:
    step = max(16, _LOGITS // vocabulary)
    return [slice(i, i + step) for i in range(0, positions, step)]
