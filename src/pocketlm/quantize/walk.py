"""Calibration text sent through a model stage by stage: how linear layers' inputs are measured.

A program is cut before each of its linear layers. A stage begins with one linear layer (or with the
embedding) and ends where the next one's input stands in a buffer. Between stages the whole text
waits as rows of float32, so that the layer that comes next can be measured over all of it, and be
replaced by its quantized form before the text goes on. One stage's weights are in memory at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketlm import _native
from pocketlm.models.program import (
    Add,
    Attention,
    Embed,
    Finish,
    Gated,
    Input,
    Linear,
    Op,
    Program,
    RmsNorm,
    RotateHeads,
    Select,
    Softcap,
    Weights,
    lower,
)

Floats = npt.NDArray[np.float32]
Tokens = npt.NDArray[np.int32]

_STEP_TOKENS = 2048


@dataclass(frozen=True)
class Stage:
    """A part of a program.

    Attributes:
        program: begins with the inputs, the buffers that the stages before left behind.
        inputs, outputs: names of the buffers that cross its borders.
        next: the linear layer that its end is the input of.
    """

    program: Program
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    next: Linear


def stages(program: Program) -> list[Stage]:
    """The program in stages, up to the input of its last linear layer, which makes the logits.

    Calibration wants every row, so nothing is selected.
    """
    ops = _without_select(program)
    cuts = [i for i, op in enumerate(ops) if isinstance(op, Linear)]
    pieces = [ops[begin:end] for begin, end in zip([0, *cuts[:-1]], cuts, strict=True)]
    live = _live_before(ops, cuts)
    result = []
    crossing: frozenset[str] = frozenset()
    for piece, after, cut in zip(pieces, live, cuts, strict=True):
        inputs = tuple(sorted(crossing))
        touched = {name for op in piece for name in _reads(op) | _writes(op)} | crossing
        buffers = {name: width for name, width in program.buffers.items() if name in touched}
        part = Program(buffers, program.ropes, (*map(Input, inputs), *piece))
        following = ops[cut]
        assert isinstance(following, Linear)
        result.append(Stage(part, inputs, tuple(sorted(after)), following))
        crossing = after
    return result


def _without_select(program: Program) -> list[Op]:
    """The ops up to the logits, with the selected rows' first buffer read as the one it is of."""
    select = next(op for op in program.ops if isinstance(op, Select))

    def renamed(op: Op) -> Op:
        changed: dict[str, Any] = {
            field: select.src
            for field in ("src", "dst", "hidden")
            if getattr(op, field, None) == select.dst
        }
        if isinstance(op, Linear):
            changed["parts"] = tuple(
                replace(part, dst=select.src) if part.dst == select.dst else part
                for part in op.parts
            )
        return replace(op, **changed)

    return [renamed(op) for op in program.ops if not isinstance(op, Select)]


def _reads(op: Op) -> frozenset[str]:
    match op:
        case Input() | Embed():
            return frozenset()
        case RmsNorm() | Gated() | Select():
            return frozenset({op.src})
        case Linear():
            kept = {part.dst for part in op.parts} if op.accumulate else set()
            return frozenset({op.src, *kept})
        case RotateHeads() | Attention():
            return frozenset({op.qkv})
        case Add():
            return frozenset({op.dst, op.src})
        case Softcap():
            return frozenset({op.buffer})
        case Finish():
            return frozenset({op.hidden, op.logits})


def _writes(op: Op) -> frozenset[str]:
    match op:
        case Linear():
            return frozenset(part.dst for part in op.parts)
        case RotateHeads():
            return frozenset({op.qkv})
        case Softcap():
            return frozenset({op.buffer})
        case Finish():
            return frozenset()
        case _:
            return frozenset({op.dst})


def _live_before(ops: list[Op], cuts: list[int]) -> list[frozenset[str]]:
    """The buffers that are read at or after each cut before they are written anew."""
    live: frozenset[str] = frozenset()
    before = {}
    for i in range(len(ops) - 1, -1, -1):
        live = (live - _writes(ops[i])) | _reads(ops[i])
        before[i] = live
    return [before[cut] for cut in cuts]


class Walk:
    """One text on its way through a model.

    Args:
        tokens: int32 [sequences, length]; each row is a text of its own from position 0 on.
        threads: of the executors.
    """

    def __init__(self, tokens: Tokens, *, threads: int) -> None:
        self.tokens = tokens
        self.rows: dict[str, Floats] = {}
        self._threads = threads

    def advance(self, stage: Stage, weights: Weights) -> None:
        """Runs one stage; afterwards ``rows`` holds its outputs, [sequences * length, width]."""
        sequences, length = self.tokens.shape
        executor = _native.Executor(self._threads)
        buffers = lower(stage.program, weights, executor)
        executor.finish_stage()
        batch = max(1, min(_STEP_TOKENS // length, sequences))
        pages = -(-length // _native.PAGE_POSITIONS)
        groups = len(executor.windows)
        executor.allocate(batch * length, batch, 1, [batch * pages] * groups, "f32")
        widths = stage.program.buffers
        kept = {name: self.rows[name] for name in stage.inputs}
        self.rows = {
            name: kept[name] if name in kept else _empty(sequences * length, widths[name])
            for name in stage.outputs
        }
        for begin in range(0, sequences, batch):
            part = self.tokens[begin : begin + batch]
            where = slice(begin * length, begin * length + part.size)
            for name in stage.inputs:
                executor.set_rows(buffers[name], kept[name][where])
            _step(executor, part, pages)
            for name in stage.outputs:
                self.rows[name][where] = executor.rows(buffers[name], part.size)


def _empty(rows: int, width: int) -> Floats:
    return np.empty((rows, width), np.float32)


def _step(executor: _native.Executor, tokens: Tokens, pages: int) -> None:
    """One step over whole sequences from position 0 on, each with pages of its own."""
    sequences, length = tokens.shape
    zeros = np.zeros(sequences, np.int32)
    table = np.arange(sequences * pages, dtype=np.int32).reshape(sequences, pages)
    tables = np.tile(table, (len(executor.windows), 1, 1))
    lengths = np.full(sequences, length, np.int32)
    executor.step(tokens.reshape(-1), lengths, zeros, tables, zeros, np.empty(0, np.int32))


def matrices(linear: Linear) -> tuple[str, ...]:
    """The names of the matrices that read one input."""
    return tuple(part.weight for part in linear.parts)
