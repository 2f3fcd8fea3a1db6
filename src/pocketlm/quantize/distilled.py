"""``--method distilled``: block scales and minima tuned to the original's logits.

The last rung of the ladder. It takes a quantized file, whatever made it, and moves nothing but the
float16 fields of its blocks (``block_scales``), by gradient, so that the next-token distributions
come closer to those of the original on calibration text: KL(original || quantized), as mlx-lm's DWQ
does for MLX's groups. Codes, sub-scales, norms, types and size stay, so the result is as good for
every GGUF engine.

Held-out text, which nothing was trained on, is judged by the native engine on the file as it would
be written. What is written is the best state that it saw; if that is no better than the input, the
input. PyTorch is an extra and is imported here only when the work begins.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pocketlm.backends import NativeBackend
from pocketlm.errors import ModelFileError, RequestError, UnsupportedError
from pocketlm.evaluate.divergence import divergence
from pocketlm.evaluate.windows import Window
from pocketlm.gguf import GGUFFile, TensorData, write_gguf
from pocketlm.models import ModelSpec, open_model
from pocketlm.models.sources import Adapted, Bytes, Matrix, TensorSource
from pocketlm.progress import Progress, ProgressCallback, silent
from pocketlm.quantize.block_scales import TUNABLE
from pocketlm.quantize.schedule import Schedule
from pocketlm.quantize.workfolder import WorkFolder, fingerprint

if TYPE_CHECKING:
    from pocketlm.quantize.tuning import Tuning

Tokens = npt.NDArray[np.int32]

_CHECKS = 3  # times that a training is judged, the end included
_SAVE_SECONDS = 60.0


@dataclass(frozen=True)
class Distillation:
    """What became of a file.

    Attributes:
        before, after: mean KL(original || quantized) on the held-out text, nats a token; ``after``
            is of the best state that was judged, whether it is kept or not.
        kept: whether the file that was written has tuned scales; if not, it is the input's.
        steps: that were done, of all the steps that were planned unless it stopped early.
        tokens: trained on, those of repeated passes included.
        seconds: since this run began; an interrupted one's are not in it.
    """

    before: float
    after: float
    kept: bool
    steps: int
    tokens: int
    seconds: float


def distil(
    original: Path,
    quantized: Path,
    out: Path,
    *,
    train: Tokens,
    held_out: Tokens,
    work: Path,
    threads: int,
    schedule: Schedule | None = None,
    progress: ProgressCallback = silent,
) -> Distillation:
    """Tunes the scales of a quantized file and writes it, or a copy where that does not help.

    Args:
        original: the model before quantization, a GGUF file or a safetensors folder.
        quantized: a GGUF file of it.
        out: the file to be written; may be ``quantized`` itself.
        train, held_out: int32 [sequences, length] tokens, sequences as the model sees them (with
            the token that begins a text, where it adds one).
        work: a folder for the state of an interrupted run, which the same call goes on from; it is
            removed at the end.
        threads: of the native engine and of PyTorch.
        progress: in tokens.

    Raises:
        UnsupportedError: PyTorch is not installed; a BitNet model; a file without tunable blocks.
        RequestError: the files are not of one model, or the token arrays do not fit them.
        Errors of ``open_model`` and ``write_gguf``.
    """
    started = time.monotonic()
    schedule = schedule or Schedule()
    _require_torch()
    with ExitStack() as stack:
        one = open_model(original)
        stack.callback(one.close)
        other = open_model(quantized)
        stack.callback(other.close)
        _check(one, other, out, train, held_out, schedule)
        facts = {
            "files": [_digest(path) for path in (original, quantized)],
            "tokens": [hashlib.sha256(t.tobytes()).hexdigest() for t in (train, held_out)],
            "shapes": [train.shape, held_out.shape],
            "schedule": asdict(schedule),
        }
        folder = WorkFolder(work, fingerprint(facts))
        run = _Run(one, other, train, held_out, folder.path, schedule, threads, progress)
        result = run.train()
        _write(quantized, out, run.best_blocks() if result.kept else {})
    folder.remove()
    return replace(result, seconds=time.monotonic() - started)


class _Run:
    """One training with its judgements: the best state so far and the way back to it."""

    def __init__(
        self,
        original: ModelSpec,
        quantized: ModelSpec,
        train: Tokens,
        held_out: Tokens,
        work: Path,
        schedule: Schedule,
        threads: int,
        progress: ProgressCallback,
    ) -> None:
        self._original = original
        self._quantized = quantized
        self._train = train
        self._held_out = held_out
        self._state = work / "state.pt"
        self._schedule = schedule
        self._threads = threads
        self._progress = progress
        self._judged: list[float] = []  # the input first
        self._best: dict[str, Any] = {}  # deltas
        self._tuning: Tuning | None = None

    def train(self) -> Distillation:
        from pocketlm.quantize import tuning

        self._judged = []
        total = self._schedule.steps(len(self._train))
        per_step = self._schedule.batch * self._train.shape[1]
        with tuning.torch_threads(self._threads):
            task = self._tuning = tuning.Tuning(
                self._original, self._quantized, self._train, self._schedule, threads=self._threads
            )
            self._resume()
            if not self._judged:
                self._judge()
            saved = time.monotonic()
            while task.step < total and not self._hopeless():
                task.advance()
                self._progress(Progress("distil", task.step * per_step, total * per_step))
                if task.step * _CHECKS // total > (task.step - 1) * _CHECKS // total:
                    self._judge()
                elif time.monotonic() - saved < _SAVE_SECONDS:
                    continue
                self._save()
                saved = time.monotonic()
        before, after = self._judged[0], min(self._judged[1:])
        kept = after < before
        return Distillation(before, after, kept, task.step, task.step * per_step, 0.0)

    def best_blocks(self) -> dict[str, Bytes]:
        """The bytes of every tuned matrix in the best state."""
        assert self._tuning is not None
        self._tuning.restore(self._best)
        student = self._tuning.student
        return {name: student.blocks(name) for name in student.tuned}

    def _hopeless(self) -> bool:
        """Two judgements in a row were no better than the best before them."""
        return len(self._judged) > 2 and min(self._judged[-2:]) >= min(self._judged[:-2])

    def _judge(self) -> None:
        """Adds the mean KL of the held-out text with the scales as they are now."""
        assert self._tuning is not None
        try:
            found = self._divergence(_Tuned(self._quantized.source, self._tuning))
        except ModelFileError:
            if not self._judged:  # the input's own fault
                raise
            found = math.inf  # steps so large that the logits are no numbers any more
        if self._judged and found <= min(self._judged):
            self._best = self._tuning.deltas()
        self._judged.append(found)

    def _divergence(self, source: TensorSource) -> float:
        length = self._held_out.shape[1]
        windows = [Window(row, 0) for row in self._held_out]
        with (
            NativeBackend(self._original, context=length, threads=self._threads) as reference,
            NativeBackend(
                replace(self._quantized, source=source), context=length, threads=self._threads
            ) as candidate,
        ):
            return divergence(reference, candidate, windows).mean

    def _save(self) -> None:
        from pocketlm.quantize import tuning

        assert self._tuning is not None
        state = {"tuning": self._tuning.state(), "judged": self._judged, "best": self._best}
        tuning.save(self._state, state)

    def _resume(self) -> None:
        from pocketlm.quantize import tuning

        assert self._tuning is not None
        state = tuning.load(self._state)
        if state is not None:
            self._tuning.load_state(state["tuning"])
            self._judged, self._best = state["judged"], state["best"]


class _Tuned(Adapted):
    """The quantized model's tensors with the scales of a training."""

    def __init__(self, inner: TensorSource, tuning: Tuning) -> None:
        super().__init__(inner)
        self._student = tuning.student

    def matrix(self, name: str) -> Matrix:
        matrix = self.inner.matrix(name)
        if name not in self._student.tuned:
            return matrix
        return replace(matrix, data=self._student.blocks(name))


