"""The training inside ``--method distilled``: steps of Adam on block scales and minima.

The original runs on the native engine and gives its last hidden states; the quantized model runs in
PyTorch with gradients. Only here (and in what it imports: ``torch_program``, ``tuned_weights``,
``divergence_loss``) is torch needed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pocketlm import _native
from pocketlm.files import atomic_file
from pocketlm.gguf import dequantize
from pocketlm.models import ModelSpec
from pocketlm.models.build import build_executor
from pocketlm.models.sources import Matrix, checked_floats
from pocketlm.quantize.block_scales import TUNABLE, Bytes, Factors, factorize, with_fields
from pocketlm.quantize.divergence_loss import divergence
from pocketlm.quantize.schedule import Schedule
from pocketlm.quantize.torch_program import head_of, hidden_states
from pocketlm.quantize.tuned_weights import TunedMatrix

Tokens = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


def best_device() -> torch.device:
    """A GPU where there is one."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def product_dtype(device: torch.device) -> torch.dtype:
    """What matrix products are computed in: bfloat16 where the hardware multiplies it.

    Rounding activations to 8 bits of mantissa changes a gradient far less than quantizing the
    weights has; sums are in float32 either way, and so is everything else.
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    if device.type == "cpu":
        found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        if found.get("avx512_bf16") or found.get("amx_bf16"):
            return torch.bfloat16
    return torch.float32


class Original:
    """The model before quantization: its last hidden states, from the native engine.

    Args:
        length: of the sequences.
    """

    def __init__(self, spec: ModelSpec, length: int, threads: int) -> None:
        pages = -(-length // _native.PAGE_POSITIONS)
        self._executor = build_executor(spec, threads=threads)
        groups = len(self._executor.windows)
        self._executor.allocate(length, 1, length, [pages] * groups, "f32")
        switch = spec.config.rope_switch
        self._length = np.array([length], np.int32)
        self._start = np.zeros(1, np.int32)
        self._tables = np.tile(np.arange(pages, dtype=np.int32), (groups, 1, 1))
        self._variant = np.array([int(switch is not None and length > switch)], np.int32)
        self._rows = np.arange(length, dtype=np.int32)

    def hidden(self, tokens: Tokens) -> Floats:
        """float32 [sequences * length, width] for ``tokens`` [sequences, length]."""
        places = (self._length, self._start, self._tables, self._variant, self._rows)
        return np.concatenate([self._executor.step(row.copy(), *places, True) for row in tokens])


class Student:
    """The weights of the quantized model in PyTorch: see ``torch_program.Weights``.

    Attributes:
        tuned: matrices whose scales are parameters, by name.
    """

    def __init__(self, spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._spec = spec
        self._plain: dict[str, Tensor] = {}
        self.tuned: dict[str, TunedMatrix] = {}
        for name, shape in spec.program.shapes().items():
            if len(shape) == 2 and spec.source.type(name) in TUNABLE:
                factors = _in_program_order(spec.source.matrix(name))
                self.tuned[name] = TunedMatrix(factors, device)
            elif len(shape) == 2:
                self._plain[name] = dense_matrix(spec, name).to(device, dtype)
            else:
                values = checked_floats(name, spec.source.vector(name), spec.path)
                self._plain[name] = torch.tensor(values, device=device)
            spec.source.release_pages()

    def embed(self, name: str, tokens: Tensor) -> Tensor:
        if name in self.tuned:
            return self.tuned[name].embed(tokens)
        return self._plain[name][tokens].float()

    def linear(self, name: str, x: Tensor) -> Tensor:
        if name in self.tuned:
            return self.tuned[name].linear(x, self._dtype)
        return torch.nn.functional.linear(x.to(self._dtype), self._plain[name])

    def vector(self, name: str) -> Tensor:
        return self._plain[name]

    def output(self, name: str) -> TunedMatrix | Tensor:
        """The output matrix, as ``divergence`` takes it."""
        return self.tuned[name] if name in self.tuned else self._plain[name].float()

    def blocks(self, name: str) -> Bytes:
        """The bytes of a tuned matrix as they stand in a file, with its fields as they are now."""
        matrix = self._spec.source.matrix(name)
        with torch.no_grad():
            fields = self.tuned[name].fields()
        scale, minimum = (None if f is None else _in_file_order(f, matrix) for f in fields)
        assert scale is not None
        return with_fields(matrix.type, matrix.data, scale, minimum)


def dense_matrix(spec: ModelSpec, name: str) -> Tensor:
    """A matrix as float32 [rows, cols], rows in the program's order."""
    m = spec.source.matrix(name)
    values = checked_floats(name, dequantize(m.type, m.data, (m.rows, m.cols)), spec.path)
    return torch.from_numpy(values if m.row_map is None else values[m.row_map])


