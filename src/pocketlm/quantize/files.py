"""Writing a planned file: tensor by tensor, a few rows at a time, all or nothing.

The last step of every method. How a tensor's bytes are made is a function (``Encode``), so the file
is written the same way whether weights were rounded to the nearest code or calibrated for an hour.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketlm import _native
from pocketlm.convert.floats import recoded
from pocketlm.convert.stream import TensorStream
from pocketlm.errors import CapacityError, ModelFileError, RequestError
from pocketlm.gguf import NATIVE_TYPES, TensorData, Value, write_gguf
from pocketlm.gguf.file_types import FILE_TYPE_KEY
from pocketlm.gguf.split import split_set
from pocketlm.gguf.types import tensor_nbytes
from pocketlm.progress import Progress, ProgressCallback, silent
from pocketlm.quantize.importance import Importance
from pocketlm.quantize.plan import FLOATS, PlannedTensor, Recipe

Bytes = npt.NDArray[np.uint8]
Encode = Callable[[PlannedTensor], Iterable[Bytes]]

VERSION_KEY = "general.quantization_version"
_VERSION = 2  # of ggml's block layouts
_CHUNK_WEIGHTS = 1 << 24  # of a tensor, encoded at once


@dataclass(frozen=True)
class Written:
    """A file that was written.

    Attributes:
        path: where.
        size: bytes.
        weights: of all its tensors.
    """

    path: Path
    size: int
    weights: int

    @property
    def bits_per_weight(self) -> float:
        """Of the whole file, metadata included."""
        return 8 * self.size / self.weights


def encoder(method: str, importance: Importance | None, *, threads: int) -> Encode:
    """Rounds each tensor by itself.

    Args:
        method: "nearest" or "search".
        importance: weighs the columns' errors where it knows the tensor.
    """

    def encode(planned: PlannedTensor) -> Iterator[Bytes]:
        tensor = planned.tensor
        rows, cols = int(np.prod(tensor.shape[:-1])), tensor.shape[-1]
        columns = None if importance is None else importance.for_matrix(tensor.name, cols)
        row_bytes = tensor_nbytes(tensor.type, (cols,))
        step = max(1, _CHUNK_WEIGHTS // cols)
        data = tensor.read()
        for begin in range(0, rows, step):
            count = min(step, rows - begin)
            part = data[begin * row_bytes : (begin + count) * row_bytes]
            yield _native.quantize(
                tensor.type, part, count, cols, planned.type, method, columns, threads
            )
            tensor.release()

    return encode


def write_quantized(
    stream: TensorStream,
    planned: Sequence[PlannedTensor],
    out: Path,
    *,
    recipe: Recipe,
    encode: Encode,
    extra_metadata: Mapping[str, Value] | None = None,
    progress: ProgressCallback = silent,
) -> Written:
    """Writes the planned tensors with the stream's metadata; ``out`` appears when it is complete.

    Progress is in bytes of the new file. Tensors that keep their type are copied byte for byte.

    Raises:
        RequestError: ``out`` is the file that is read.
        CapacityError: the disk is too small.
        ModelFileError: a weight is not finite; the message names the tensor.
    """
    refuse_overwriting(stream.path, out)
    metadata = final_metadata(stream, recipe, extra_metadata or {})
    total = sum(item.nbytes for item in planned)
    _refuse_small_disk(out, total)
    done = 0
    name = stream.metadata.get("general.name", stream.path.name)

    def chunks(item: PlannedTensor) -> Iterator[Bytes]:
        nonlocal done
        for chunk in _bytes(item, encode, stream.path):
            yield chunk
            done += chunk.nbytes
            progress(Progress(f"quantize {name}", done, total))

    def data(item: PlannedTensor) -> TensorData:
        return TensorData(item.tensor.name, item.type, item.tensor.shape, lambda: chunks(item))

    write_gguf(out, metadata, [data(item) for item in planned])
    weights = sum(int(np.prod(item.tensor.shape)) for item in planned)
    return Written(out, out.stat().st_size, weights)


def final_metadata(
    stream: TensorStream, recipe: Recipe, extra: Mapping[str, Value]
) -> dict[str, Value]:
    """The stream's metadata with what the new file says of itself."""
    old = ("split.", "quantize.imatrix.")  # of the files that this one is made from
    kept = {key: value for key, value in stream.metadata.items() if not key.startswith(old)}
    kept[FILE_TYPE_KEY] = recipe.file_type.id
    kept[VERSION_KEY] = _VERSION
    return {**kept, **extra}


def _bytes(item: PlannedTensor, encode: Encode, path: Path) -> Iterable[Bytes]:
    tensor = item.tensor
    if item.copied:
        yield from _copied(item, path)
        tensor.release()
        return
    if tensor.type not in NATIVE_TYPES:
        raise RequestError(
            f"tensor '{tensor.name}' is {tensor.type.name}, which cannot be made {item.type.name}",
            path=path,
        )
    try:
        yield from encode(item)
    except ValueError as error:
        raise ModelFileError(f"tensor '{tensor.name}': {error}", path=path) from error


def _copied(item: PlannedTensor, path: Path) -> Iterable[Bytes]:
    """The tensor's own bytes, floats checked; blocks are taken as they are."""
    tensor = item.tensor
    if item.type not in FLOATS:
        return [tensor.read()]
    return recoded(tensor.read(), tensor.type, tensor.shape, item.type, name=tensor.name, path=path)


def refuse_overwriting(source: Path, out: Path) -> None:
    """Raises RequestError when ``out`` is (a link to) a file that is read, or a folder."""
    if out.is_dir():
        raise RequestError("the output is a folder", path=out, hint="Name a file: OUT.gguf.")
    if not out.exists():
        return
    read = source.iterdir() if source.is_dir() else split_set(source)
    if any(part.exists() and part.samefile(out) for part in read):
        raise RequestError(
            "the output is the file that is read", path=out, hint="Give it another name."
        )


def _refuse_small_disk(out: Path, needed: int) -> None:
    folder = out.absolute().parent
    if not folder.is_dir():
        raise RequestError("there is no such folder", path=folder)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CapacityError(
            f"the file takes {needed:,} bytes but the disk has {free:,} left",
            path=folder,
            hint="Free some space, or write to another disk.",
        )
