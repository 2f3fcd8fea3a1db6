"""A model as a stream of tensors: what convert and quantize write from, whatever it lies in.

A stream has GGUF's names, metadata and values, whether it comes from a GGUF file or from a Hugging
Face folder. Nothing is read before its turn: a tensor gives its bytes when asked, and lets the
pages that were touched go when told, so that a model of any size passes through the memory of one
tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketlm.convert.packed import is_bit_linear
from pocketlm.errors import ModelFileError
from pocketlm.gguf import BlockType, GGUFFile, Value, tensor_nbytes
from pocketlm.gguf.file_types import FILE_TYPE_KEY
from pocketlm.models.sources import Matrix
from pocketlm.models.ternary import fits_blocks, i2_s_scale, with_unit_scale

ARCHITECTURE_KEY = "general.architecture"


@dataclass(frozen=True)
class StreamTensor:
    """One tensor to be read.

    Attributes:
        name: GGUF's.
        type: of the bytes that ``read`` gives.
        shape: numpy's order, slowest dimension first.
        read: the bytes, uint8, one-dimensional and contiguous; usually a view of a mapped file.
        release: lets the pages that were read leave memory; nothing where there are none.
    """

    name: str
    type: BlockType
    shape: tuple[int, ...]
    read: Callable[[], npt.NDArray[np.uint8]]
    release: Callable[[], None]

    @property
    def nbytes(self) -> int:
        return tensor_nbytes(self.type, self.shape)


@dataclass(frozen=True)
class TensorStream:
    """A model to be read from front to back.

    Attributes:
        path: where it comes from, for errors.
        architecture: GGUF's name of it.
        metadata: GGUF's, in order, complete (tokenizer included), without ``general.file_type``.
        tensors: in the order of the file to be written.
    """

    path: Path
    architecture: str
    metadata: Mapping[str, Value]
    tensors: Sequence[StreamTensor]


@contextmanager
def open_stream(path: Path) -> Iterator[TensorStream]:
    """Open a GGUF file (or the first of a split set) or a Hugging Face folder, for a ``with``.

    Raises:
        NotFoundError, SourceError: it cannot be read.
        ModelFileError: it breaks its format, or a tensor is missing.
        UnsupportedError: an architecture, tokenizer or type that PocketLM does not convert.
    """
    if path.is_dir():
        from pocketlm.convert.folder import folder_stream
        from pocketlm.models import open_model

        with closing(open_model(path)) as spec:
            yield folder_stream(spec)
        return
    with GGUFFile.open(path) as file:
        yield gguf_stream(file)


def gguf_stream(file: GGUFFile) -> TensorStream:
    """The stream of an open GGUF file, in the file's order."""
    architecture = file.metadata.get(ARCHITECTURE_KEY)
    if not isinstance(architecture, str):
        raise ModelFileError(f"the metadata has no {ARCHITECTURE_KEY}", path=file.path)
    metadata = {key: value for key, value in file.metadata.items() if key != FILE_TYPE_KEY}
    tensors = [tensor for name in file.tensors for tensor in _tensors(file, name)]
    return TensorStream(file.path, architecture, metadata, tensors)


def _tensors(file: GGUFFile, name: str) -> list[StreamTensor]:
    info = file.tensors[name]
    if info.type == BlockType.I2_S:
        return _known_to_all(file, name)

    def read() -> npt.NDArray[np.uint8]:
        return file.tensor_bytes(name)

    return [StreamTensor(name, info.type, info.shape, read, file.release_pages)]


def _known_to_all(file: GGUFFile, name: str) -> list[StreamTensor]:
    """An I2_S tensor as TQ2_0 of scale 1 and a ``.scale`` beside it, or F32 where that cannot be.

    Only bitnet.cpp knows I2_S; and its rows cannot be read one by one, since the scale stands after
    all of them.
    """
    info = file.tensors[name]
    scale_name = f"{name.removesuffix('.weight')}.scale"
    if not is_bit_linear(name) or not fits_blocks(info.shape) or scale_name in file.tensors:

        def floats() -> npt.NDArray[np.uint8]:
            return file.tensor(name).reshape(-1).view(np.uint8)

        return [StreamTensor(name, BlockType.F32, info.shape, floats, file.release_pages)]
    rows, cols = info.shape

    def blocks() -> npt.NDArray[np.uint8]:
        return with_unit_scale(Matrix(info.type, rows, cols, file.tensor_bytes(name)))[0]

    def scale() -> npt.NDArray[np.uint8]:
        value = np.array([i2_s_scale(file.tensor_bytes(name))], dtype=np.float32)
        if not 0 < value[0] < np.inf:
            raise ModelFileError(f"the scale of tensor '{name}' is {value[0]:g}", path=file.path)
        return value.view(np.uint8)

    return [
        StreamTensor(name, BlockType.TQ2_0, info.shape, blocks, file.release_pages),
        StreamTensor(scale_name, BlockType.F32, (1,), scale, file.release_pages),
    ]
