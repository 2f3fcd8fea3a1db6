"""What a model is, read from its own files: family, parameters, quantization.

Parameters are counted from the tensors, never taken from a name or a header field. Not counted:
tables derived from the configuration (rope factors), scales that belong to packed weights, and a
tied head that a folder stores a second time. Packed weights count as what they unpack to.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pocketlm.errors import ModelFileError
from pocketlm.size_classes import size_class
from pocketlm.store.manifest import Facts

if TYPE_CHECKING:
    from pocketlm.gguf import TensorInfo
    from pocketlm.gguf.reader import Part

_NOT_PARAMETERS = ("rope_freqs", "rope_factors_long", "rope_factors_short")
_MAX_HEADER = 100 << 20
_MAX_JSON = 16 << 20


def gguf_facts(paths: Sequence[Path]) -> Facts:
    """Facts of a GGUF model, of one file or of the shards of one.

    Raises ModelFileError where a file breaks the format.
    """
    from pocketlm.gguf.reader import map_file, parse_part

    # File by file: in the store a shard may lie under a name that does not tell of the others.
    return parsed_gguf_facts((parse_part(map_file(path), path) for path in paths), paths[0])


def parsed_gguf_facts(files: Iterable[Part], path: Path) -> Facts:
    """The same of files that are parsed; ``path`` is for errors."""
    from pocketlm.gguf.file_types import FILE_TYPE_IDS, FILE_TYPE_KEY

    labels = {id: name for name, id in FILE_TYPE_IDS.items()}
    parameters, types = 0, Counter[str]()
    family = licence = None
    label: str | None = None
    context: int | None = None
    for file in files:
        if family is None:
            family = _text(file.metadata, "general.architecture")
            licence = _text(file.metadata, "general.license")
            context = _positive(file.metadata.get(f"{family}.context_length"))
            file_type = file.metadata.get(FILE_TYPE_KEY)
            label = labels.get(file_type) if isinstance(file_type, int) else None
        for tensor in file.tensors.values():
            types[tensor.type.name] += math.prod(tensor.shape)
        parameters += gguf_parameters(file.tensors)
    if family is None:
        raise ModelFileError("'general.architecture' is missing or not a string", path=path)
    most = types.most_common(1)[0][0] if types else "none"
    return Facts(
        format="gguf",
        family=family,
        parameters=parameters,
        size_class=size_class(parameters),
        quantization=label or most,
        context=context,
        licence=licence,
    )


def gguf_parameters(tensors: Mapping[str, TensorInfo]) -> int:
    """Parameters in the tensors of one GGUF file."""
    return sum(
        math.prod(tensor.shape)
        for name, tensor in tensors.items()
        if not name.startswith(_NOT_PARAMETERS) and not name.endswith(".scale")
    )


def folder_facts(config_path: Path, weights: Sequence[Path]) -> Facts:
    """Facts of a Hugging Face folder: its config.json and its safetensors files."""
    tensors: dict[str, tuple[str, int]] = {}
    config = read_json(config_path)
    for path in weights:
        tensors |= _safetensors_header(path)
    return parsed_folder_facts(config, tensors, config_path)


def parsed_folder_facts(
    config: Mapping[str, object], tensors: Mapping[str, tuple[str, int]], config_path: Path
) -> Facts:
    """The same of files that are parsed.

    Args:
        config: of config.json, whose path is for errors.
        tensors: as ``safetensors_tensors`` gives them, of all files.
    """
    family = config.get("model_type")
    if not isinstance(family, str):
        raise ModelFileError("'model_type' is missing or not a string", path=config_path)
    parameters, types = safetensors_parameters(config, tensors)
    label = _quantization(config) or (types.most_common(1)[0][0] if types else "none")
    return Facts(
        format="safetensors",
        family=family,
        parameters=parameters,
        size_class=size_class(parameters),
        quantization=label,
        context=_context(config),
    )


def safetensors_parameters(
    config: Mapping[str, object], tensors: Mapping[str, tuple[str, int]]
) -> tuple[int, Counter[str]]:
    """Parameters of a model of that configuration, and elements by dtype of what counts.

    tensors: dtype and elements by name, of all files, as ``safetensors_tensors`` gives them.
    """
    family = config.get("model_type")
    tied = _is_tied(config, family if isinstance(family, str) else "")
    tied = tied and any("embed_tokens.weight" in name for name in tensors)
    packing = _packing(config)
    parameters, types = 0, Counter[str]()
    for name, (dtype, count) in tensors.items():
        if tied and name == "lm_head.weight":
            continue
        types[dtype] += count
        if not (packing and name.endswith(("_scale", "_scale_inv", ".scales", ".biases"))):
            packed = packing is not None and dtype in ("U8", "U32")
            parameters += int(count * packing) if packed and packing else count
    return parameters, types


def read_json(path: Path) -> dict[str, object]:
    """A JSON object from a file of a model. Raises ModelFileError for anything else."""
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ModelFileError("too large to be a configuration", path=path)
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"not JSON: {error}", path=path) from error
    if not isinstance(value, dict):
        raise ModelFileError("expected a JSON object", path=path)
    return value


def _safetensors_header(path: Path) -> dict[str, tuple[str, int]]:
    """``name: (dtype, elements)``; 8 bytes of header length, then JSON (safetensors README)."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(size - 8, _MAX_HEADER):
            raise ModelFileError(
                f"the header claims {length:,} bytes but the file has {size:,}", path=path
            )
        return safetensors_tensors(stream.read(length), path)


