"""Gradients of block fields against those that autograd makes of decoded floats."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pocketlm.gguf import BlockType, dequantize
from pocketlm.quantize import tuned_weights
from pocketlm.quantize.block_scales import TUNABLE, V_RUN, factorize
from pocketlm.quantize.divergence_loss import divergence
from pocketlm.quantize.tuned_weights import TunedMatrix

from .test_block_scales import COLS, ROWS, random_blocks

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows a chunk, the last one odd."""
    monkeypatch.setattr(tuned_weights, "_CHUNK", 2 * COLS)


def tuned(type: BlockType, rows: int = ROWS, cols: int = COLS) -> TunedMatrix:
    data = random_blocks(type, rows, cols)
    return TunedMatrix(factorize(type, data, rows, cols), CPU)


def dense(type: BlockType, matrix: TunedMatrix, rows: int = ROWS, cols: int = COLS) -> torch.Tensor:
    """The same weights as a differentiable function of the deltas, without the custom code."""
    factors = factorize(type, random_blocks(type, rows, cols), rows, cols)
    size = cols // factors.scale.shape[1]
    scale, minimum = matrix.fields()
    weights = scale.repeat_interleave(size, 1) * torch.from_numpy(factors.u).float()
    if minimum is not None and factors.v is not None:
        v = torch.from_numpy(factors.v).float().repeat_interleave(V_RUN, 1)
        weights = weights + minimum.repeat_interleave(size, 1) * v
    return weights


def gradients(
    loss: torch.Tensor, matrix: TunedMatrix, x: torch.Tensor | None
) -> list[torch.Tensor]:
    wanted = [*matrix.parameters(), *([] if x is None else [x])]
    return list(torch.autograd.grad(loss, wanted))


@pytest.mark.parametrize("type", sorted(TUNABLE), ids=lambda t: t.name)
def test_linear(type: BlockType) -> None:
    torch.manual_seed(0)
    matrix = tuned(type)
    for delta in matrix.parameters():
        delta.data.normal_(std=0.5)
    x = torch.randn(2, 5, COLS, requires_grad=True)
    weight = torch.randn(2, 5, ROWS)
    expected = x @ dense(type, matrix).T
    found = matrix.linear(x, torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    pairs = zip(
        gradients((found * weight).sum(), matrix, x),
        gradients((expected * weight).sum(), matrix, x),
        strict=True,
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * other.abs().max().item())


@pytest.mark.parametrize("type", [BlockType.Q4_0, BlockType.Q5_1, BlockType.Q2_K])
def test_embedding_rows_that_repeat(type: BlockType) -> None:
    matrix = tuned(type)
    tokens = torch.tensor([[2, 0, 2]])
    weight = torch.randn(1, 3, COLS)
    expected, found = dense(type, matrix)[tokens], matrix.embed(tokens)
    torch.testing.assert_close(found, expected)
    pairs = zip(
        gradients((found * weight).sum(), matrix, None),
        gradients((expected * weight).sum(), matrix, None),
        strict=True,
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_unchanged_fields_decode_to_the_same_weights() -> None:
    matrix = tuned(BlockType.Q4_K)
    with torch.no_grad():
        found = matrix.decode(*matrix.fields(), torch.float32)
    expected = dequantize(BlockType.Q4_K, random_blocks(BlockType.Q4_K), (ROWS, COLS))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("type", [BlockType.Q4_0, BlockType.Q4_K, None])
def test_divergence(
    type: BlockType | None, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Value and gradients equal those of the plain formula, positions in uneven chunks."""
    monkeypatch.setattr("pocketlm.quantize.divergence_loss._LOGITS", 20 * 7)
    torch.manual_seed(0)
    matrix = tuned(type or BlockType.Q4_0, 7, 256)
    weight = dense(type or BlockType.Q4_0, matrix, 7, 256)
    hidden, target = torch.randn(50, 256, requires_grad=True), torch.randn(50, 256)
    target_matrix = weight.detach() + 0.01 * torch.randn(7, 256)

    def log_p(h: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        values = h @ w.T
        capped = values if softcap is None else softcap * torch.tanh(values / softcap)
        return capped.log_softmax(-1)

    if type is None:
        weight = weight.detach()
    expected_p, found_p = log_p(target, target_matrix), log_p(hidden, weight)
    expected = (expected_p.exp() * (expected_p - found_p)).sum(-1).mean()
    given = weight if type is None else matrix
    found = divergence(hidden, given, target, target_matrix, softcap)
    assert expected > 0.01
    torch.testing.assert_close(found, expected)
    wanted = [hidden, *([] if type is None else matrix.parameters())]
    pairs = zip(
        torch.autograd.grad(2 * found, wanted),
        torch.autograd.grad(2 * expected, wanted),
        strict=True,
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
