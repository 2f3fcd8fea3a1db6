"""A model that is not here, from the facts of its architecture: shapes and no data.

A catalog knows a model's ``Shape``. It is turned into the metadata that a GGUF file of the model
begins with, and that is read by the code that reads files. So what is said beforehand of the
model's size, memory and speed comes from the program that would run, and cannot drift from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from pocketlm.catalog import RopeFacts, Shape
from pocketlm.errors import ModelFileError, UnsupportedError
from pocketlm.gguf import BlockType
from pocketlm.models.families import FAMILIES
from pocketlm.models.family import Family
from pocketlm.models.fields import Fields
from pocketlm.models.sources import Floats, Matrix, missing
from pocketlm.models.spec import ModelSpec, count_parameters

_NORM_EPS = 1e-6  # sizes nothing, but every file has one
_SENTENCE_PIECE = ("gemma3",)  # tokenizers with scores instead of merges
_SENTENCE_PIECE_VOCABULARY = 33_000  # Llama 2's and Mistral's have 32,000 and a few


class ShapeSource:
    """The tensors of a model without their values.

    Args:
        path: what the model is called in errors.
        shapes, types: of each tensor, by canonical name.
    """

    def __init__(
        self, path: Path, shapes: Mapping[str, tuple[int, ...]], types: Mapping[str, BlockType]
    ) -> None:
        self._path = path
        self._shapes = shapes
        self._types = types

    @property
    def path(self) -> Path:
        return self._path

    def names(self) -> Iterable[str]:
        return self._shapes.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self._shapes:
            raise missing(name, self._path)
        return self._shapes[name]

    def type(self, name: str) -> BlockType:
        return self._types[name]

    def matrix(self, name: str) -> Matrix:
        raise self._absent(name)

    def vector(self, name: str) -> Floats:
        """Rope factors, which the configuration holds, as if nothing were scaled."""
        if name.startswith("rope_"):
            return np.ones(self._shapes[name], np.float32)
        raise self._absent(name)

    def release_pages(self) -> None:
        """There are none."""

    def close(self) -> None:
        """There is no file."""

    def _absent(self, name: str) -> ModelFileError:
        return ModelFileError(
            f"tensor '{name}' has no values: the model is known, but it is not here",
            path=self._path,
        )


def shape_spec(shape: Shape, name: str, type: BlockType = BlockType.BF16) -> ModelSpec:
    """The spec of a model that is not here; its weights have shapes and no values.

    Args:
        shape: its architecture.
        name: what it is called.
        type: of its matrices.

    The sizes of its tokenizer are estimated: a token for each row of the embedding, and as many
    merges where its kind of tokenizer has them. Raises UnsupportedError for a family that PocketLM
    does not run, ModelFileError for facts that contradict each other.
    """
    path = Path(name)
    family, architecture = _family(shape, path)
    shapes = _known_shapes(shape)
    source = ShapeSource(path, shapes, {})
    metadata = _metadata(shape, architecture, name)
    config = family.config_from_gguf(Fields(metadata, path, prefix=f"{architecture}."), source)
    program = family.program(config)
    shapes |= program.shapes()
    types = {one: type if len(shapes[one]) > 1 else BlockType.F32 for one in shapes}
    return ModelSpec(
        path=path,
        name=name,
        architecture=architecture,
        config=config,
        program=program,
        source=ShapeSource(path, shapes, types),
        tokenizer_source=metadata,
        chat_templates={},
        generation={},
        parameters=count_parameters(program),
    )


def _family(shape: Shape, path: Path) -> tuple[Family, str]:
    """The family, and what GGUF calls its architecture; Mistral's files are Llama's."""
    wanted = "llama" if shape.family == "mistral" else shape.family
    for family in FAMILIES:
        if family.name == wanted:
            ternary = family.name == "bitnet" and shape.activation == "relu2"
            return family, "bitnet-b1.58" if ternary else family.gguf[0]
    raise UnsupportedError(
        f"the family '{shape.family}' is not one that PocketLM runs",
        path=path,
        hint=f"It runs {', '.join(sorted(family.name for family in FAMILIES))}.",
    )


def _known_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """The tensors that a configuration is read from."""
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (shape.vocab, shape.hidden)}
    if not shape.tied:
        shapes["output.weight"] = (shape.vocab, shape.hidden)
    rope = _rope(shape)
    pairs = (rope.rotary_dim or shape.head_dim) // 2
    if rope.scaling == "llama3":
        shapes["rope_freqs.weight"] = (pairs,)
    if rope.scaling == "longrope":
        shapes["rope_factors_long.weight"] = shapes["rope_factors_short.weight"] = (pairs,)
    return shapes


def _metadata(shape: Shape, architecture: str, name: str) -> dict[str, object]:
    """What a GGUF file would say of it; ranges stand for the texts of a tokenizer."""
    rope = _rope(shape)
    keys: dict[str, object] = {
        "block_count": shape.layers,
        "context_length": shape.context,
        "embedding_length": shape.hidden,
        "feed_forward_length": shape.ffn,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.layer_norm_rms_epsilon": _NORM_EPS,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "attention.sliding_window": shape.window,
        "attention.sliding_window_pattern": shape.full_every,
        "rope.dimension_count": rope.rotary_dim or shape.head_dim,
        "rope.freq_base": rope.theta,
        "rope.freq_base_swa": rope.local_theta,
        "vocab_size": shape.vocab,
    }
    if rope.scaling in ("linear", "yarn", "longrope"):
        keys |= {
            "rope.scaling.type": rope.scaling,
            "rope.scaling.factor": rope.factor,
            "rope.scaling.original_context_length": rope.original_context,
        }
    said = {f"{architecture}.{key}": value for key, value in keys.items() if value is not None}
    return {
        "general.architecture": architecture,
        "general.name": name,
        **said,
        **counted_tokenizer(shape.family, shape.vocab),
    }


def counted_tokenizer(family: str, vocab: int) -> dict[str, range]:
    """A tokenizer of as many tokens as the embedding has rows: ranges stand for its texts.

    Of merges there are as many, where a tokenizer of that family and size has them.
    """
    scored = family in _SENTENCE_PIECE or vocab < _SENTENCE_PIECE_VOCABULARY
    merges = 0 if scored else vocab
    return {"tokenizer.ggml.tokens": range(vocab), "tokenizer.ggml.merges": range(merges)}


def _rope(shape: Shape) -> RopeFacts:
    """What is known of it; bases change no size."""
    return shape.rope or RopeFacts(theta=10_000.0)