def safetensors_tensors(text: bytes, path: Path) -> dict[str, tuple[str, int]]:
    """The same from the header's JSON; ``path`` is for errors. Raises ModelFileError."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"the header is not JSON: {error}", path=path) from error
    if not isinstance(header, dict):
        raise ModelFileError("the header is not a JSON object", path=path)
    header.pop("__metadata__", None)
    return {name: _tensor(path, name, facts) for name, facts in header.items()}


def _tensor(path: Path, name: str, facts: object) -> tuple[str, int]:
    dtype, shape = (facts.get("dtype"), facts.get("shape")) if isinstance(facts, dict) else ("", 0)
    if (
        not isinstance(dtype, str)
        or not isinstance(shape, list)
        or len(shape) > 8
        or not all(isinstance(n, int) and 0 <= n < 1 << 48 for n in shape)
    ):
        raise ModelFileError(f"tensor '{name}' has no valid dtype and shape", path=path)
    return dtype, math.prod(shape)


def _is_tied(config: Mapping[str, object], family: str) -> bool:
    inner = config.get("text_config")
    for section in (config, inner if isinstance(inner, dict) else {}):
        tied = section.get("tie_word_embeddings")
        if isinstance(tied, bool):
            return tied
    return family.startswith("gemma")  # whose configurations leave the default, true, unsaid


def _context(config: Mapping[str, object]) -> int | None:
    """Multimodal configurations keep the text model's own in ``text_config``."""
    inner = config.get("text_config")
    for section in (config, inner if isinstance(inner, dict) else {}):
        if found := _positive(section.get("max_position_embeddings")):
            return found
    return None


def _packing(config: Mapping[str, object]) -> float | None:
    """Weights in one stored element of a packed tensor: BitNet packs 4 in a byte, MLX 32 bits."""
    quantization = config.get("quantization_config") or config.get("quantization")
    if not isinstance(quantization, dict):
        return None
    if quantization.get("quant_method") == "bitnet":
        return 4.0
    bits = quantization.get("bits")
    if isinstance(bits, int) and 1 <= bits <= 32 and "group_size" in quantization:
        return 32 / bits
    return 1.0


def _quantization(config: Mapping[str, object]) -> str | None:
    quantization = config.get("quantization_config") or config.get("quantization")
    if not isinstance(quantization, dict):
        return None
    method, bits = quantization.get("quant_method"), quantization.get("bits")
    name = method if isinstance(method, str) else "mlx" if bits else None
    return f"{name}-{bits}bit" if name and isinstance(bits, int) else name


def _text(metadata: Mapping[str, object], key: str) -> str | None:
    value = metadata.get(key)
    return value if isinstance(value, str) and value else None


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
