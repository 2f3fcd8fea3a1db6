"""A GGUF file as a Hugging Face folder that transformers loads: the way back from GGUF.

The file is opened as the engine opens it, so what is written is what the engine computes with,
under Hugging Face's names and in its values: Gemma's norms less one, BitNet's ternary matrices
packed four rows a byte. Quantized weights are decoded. The folder appears when it is complete.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketlm.convert.floats import recoded
from pocketlm.convert.hf_config import hf_config
from pocketlm.convert.hf_tokenizer import token_ids, tokenizer_files
from pocketlm.convert.packed import PackedMatrix, is_bit_linear, pack
from pocketlm.convert.safetensors_files import SHARD_BYTES, SafeTensor, write_safetensors
from pocketlm.convert.space import require_space
from pocketlm.errors import CapacityError, RequestError
from pocketlm.files import DISK_FULL, atomic_file, sync_folder
from pocketlm.gguf import BlockType
from pocketlm.models import open_model
from pocketlm.models.families import FAMILIES
from pocketlm.models.family import GLOBAL_NAMES
from pocketlm.models.sources import Bytes
from pocketlm.models.spec import ModelSpec
from pocketlm.progress import Progress, ProgressCallback, silent
from pocketlm.text.gguf_tokenizer import tokenizer_parts

_DTYPES = {
    BlockType.F32: ("F32", "float32"),
    BlockType.F16: ("F16", "float16"),
    BlockType.BF16: ("BF16", "bfloat16"),
}
_CARD_KEYS = {
    "general.license": "license",
    "general.license.name": "license_name",
    "general.license.link": "license_link",
    "general.languages": "language",
    "general.tags": "tags",
}


@dataclass(frozen=True)
class WrittenFolder:
    """What was written: the folder, the model's GGUF architecture, the weights' type, tensors and
    bytes of weights."""

    path: Path
    architecture: str
    type: BlockType
    tensors: int
    nbytes: int


def write_folder(
    source: Path,
    out: Path,
    *,
    type: BlockType | None = None,
    progress: ProgressCallback = silent,
    shard_bytes: int = SHARD_BYTES,
) -> WrittenFolder:
    """Write ``out``, which must not be there yet.

    Args:
        source: a GGUF file, or the first of a split set.
        out: the folder.
        type: F32, F16 or BF16; None is that of most weights, F16 where they are quantized.
        progress: in bytes of weights.
        shard_bytes: at most so many in one file.

    Raises:
        RequestError: the source is a folder, or ``out`` is there already.
        UnsupportedError: a model that transformers has no class for.
        ModelFileError: the file is broken, or a weight is no finite number.
        CapacityError: the disk is full.
    """
    if source.is_dir():
        raise RequestError("the model is a Hugging Face folder already", path=source)
    if out.exists():
        raise RequestError("there is something at this path already", path=out)
    with closing(open_model(source)) as spec:
        chosen = _most(spec) if type is None else type
        assert chosen in _DTYPES
        tensors = _tensors(spec, chosen)
        total = sum(tensor.nbytes for tensor in tensors)
        require_space(out.absolute().parent, total)
        temporary = out.parent / f".{out.name}.part-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        with _folder_errors(out):
            temporary.mkdir()
        try:
            _write_small_files(spec, temporary, chosen)
            watched = _reported(tensors, total, spec.name, progress)
            write_safetensors(temporary, watched, limit=shard_bytes)
            with _folder_errors(out):
                temporary.rename(out)
                sync_folder(out.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return WrittenFolder(out, spec.architecture, chosen, len(tensors), total)


@contextmanager
def _folder_errors(path: Path) -> Iterator[None]:
    """Turns the system's refusals into errors that name the folder."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise CapacityError("the disk is full", path=path, hint="Free some space.") from error
        raise RequestError(f"cannot write the folder: {error.strerror}", path=path) from error


def _most(spec: ModelSpec) -> BlockType:
    """The type of most weights that are not packed; F16 where that is no float type."""
    counts: Counter[BlockType] = Counter()
    for name, shape in spec.program.shapes().items():
        if len(shape) > 1 and not (spec.config.family == "bitnet" and is_bit_linear(name)):
            counts[spec.source.type(name)] += math.prod(shape)
    most = counts.most_common(1)[0][0]
    return most if most in _DTYPES else BlockType.F16


