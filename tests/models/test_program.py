"""The emitted programs as data, and their lowering to executor calls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pocketlm.models.config import ModelConfig
from pocketlm.models.families import FAMILIES
from pocketlm.models.program import Finish, Gated, Linear, Program, Select, lower
from pocketlm.models.rope import LongRope, Rope

CONFIG = ModelConfig(
    family="llama",
    layers=2,
    hidden=64,
    heads=4,
    kv_heads=2,
    head_dim=16,
    ffn=96,
    vocab=100,
    context=512,
    norm_eps=1e-5,
    tied=True,
    rope=Rope(10_000.0, 16),
    attention_scale=0.25,
    windows=(0, 0),
)


class Recorder:
    """Stands for both weights and executor: notes every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.matrices: list[str] = []
        self._ids = 0

    def matrix(self, name: str) -> str:
        self.matrices.append(name)
        return name

    def vector(self, name: str) -> str:
        return name

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append((name, arguments))
            self._ids += 1
            return self._ids - 1

        return call


def lowered(program: Program) -> Recorder:
    recorder = Recorder()
    lower(program, recorder, recorder)  # type: ignore[arg-type]
    return recorder


def program_of(family: str, config: ModelConfig) -> Program:
    (found,) = (f for f in FAMILIES if f.name == family)
    return found.program(replace(config, family=family))


@pytest.mark.parametrize("family", [f.name for f in FAMILIES])
def test_every_op_reads_what_was_written(family: str) -> None:
    """The executor's own rules, for every family: no buffer is read unwritten or across select."""
    program = program_of(family, CONFIG)
    written: set[str] = set()
    for op in program.ops:
        reads = [getattr(op, n) for n in ("src", "qkv") if hasattr(op, n)]
        if isinstance(op, Finish):
            reads = [op.hidden, op.logits]
        assert set(reads) <= written
        if isinstance(op, Select):
            written = set()
        if isinstance(op, Linear):
            written |= {part.dst for part in op.parts}
            for part in op.parts:
                assert part.offset + part.rows <= program.buffers[part.dst]
        if isinstance(op, Gated):
            assert program.buffers[op.src] == 2 * program.buffers[op.dst]
        if hasattr(op, "dst"):
            written.add(op.dst)
    assert sum(isinstance(op, Select) for op in program.ops) == 1


def test_feed_forward_of_the_last_layer_sees_selected_rows_only() -> None:
    ops = program_of("llama", CONFIG).ops
    at = next(i for i, op in enumerate(ops) if isinstance(op, Select))
    assert sum(isinstance(op, Gated) for op in ops[:at]) == CONFIG.layers - 1
    assert sum(isinstance(op, Gated) for op in ops[at:]) == 1


def test_a_tied_embedding_is_packed_once() -> None:
    recorder = lowered(program_of("llama", CONFIG))
    assert recorder.matrices.count("token_embd.weight") == 1
    assert "output.weight" not in recorder.matrices
    untied = lowered(program_of("llama", replace(CONFIG, tied=False)))
    assert untied.matrices[-1] == "output.weight"


def test_parts_of_q_k_v_lie_side_by_side() -> None:
    recorder = lowered(program_of("qwen2", replace(CONFIG, qkv_bias=True)))
    parts = next(a[1] for name, a in recorder.calls if name == "linear")
    assert [(part[0], part[2], part[3]) for part in parts] == [
        ("blk.0.attn_q.weight", 0, "blk.0.attn_q.bias"),
        ("blk.0.attn_k.weight", 64, "blk.0.attn_k.bias"),
        ("blk.0.attn_v.weight", 96, "blk.0.attn_v.bias"),
    ]


def test_both_rope_variants_are_handed_over() -> None:
    rope = Rope(10_000.0, 8, LongRope((1.0,) * 4, (2.0,) * 4, 32), attention_factor=1.5)
    recorder = lowered(program_of("phi3", replace(CONFIG, rope=rope)))
    (table,) = (a for name, a in recorder.calls if name == "rope_table")
    np.testing.assert_allclose(table[0], table[1] * 2)
    assert table[2] == 1.5
    rotary_dims = {a[5] for name, a in recorder.calls if name == "rope"}
    assert rotary_dims == {8}


def test_gemma_layers_use_their_rope_and_window() -> None:
    config = replace(
        CONFIG, windows=(16, 0), local_rope=Rope(100.0, 16), logit_softcap=30.0, qk_norm=True
    )
    recorder = lowered(program_of("gemma3", config))
    ropes = [a[1] for name, a in recorder.calls if name == "rope"]
    assert ropes[0] != ropes[1]
    assert [a[6] for name, a in recorder.calls if name == "attention"] == [16, 0]
    assert [name for name, _ in recorder.calls][-2:] == ["softcap", "finish"]


def test_bitnet_quantizes_by_row_except_the_logits() -> None:
    recorder = lowered(program_of("bitnet", replace(CONFIG, quantize="row")))
    kinds = [a[3] for name, a in recorder.calls if name == "linear"]
    assert kinds == ["row"] * (len(kinds) - 1) + ["fine"]
