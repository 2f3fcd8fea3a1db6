"""A small random model on the native executor, without a file: two layers, grouped heads, a sliding
window, two rope variants, and weights either float or quantized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pocketlm import _native
from pocketlm.engine.engine import Engine, EngineConfig
from pocketlm.engine.request import Request
from pocketlm.engine.runner import Draws, Floats, NativeRunner, RunnerLimits
from pocketlm.engine.speculation.speculator import Speculator
from pocketlm.models.config import ModelConfig
from pocketlm.models.families import llama
from pocketlm.models.program import lower
from pocketlm.models.rope import LongRope, Rope

F32, Q8_0 = 0, 8
VOCAB = 96
SWITCH = 80
CONTEXT = 160
WINDOW = 40


def config() -> ModelConfig:
    pairs = 16
    return ModelConfig(
        family="llama",
        layers=2,
        hidden=64,
        heads=4,
        kv_heads=2,
        head_dim=32,
        ffn=96,
        vocab=VOCAB,
        context=CONTEXT,
        norm_eps=1e-5,
        tied=False,
        rope=Rope(
            theta=10_000.0,
            dim=2 * pairs,
            scaling=LongRope(
                short=(1.0,) * pairs,
                long=tuple(1.0 + i for i in range(pairs)),
                original_context=SWITCH,
            ),
        ),
        attention_scale=32**-0.5,
        windows=(0, WINDOW),
    )


class RandomWeights:
    """Random values by name, the same for every executor of a seed."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], block_type: int, seed: int) -> None:
        self._shapes = shapes
        self._type = block_type
        self._seed = seed

    def _values(self, name: str) -> Floats:
        rng = np.random.default_rng([self._seed, *name.encode()])
        return rng.standard_normal(self._shapes[name]).astype(np.float32)

    def matrix(self, name: str) -> _native.Weight:
        values = self._values(name)
        rows, cols = values.shape
        data = values if self._type == F32 else quantize_q8_0(values)
        return _native.Weight.pack(self._type, rows, cols, data.reshape(-1).view(np.uint8))

    def vector(self, name: str) -> Floats:
        return 1 + 0.1 * self._values(name)


def quantize_q8_0(values: Floats) -> np.ndarray:
    blocks = values.reshape(-1, 32)
    scale = (np.abs(blocks).max(axis=1, keepdims=True) / 127).astype(np.float16)
    codes = np.clip(np.round(blocks / scale.astype(np.float32)), -127, 127).astype(np.int8)
    return np.concatenate([scale.view(np.uint8), codes.view(np.uint8)], axis=1)


def executor(*, threads: int = 1, block_type: int = F32, seed: int = 0) -> _native.Executor:
    program = llama.program(config())
    built = _native.Executor(threads)
    lower(program, RandomWeights(program.shapes(), block_type, seed), built)
    return built


class RecordingEngine(Engine):
    """Keeps the logits that every token was drawn from."""

    def __init__(
        self, runner: NativeRunner, config: EngineConfig, speculator: Speculator | None = None
    ) -> None:
        super().__init__(runner, config, speculator)
        self.drawn: dict[int, list[bytes]] = {}

    def _draw(
        self,
        logits: Floats,
        drawing: Sequence[tuple[Request, int]],
        drafts: Mapping[Request, Sequence[int]],
    ) -> list[Draws]:
        found = super()._draw(logits, drawing, drafts)
        for (request, row), (drawn, _, _) in zip(drawing, found, strict=True):
            rows = [one.tobytes() for one in logits[row : row + len(drawn)]]
            self.drawn.setdefault(request.id, []).extend(rows)
        return found


def engine(
    *,
    threads: int = 1,
    block_type: int = F32,
    kv: str = "f16",
    max_tokens: int = 256,
    sequences: int = 8,
    pages: int = 40,
    windowed_pages: int | None = None,
    prefix_cache: bool = True,
    speculator: Speculator | None = None,
) -> RecordingEngine:
    groups = [pages, windowed_pages or pages]
    limits = RunnerLimits(max_tokens, sequences, max(sequences, 16), groups, kv)
    runner = NativeRunner(executor(threads=threads, block_type=block_type), limits, vocab=VOCAB)
    return RecordingEngine(
        runner,
        EngineConfig(context=CONTEXT, rope_switch=SWITCH, prefix_cache=prefix_cache),
        speculator,
    )