def _in_program_order(m: Matrix) -> Factors:
    found = factorize(m.type, m.data, m.rows, m.cols)
    if m.row_map is None:
        return found
    arrays = (found.scale, found.minimum, found.u, found.v)
    return Factors(found.type, *(None if a is None else a[m.row_map] for a in arrays))  # type: ignore[arg-type]


def _in_file_order(field: Tensor, m: Matrix) -> Floats:
    values: Floats = field.cpu().numpy()
    if m.row_map is None:
        return values
    placed = np.empty_like(values)
    placed[m.row_map] = values
    return placed


class Tuning:
    """One training: parameters, optimizer and how far it has come.

    Attributes:
        step: steps done, of ``steps``.
        student: the quantized model.
    """

    def __init__(
        self,
        original: ModelSpec,
        quantized: ModelSpec,
        train: Tokens,
        schedule: Schedule,
        *,
        threads: int,
    ) -> None:
        self._device = best_device()
        self._dtype = product_dtype(self._device)
        self._schedule = schedule
        self._train = train
        self._program = quantized.program
        self._head = head_of(original.program)
        self._own_head = head_of(quantized.program)
        self._target_matrix = dense_matrix(original, self._head.weight).to(self._device)
        self._original = Original(original, train.shape[1], threads)
        self.student = Student(quantized, self._device, self._dtype)
        self._parameters = {
            f"{name}.{i}": parameter
            for name, matrix in self.student.tuned.items()
            for i, parameter in enumerate(matrix.parameters())
        }
        # eps: gradients of single scales may be tiny, and all of them count alike
        self._optimizer = torch.optim.Adam(
            list(self._parameters.values()), lr=0.0, betas=(0.9, 0.95), eps=1e-12
        )
        self.step = 0
        self.steps = schedule.steps(len(train))

    def advance(self) -> float:
        """One step; the divergence of its batch before it, in nats a token."""
        chosen = self._train[self._schedule.chosen(self.step, len(self._train))]
        for group in self._optimizer.param_groups:
            group["lr"] = self._schedule.rate(self.step, self.steps)
        self._optimizer.zero_grad(set_to_none=True)
        tokens = torch.from_numpy(chosen).long().to(self._device)
        target = torch.from_numpy(self._original.hidden(chosen)).to(self._device)
        hidden = hidden_states(self._program, self.student, tokens).flatten(0, 1)
        matrix = self.student.output(self._own_head.weight)
        loss = divergence(
            hidden, matrix, target, self._target_matrix, self._head.softcap, self._dtype
        )
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.step += 1
        return float(loss.detach())

    def deltas(self) -> dict[str, Tensor]:
        """A copy of the parameters."""
        return {name: p.detach().clone() for name, p in self._parameters.items()}

    def restore(self, deltas: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(deltas[name])

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, for ``load_state``."""
        return {
            "step": self.step,
            "deltas": self.deltas(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]
        self.restore(state["deltas"])
        self._optimizer.load_state_dict(state["optimizer"])


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a state; ``path`` has the old one or the new one whatever happens."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    with atomic_file(path) as write:
        write(buffer.getbuffer())


def load(path: Path) -> dict[str, Any] | None:
    """The state that ``save`` wrote, None where there is none."""
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """PyTorch computes with this many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
