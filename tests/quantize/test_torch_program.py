"""Programs in PyTorch against the native executor, with random float weights, for every family."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pocketlm import _native
from pocketlm.models.config import ModelConfig
from pocketlm.models.families import bitnet, gemma3, llama, phi3, qwen2, qwen3
from pocketlm.models.program import Program, lower
from pocketlm.models.rope import Linear, LongRope, Rope
from pocketlm.quantize.torch_program import head_of, hidden_states, logits

F32 = 0
LENGTH = 70
Floats = npt.NDArray[np.float32]

BASE = ModelConfig(
    family="llama",
    layers=3,
    hidden=48,
    heads=4,
    kv_heads=2,
    head_dim=16,
    ffn=72,
    vocab=61,
    context=512,
    norm_eps=1e-5,
    tied=False,
    rope=Rope(theta=10_000.0, dim=16),
    attention_scale=0.25,
    windows=(0, 20, 0),
)
_LONG = LongRope(short=(1.0,) * 6, long=tuple(1.5 + i for i in range(6)), original_context=32)
_GEMMA: dict[str, Any] = {
    "kv_heads": 1,
    "tied": True,
    "qk_norm": True,
    "embedding_scale": 6.9,
    "activation": "gelu_tanh",
    "rope": Rope(1e6, 16, Linear(8.0)),
    "local_rope": Rope(1e4, 16),
}
PROGRAMS = {
    "llama": llama.program(BASE),
    "qwen2": qwen2.program(replace(BASE, qkv_bias=True)),
    "qwen3": qwen3.program(replace(BASE, qk_norm=True, tied=True, windows=(0, 0, 0))),
    "gemma3": gemma3.program(replace(BASE, **_GEMMA)),
    "gemma3-capped": gemma3.program(replace(BASE, **_GEMMA, logit_softcap=2.0)),
    "phi3": phi3.program(replace(BASE, rope=Rope(1e4, 12, _LONG, 1.2))),
    "bitnet-float": bitnet.program(replace(BASE, activation="relu2")),
}


class DenseWeights:
    """Weights that are plain tensors: matrices [rows, cols] and vectors."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors

    def embed(self, name: str, tokens: torch.Tensor) -> torch.Tensor:
        return self._tensors[name][tokens].float()

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight = self._tensors[name]
        return torch.nn.functional.linear(x.to(weight.dtype), weight)

    def vector(self, name: str) -> torch.Tensor:
        return self._tensors[name]


class Random:
    """Values by name, the same for both sides."""

    def __init__(self, program: Program) -> None:
        rng = np.random.default_rng(0)
        self.values: dict[str, Floats] = {}
        for name, shape in program.shapes().items():
            values = rng.standard_normal(shape).astype(np.float32)
            self.values[name] = values * np.float32(0.2) + (1 if "norm" in name else 0)

    def matrix(self, name: str) -> _native.Weight:
        values = self.values[name]
        return _native.Weight.pack(F32, *values.shape, values.reshape(-1).view(np.uint8))

    def vector(self, name: str) -> Floats:
        return self.values[name]

    def dense(self) -> DenseWeights:
        return DenseWeights({name: torch.from_numpy(v) for name, v in self.values.items()})


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def native(program: Program, tokens: npt.NDArray[np.int32], *, long: bool, hidden: bool) -> Floats:
    executor = _native.Executor(1)
    lower(program, Random(program), executor)
    pages = -(-len(tokens) // _native.PAGE_POSITIONS)
    groups = len(executor.windows)
    executor.allocate(len(tokens), 1, len(tokens), [pages] * groups, "f32")
    return executor.step(
        tokens,
        np.array([len(tokens)], np.int32),
        np.zeros(1, np.int32),
        np.tile(np.arange(pages, dtype=np.int32), (groups, 1, 1)),
        np.array([int(long)], np.int32),
        np.arange(len(tokens), dtype=np.int32),
        hidden,
    )


@pytest.mark.parametrize("length", [30, LENGTH], ids=["short rope", "long rope"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_agrees_with_the_native_executor(name: str, length: int) -> None:
    program = PROGRAMS[name]
    tokens = np.random.default_rng(1).integers(0, BASE.vocab, (2, length), dtype=np.int32)
    weights = Random(program).dense()
    with torch.no_grad():
        batch = torch.from_numpy(tokens).long()
        found = logits(program, weights, batch).numpy()
        states = hidden_states(program, weights, batch).numpy()
    for row in range(2):
        expected = native(program, tokens[row], long=length > 32, hidden=False)
        np.testing.assert_allclose(found[row], expected, atol=1e-4)
        expected = native(program, tokens[row], long=length > 32, hidden=True)
        np.testing.assert_allclose(states[row], expected, atol=1e-4)


def test_heads() -> None:
    assert head_of(PROGRAMS["llama"]).weight == "output.weight"
    assert head_of(PROGRAMS["gemma3-capped"]) == type(head_of(PROGRAMS["llama"]))(
        "token_embd.weight", 2.0
    )


def test_every_weight_has_a_gradient() -> None:
    program = PROGRAMS["qwen3"]
    tensors = {n: torch.from_numpy(v) for n, v in Random(program).values.items()}
    for tensor in tensors.values():
        tensor.requires_grad_(True)
    tokens = torch.arange(20)[None]
    logits(program, DenseWeights(tensors), tokens).square().sum().backward()
    for name, tensor in tensors.items():
        assert tensor.grad is not None, name
        assert tensor.grad.abs().max() > 0, name


def test_real_model(real_model: Any) -> None:
    """SmolLM2's real weights, decoded: rotated rows, grouped heads, tied output."""
    from pocketlm.models import open_model
    from pocketlm.models.sources import Adapted, Matrix
    from pocketlm.quantize.tuning import Original, dense_matrix

    spec = open_model(real_model("smollm2:135m"))

    class Floating(Adapted):
        def matrix(self, name: str) -> Matrix:
            m = super().matrix(name)
            values = dense_matrix(spec, name).numpy()
            return Matrix(type(m.type)(F32), m.rows, m.cols, values.reshape(-1).view(np.uint8))

    tokens = np.arange(1000, 1064, dtype=np.int32)[None]
    expected = Original(replace(spec, source=Floating(spec.source)), 64, 1).hidden(tokens)
    tensors = {
        name: dense_matrix(spec, name)
        if len(shape) == 2
        else torch.tensor(spec.source.vector(name))
        for name, shape in spec.program.shapes().items()
    }
    with torch.no_grad():
        found = hidden_states(spec.program, DenseWeights(tensors), torch.from_numpy(tokens).long())
    spec.close()
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-3, rtol=1e-3)