def _require_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        raise UnsupportedError(
            "distilling needs PyTorch, which is not installed",
            hint="Install it with: pip install 'pocketlm[distill]'.",
        )


def _check(
    original: ModelSpec,
    quantized: ModelSpec,
    out: Path,
    train: Tokens,
    held_out: Tokens,
    schedule: Schedule,
) -> None:
    for spec in (original, quantized):
        if spec.config.quantize == "row":
            raise UnsupportedError(
                "a BitNet model computes with 8-bit activations, through which nothing is tuned",
                path=spec.path,
                hint="Its ternary weights are exact already: quantize without --method.",
            )
    if original.program.shapes() != quantized.program.shapes():
        raise RequestError(
            f"{quantized.path} is not a quantized {original.path}: their tensors differ"
        )
    if out.resolve() == original.path.resolve():
        raise RequestError("the output would replace the original", path=out)
    shapes = quantized.program.shapes()
    if not any(quantized.source.type(n) in TUNABLE for n, s in shapes.items() if len(s) == 2):
        raise UnsupportedError("no matrix of the file has block scales", path=quantized.path)
    for what, tokens in (("training", train), ("held-out", held_out)):
        if tokens.ndim != 2 or tokens.dtype != np.int32 or tokens.size == 0 or tokens.shape[1] < 2:
            raise RequestError(
                f"the {what} tokens are {tokens.dtype} {tokens.shape}, expected int32 "
                "[sequences, length] with a length of at least 2"
            )
        if not 0 <= tokens.min() <= tokens.max() < original.config.vocab:
            raise RequestError(f"the {what} tokens are not all in the vocabulary")
    if len(train) < schedule.batch:
        raise RequestError(f"{len(train)} training sequences do not fill a batch")
    if {row.tobytes() for row in train} & {row.tobytes() for row in held_out}:
        raise RequestError("a held-out sequence is among those to train on")


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder with their names."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            total.update(
                f"{file.name} {hashlib.file_digest(opened, 'sha256').hexdigest()}".encode()
            )
    return total.hexdigest()


def _write(quantized: Path, out: Path, changed: Mapping[str, Bytes]) -> None:
    """The quantized file with other bytes for some of its tensors."""
    with GGUFFile.open(quantized) as file:
        tensors = [
            TensorData(name, info.type, info.shape, changed.get(name, file.tensor_bytes(name)))
            for name, info in file.tensors.items()
        ]
        write_gguf(out, file.metadata, tensors, alignment=file.alignment)