def _write_small_files(spec: ModelSpec, folder: Path, type: BlockType) -> None:
    """Everything but the weights. What a big vocabulary takes in memory is let go before those."""
    metadata = spec.tokenizer_source
    assert isinstance(metadata, Mapping)
    parts = tokenizer_parts(metadata, spec.architecture)
    # said, since the classes' own defaults may lie outside the vocabulary
    no_ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    config = hf_config(spec.config, _DTYPES[type][1], spec.path) | no_ids | token_ids(parts)
    files = tokenizer_files(
        metadata,
        parts,
        spec.chat_templates,
        spec.generation,
        spec.config.context,
        spec.architecture,
    )
    files["config.json"] = json.dumps(config, indent=2).encode()
    if card := _card(metadata):
        files["README.md"] = card.encode()
    for name, data in files.items():
        with atomic_file(folder / name) as write:
            write(data)


def _reported(
    tensors: list[SafeTensor], total: int, name: str, progress: ProgressCallback
) -> list[SafeTensor]:
    """The same tensors, reporting the bytes as they pass."""
    done = 0

    def watched(tensor: SafeTensor) -> SafeTensor:
        def chunks() -> Iterator[Bytes]:
            nonlocal done
            for chunk in tensor.chunks():
                yield chunk
                done += chunk.nbytes
                progress(Progress(f"convert {name}", done, total))

        return SafeTensor(tensor.name, tensor.dtype, tensor.shape, chunks)

    return [watched(tensor) for tensor in tensors]


def _tensors(spec: ModelSpec, type: BlockType) -> list[SafeTensor]:
    family = next(f for f in FAMILIES if f.name == spec.config.family)
    globals_ = {ours: hf for hf, ours in GLOBAL_NAMES.items()}
    tensors: list[SafeTensor] = []
    for name, shape in spec.program.shapes().items():
        if name == "output.weight":
            hf_name = "lm_head.weight"
        elif name in globals_:
            hf_name = f"model.{globals_[name]}"
        else:
            _, layer, rest = name.split(".", 2)
            hf_name = f"model.layers.{layer}.{family.layer_names[rest]}"
        if len(shape) == 1:
            tensors.append(_vector(spec, name, hf_name, shape, type))
        elif spec.config.family == "bitnet" and is_bit_linear(name):
            tensors += _packed(spec, name, hf_name, shape)
        else:
            tensors.append(_matrix(spec, name, hf_name, shape, type))
    return tensors


def _vector(
    spec: ModelSpec, name: str, hf_name: str, shape: tuple[int, ...], type: BlockType
) -> SafeTensor:
    less = np.float32(1 if spec.config.family == "gemma3" and name.endswith("_norm.weight") else 0)

    def chunks() -> Iterator[Bytes]:
        values = (spec.source.vector(name) - less).astype("<f4").view(np.uint8)
        return recoded(values, BlockType.F32, shape, type, name=name, path=spec.path)

    return SafeTensor(hf_name, _DTYPES[type][0], shape, chunks)


def _matrix(
    spec: ModelSpec, name: str, hf_name: str, shape: tuple[int, ...], type: BlockType
) -> SafeTensor:
    def chunks() -> Iterator[Bytes]:
        matrix = spec.source.matrix(name)
        yield from recoded(
            matrix.data,
            matrix.type,
            (matrix.rows, matrix.cols),
            type,
            name=name,
            path=spec.path,
            rows=matrix.row_map,
        )
        spec.source.release_pages()

    return SafeTensor(hf_name, _DTYPES[type][0], shape, chunks)


def _packed(spec: ModelSpec, name: str, hf_name: str, shape: tuple[int, ...]) -> list[SafeTensor]:
    def packed() -> PackedMatrix:
        matrix = pack(spec.source.matrix(name), name, spec.path)
        spec.source.release_pages()
        return matrix

    def codes() -> Iterator[Bytes]:
        yield packed().codes

    def scale() -> Iterator[Bytes]:
        yield np.array([packed().scale], dtype="<f4").view(np.uint8)

    rows, cols = shape
    return [
        SafeTensor(hf_name, "U8", (rows // 4, cols), codes),
        SafeTensor(f"{hf_name}_scale", "F32", (1,), scale),
    ]


def _card(metadata: Mapping[str, object]) -> str:
    """The head of a README.md with what the file says of licence, languages and tags."""
    lines = []
    for key, ours in _CARD_KEYS.items():
        value = metadata.get(key)
        if isinstance(value, str):
            lines.append(f"{ours}: {json.dumps(value, ensure_ascii=False)}")
        elif isinstance(value, list):
            lines += [f"{ours}:", *(f"- {json.dumps(v, ensure_ascii=False)}" for v in value)]
    name = metadata.get("general.name")
    title = f"\n# {name}\n" if isinstance(name, str) else ""
    return "\n".join(["---", *lines, "---", title]) if lines else ""
