"""What a quantized file will be, tensor by tensor, before a weight is read.

A recipe (a file type and what the user wants otherwise) and a stream of tensors give the list of
tensors to write. The same list sizes a file that is not written: ``--dry-run`` and ``footprint``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pocketlm.convert.stream import StreamTensor, TensorStream
from pocketlm.errors import ModelFileError, RequestError
from pocketlm.gguf import BlockType, tensor_nbytes
from pocketlm.quantize.file_types import FileType
from pocketlm.quantize.mix import Shape, fitting, mixed, quantizable

FLOATS = frozenset({BlockType.F32, BlockType.F16, BlockType.BF16})


@dataclass(frozen=True)
class Recipe:
    """What to make.

    Attributes:
        file_type: the mix.
        overrides: (pattern, type): a tensor whose name a pattern is found in gets its type, the
            first match wins; a matrix that is not to be quantized has a float type.
        output_type, embedding_type: of the output matrix and of the embedding; where the embedding
            is the output matrix, either means it, and the embedding's wins.
        pure: every matrix has the file type's own block type.
        allow_requantize: whether a tensor that is quantized already may be quantized again.
    """

    file_type: FileType
    overrides: tuple[tuple[str, BlockType], ...] = ()
    output_type: BlockType | None = None
    embedding_type: BlockType | None = None
    pure: bool = False
    allow_requantize: bool = False

    def __post_init__(self) -> None:
        for pattern, _ in self.overrides:
            try:
                re.compile(pattern)
            except re.error as error:
                raise RequestError(f"'{pattern}' is no regular expression: {error}") from error


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor to write.

    Attributes:
        tensor: where it comes from.
        type: what it becomes; its own where it is copied.
        fallback: the type that was wanted, where rows are no whole number of its blocks.
    """

    tensor: StreamTensor
    type: BlockType
    fallback: BlockType | None = None

    @property
    def nbytes(self) -> int:
        return tensor_nbytes(self.type, self.tensor.shape)

    @property
    def copied(self) -> bool:
        return self.type == self.tensor.type


def plan(
    stream: TensorStream, recipe: Recipe, *, has_importance: bool = False
) -> list[PlannedTensor]:
    """The tensors of the new file in order.

    Args:
        has_importance: whether an importance matrix will guide rounding; the mixes of Q4_0 and Q5_0
            give the first layers one step more then.

    Raises:
        RequestError: a tensor is quantized already, or an override matches nothing.
    """
    model = _shape(stream)
    planned = [_planned(t, recipe, model, has_importance) for t in stream.tensors]
    _refuse_idle_overrides(stream.tensors, recipe)
    for item in planned:
        lossy = not item.copied and item.type not in FLOATS
        if lossy and item.tensor.type not in FLOATS and not recipe.allow_requantize:
            raise RequestError(
                f"tensor '{item.tensor.name}' is quantized already ({item.tensor.type.name}), and "
                "what that lost would be lost twice",
                path=stream.path,
                hint="Start from the F16, BF16 or F32 model, or quantize with --allow-requantize.",
            )
    return planned


def _shape(stream: TensorStream) -> Shape:
    def count(key: str, default: int | None = None) -> int:
        value = stream.metadata.get(f"{stream.architecture}.{key}", default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ModelFileError(
                f"'{stream.architecture}.{key}' is {value!r}, expected a count", path=stream.path
            )
        return value

    heads = count("attention.head_count")
    tied = all(tensor.name != "output.weight" for tensor in stream.tensors)
    return Shape(count("block_count"), heads // count("attention.head_count_kv", heads), tied)


def _planned(
    tensor: StreamTensor, recipe: Recipe, model: Shape, has_importance: bool
) -> PlannedTensor:
    if not quantizable(tensor.name, tensor.shape):
        return PlannedTensor(tensor, tensor.type)
    wanted = _wanted(tensor, recipe, model, has_importance)
    type = fitting(wanted, tensor.shape[-1])
    return PlannedTensor(tensor, type, wanted if type != wanted else None)


def _wanted(tensor: StreamTensor, recipe: Recipe, model: Shape, has_importance: bool) -> BlockType:
    name, kind = tensor.name, recipe.file_type
    for pattern, type in recipe.overrides:
        if re.search(pattern, name):
            return type
    is_embedding = name == "token_embd.weight"
    if recipe.embedding_type and is_embedding:
        return recipe.embedding_type
    if recipe.output_type and (name == "output.weight" or (is_embedding and model.tied)):
        return recipe.output_type
    if recipe.pure or not kind.quantized:
        return kind.type
    cols = tensor.shape[-1]
    return mixed(kind.name, kind.type, name, cols, model, has_importance=has_importance)


def _refuse_idle_overrides(tensors: Sequence[StreamTensor], recipe: Recipe) -> None:
    names = [tensor.name for tensor in tensors if quantizable(tensor.name, tensor.shape)]
    for pattern, _ in recipe.overrides:
        if not any(re.search(pattern, name) for name in names):
            raise RequestError(
                f"no weight matrix has a name that '{pattern}' is found in",
                hint="'pocketlm quantize --dry-run' lists the names.",
            )
