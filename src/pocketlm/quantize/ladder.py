"""The methods that look at calibration text, one upon the other, each kept only if it helps.

search → calibrated → distilled: what stands is judged by its mean KL divergence from the original
on held-out text, by the engine that will run it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from pocketlm.backends import NativeBackend
from pocketlm.convert.stream import TensorStream
from pocketlm.evaluate.divergence import divergence
from pocketlm.evaluate.texts import CALIBRATION_KEY
from pocketlm.evaluate.windows import Window
from pocketlm.gguf import TensorData, Value, write_gguf
from pocketlm.models import ModelSpec, open_model
from pocketlm.models.sources import Adapted, Matrix, TensorSource
from pocketlm.progress import ProgressCallback
from pocketlm.quantize.calibrated import Calibration
from pocketlm.quantize.calibration_text import CalibrationText
from pocketlm.quantize.codes import Bytes
from pocketlm.quantize.files import Encode, Written, encoder, write_quantized
from pocketlm.quantize.importance import Importance
from pocketlm.quantize.layer_inputs import Settings
from pocketlm.quantize.plan import PlannedTensor, Recipe
from pocketlm.quantize.workfolder import WorkFolder, fingerprint


class Ladder:
    """One model on its way down to fewer bits.

    Attributes:
        importance: measured by ``climb``.
        kept: the method that made what was written.
        held_out: mean KL on held-out text of each method that was judged.
    """

    def __init__(
        self,
        stream: TensorStream,
        planned: Sequence[PlannedTensor],
        recipe: Recipe,
        text: CalibrationText,
        out: Path,
        threads: int,
        progress: ProgressCallback,
    ) -> None:
        self.importance = Importance.from_sums({}, datasets=(), chunks=0, chunk_size=0)
        self.kept = "search"
        self.held_out: dict[str, float] = {}
        self._stream = stream
        self._planned = planned
        self._recipe = recipe
        self._text = text
        self._out = out
        self._threads = threads
        self._progress = progress
        self._work = WorkFolder(out.with_name(f"{out.name}.work"), self._task())

    def climb(self, *, distil: bool) -> Written:
        """Writes the best file; the work folder goes when it is there."""
        original = self._original()
        spec = open_model(original)
        try:
            blocks = self._calibrated(spec)
            encode = self._better(spec, blocks)
        finally:
            spec.close()
        written = self._distilled(original, encode) if distil else self._write(self._out, encode)
        self._work.remove()
        return written

    def _task(self) -> str:
        """Everything that the results depend on: another task begins anew."""
        source = self._stream.path.stat()
        return fingerprint(
            {
                "source": [str(self._stream.path.resolve()), source.st_size, source.st_mtime_ns],
                "types": {p.tensor.name: p.type.name for p in self._planned},
                "text": [self._text.hashes, self._text.fit.shape, self._text.held_out.shape],
                "settings": asdict(Settings()),
            }
        )

    def _original(self) -> Path:
        """The original as a GGUF file: a folder is written as one first, as it is."""
        if self._stream.path.is_file():
            return self._stream.path
        path = self._work.path / "original.gguf"
        if not path.exists():
            tensors = [TensorData(t.name, t.type, t.shape, t.read) for t in self._stream.tensors]
            write_gguf(path, self._stream.metadata, tensors)
        return path

    def _calibrated(self, spec: ModelSpec) -> dict[str, Bytes]:
        types = {p.tensor.name: p.type for p in self._planned}
        fit, held_out = self._text.fit, self._text.held_out
        task = Calibration(spec, types, fit, held_out, self._work, threads=self._threads)
        blocks = task.run(self._progress)
        self.importance = Importance.from_sums(
            {name: (squares, fit.size) for name, squares in task.squares.items()},
            datasets=self._text.names,
            chunks=len(fit),
            chunk_size=fit.shape[1],
        )
        return blocks

    def _better(self, spec: ModelSpec, blocks: dict[str, Bytes]) -> Encode:
        """How to encode: with the calibrated blocks, or by search where that is closer."""
        searched = encoder("search", self.importance, threads=self._threads)

        def calibrated(planned: PlannedTensor) -> Iterable[Bytes]:
            found = blocks.get(planned.tensor.name)
            return searched(planned) if found is None else [found]

        choices: dict[str, Encode] = {"search": searched, "calibrated": calibrated}
        for method, encode in choices.items():
            self.held_out[method] = self._judge(spec, encode)
        self.kept = min(self.held_out, key=lambda method: self.held_out[method])
        return choices[self.kept]

    def _judge(self, spec: ModelSpec, encode: Encode) -> float:
        source = _Encoded(spec.source, self._planned, encode)
        length = self._text.held_out.shape[1]
        windows = [Window(row, 0) for row in self._text.held_out]
        with (
            NativeBackend(spec, context=length, threads=self._threads) as original,
            NativeBackend(
                replace(spec, source=source), context=length, threads=self._threads
            ) as candidate,
        ):
            return divergence(original, candidate, windows, progress=self._progress).mean

    def _distilled(self, original: Path, encode: Encode) -> Written:
        from pocketlm.quantize.distilled import distil

        below = self._work.path / "calibrated.gguf"
        written = self._write(below, encode)
        found = distil(
            original,
            below,
            self._out,
            train=self._text.train,
            held_out=self._text.held_out,
            work=self._work.path / "distil",
            threads=self._threads,
            progress=self._progress,
        )
        self.held_out["distilled"] = found.after
        if found.kept:
            self.kept = "distilled"
        return replace(written, path=self._out, size=self._out.stat().st_size)

    def _write(self, path: Path, encode: Encode) -> Written:
        facts: dict[str, Value] = {
            "pocketlm.quantize.method": self.kept,
            CALIBRATION_KEY: list(self._text.hashes),
        }
        return write_quantized(
            self._stream,
            self._planned,
            path,
            recipe=self._recipe,
            encode=encode,
            extra_metadata=facts,
            progress=self._progress,
        )


class _Encoded(Adapted):
    """A model's tensors as a quantized file of it would have them."""

    def __init__(
        self, inner: TensorSource, planned: Sequence[PlannedTensor], encode: Encode
    ) -> None:
        super().__init__(inner)
        self._planned = {p.tensor.name: p for p in planned if not p.copied}
        self._encode: Callable[[PlannedTensor], Iterable[Bytes]] = encode

    def matrix(self, name: str) -> Matrix:
        matrix = self.inner.matrix(name)
        planned = self._planned.get(name)
        if planned is None:
            return matrix
        data = np.concatenate([chunk.reshape(-1) for chunk in self._encode(planned)])
        return replace(matrix, type=planned.type, data=data)
