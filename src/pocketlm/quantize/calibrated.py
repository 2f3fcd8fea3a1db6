"""``--method calibrated``: linear layers rounded with compensation, one after the other.

Calibration text goes through the original model and, beside it, through the model as far as it is
quantized. So a layer is rounded for the inputs that it will really get, and its target is what the
original computes: it makes up for what the layers before it lost, as far as it can. A held-out
slice of the text, which nothing was fitted to, decides for each matrix whether that is better than
the plain search; on few tokens or odd layers it may not be.

Finished matrices are kept in a work folder. A run that was interrupted replays the text over them
and goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from pocketlm import _native
from pocketlm.errors import UnsupportedError
from pocketlm.gguf import BlockType, block_elements, dequantize
from pocketlm.models import ModelSpec
from pocketlm.models.program import Linear
from pocketlm.models.sources import Matrix, checked_floats
from pocketlm.progress import Progress, ProgressCallback, silent
from pocketlm.quantize.codes import LAYOUTS, Bytes, Floats
from pocketlm.quantize.layer_inputs import LayerInputs, Settings
from pocketlm.quantize.rounding import Doubles, compensated
from pocketlm.quantize.walk import Tokens, Walk, stages
from pocketlm.quantize.workfolder import WorkFolder


@dataclass(frozen=True)
class Outcome:
    """What became of one matrix.

    Attributes:
        error: of its outputs on held-out text, as a share of their energy.
        searched: the same with the plain search.
        kept: "calibrated" or "search".
    """

    error: float
    searched: float
    kept: str


class OriginalWeights:
    """The weights of a model as they are, packed for the stages that ask for them."""

    def __init__(self, spec: ModelSpec, threads: int) -> None:
        self._spec = spec
        self._threads = threads

    def matrix(self, name: str) -> _native.Weight:
        weight = self.packed(self._spec.source.matrix(name))
        self._spec.source.release_pages()
        return weight

    def vector(self, name: str) -> Floats:
        return checked_floats(name, self._spec.source.vector(name), self._spec.path)

    def values(self, name: str) -> Floats:
        """A matrix as float32 [rows, cols], rows in file order."""
        matrix = self._spec.source.matrix(name)
        values = dequantize(matrix.type, matrix.data, (matrix.rows, matrix.cols))
        self._spec.source.release_pages()
        return checked_floats(name, values, self._spec.path)

    def packed(self, m: Matrix) -> _native.Weight:
        return _native.Weight.pack(int(m.type), m.rows, m.cols, m.data, m.row_map, self._threads)


class _QuantizedWeights(OriginalWeights):
    """The same with what has been quantized so far, decoded: activations stay float32."""

    def __init__(self, spec: ModelSpec, threads: int) -> None:
        super().__init__(spec, threads)
        self.blocks: dict[str, tuple[BlockType, Bytes]] = {}

    def matrix(self, name: str) -> _native.Weight:
        if name not in self.blocks:
            return super().matrix(name)
        m = self._spec.source.matrix(name)
        type, data = self.blocks[name]
        if name == "token_embd.weight":  # rows are only looked up: no need to decode them all
            return self.packed(Matrix(type, m.rows, m.cols, data, m.row_map))
        values = dequantize(type, data, (m.rows, m.cols)).reshape(-1).view(np.uint8)
        return self.packed(Matrix(BlockType.F32, m.rows, m.cols, values, m.row_map))


class Calibration:
    """Rounds the linear layers of one model.

    Args:
        spec: the original.
        types: block type that each matrix is to have.
        fit, held_out: int32 [sequences, length] each, calibration text.
        work: where finished matrices are kept.

    Attributes:
        outcomes: by name of the matrix, as they come.
        squares: sums of the original's squared inputs over ``fit``, by name of the matrix.
    """

    def __init__(
        self,
        spec: ModelSpec,
        types: Mapping[str, BlockType],
        fit: Tokens,
        held_out: Tokens,
        work: WorkFolder,
        *,
        threads: int,
        settings: Settings | None = None,
    ) -> None:
        if spec.config.quantize == "row":
            raise UnsupportedError(
                "the layers of a BitNet model are ternary already: nothing is lost to calibrate",
                path=spec.path,
                hint="Quantize it to TQ1_0 or TQ2_0 without --method.",
            )
        self.outcomes: dict[str, Outcome] = {}
        self.squares: dict[str, Doubles] = {}
        self._settings = settings or Settings()
        self._spec = spec
        self._types = types
        self._threads = threads
        self._work = work
        self._fit = fit.size
        tokens = np.concatenate([fit, held_out])
        self._original = Walk(tokens, threads=threads)
        self._quantized = Walk(tokens, threads=threads)
        self._weights = OriginalWeights(spec, threads)
        self._changed = _QuantizedWeights(spec, threads)

    def run(self, progress: ProgressCallback = silent) -> dict[str, Bytes]:
        """The blocks of the embedding and of every linear layer inside the model, by name."""
        steps = stages(self._spec.program)[:-1]  # the last one ends before the logits
        total = sum(len(stage.next.parts) for stage in steps)
        self._quantize_embedding()
        for stage in steps:
            self._original.advance(stage, self._weights)
            self._quantized.advance(stage, self._changed)
            self._round(stage.next)
            progress(Progress("calibrate layers", len(self.outcomes), total))
        return {name: blocks for name, (_, blocks) in self._changed.blocks.items()}

    def _quantize_embedding(self) -> None:
        name = "token_embd.weight"
        matrix = self._spec.source.matrix(name)
        blocks = _native.quantize(
            matrix.type, matrix.data, matrix.rows, matrix.cols, self._types[name], "search", None,
            self._threads,
        )  # fmt: skip
        self._spec.source.release_pages()
        self._changed.blocks[name] = (self._types[name], blocks)

    def _round(self, linear: Linear) -> None:
        """Rounds the matrices that read one input, which both walks have just reached."""
        inputs = LayerInputs(
            self._original.rows[linear.src],
            self._quantized.rows[linear.src],
            self._fit,
            self._settings,
        )
        squares = np.square(self._original.rows[linear.src][: self._fit]).sum(0, dtype=np.float64)
        for part in linear.parts:
            self.squares[part.weight] = squares
            type = self._types[part.weight]
            if type not in LAYOUTS:
                continue
            found = self._work.load(part.weight)
            if found is None:
                drift = None
                if linear.accumulate:
                    drift = self._original.rows[part.dst] - self._quantized.rows[part.dst]
                blocks, outcome = self._best(part.weight, type, inputs, drift)
                found = self._work.save(part.weight, blocks, asdict(outcome))
            blocks, facts = found
            self._changed.blocks[part.weight] = (type, blocks)
            self.outcomes[part.weight] = Outcome(**facts)

    def _best(
        self, name: str, type: BlockType, inputs: LayerInputs, drift: Floats | None
    ) -> tuple[Bytes, Outcome]:
        """Calibrated or searched blocks, whichever does better on held-out text."""
        weights = self._weights.values(name)
        rows, cols = weights.shape
        target = inputs.corrected(weights, drift)
        rounded = compensated(
            target, inputs.curvature(block_elements(type)), type, threads=self._threads
        )
        importance = np.diag(inputs.second).astype(np.float32)
        raw = weights.reshape(-1).view(np.uint8)
        searched = _native.quantize(
            BlockType.F32, raw, rows, cols, type, "search", importance, self._threads
        )
        mine, plain = (
            inputs.held_out_error(weights, dequantize(type, blocks, (rows, cols)), drift)
            for blocks in (rounded, searched)
        )
        if mine < plain:
            return rounded, Outcome(mine, plain, kept="calibrated")
        return searched, Outcome(plain, plain, kept="search")
