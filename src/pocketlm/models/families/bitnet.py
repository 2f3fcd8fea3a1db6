"""BitNet b1.58: Llama with ternary linear layers, activations in 8 bits, and two more norms.

Every linear layer inside the blocks is a BitLinear: its input is quantized to 8 bits with one
scale a token (``quantize="row"``), its weights are ternary times one scale. Attention's output and
the gated activations are normalized before they are projected. Folders keep the weights in three
ways:

* online: floats that are rounded to ternary at load, as transformers does on every step;
* offline, ``autobitlinear`` (microsoft/bitnet-b1.58-2B-4T): packed codes times ``weight_scale``;
* offline, ``bitlinear``: packed codes divided by ``weight_scale``.

In GGUF the converters have rounded them: TQ1_0 and TQ2_0 with the scale in their blocks or in a
tensor of its own, or bitnet.cpp's I2_S, whose one scale stands after the codes. There the
architecture ``bitnet`` (llama.cpp's) means SiLU, ``bitnet-b1.58`` and ``bitnet-25`` (Microsoft's)
mean squared ReLU; no key says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from pocketlm.errors import ModelFileError, UnsupportedError
from pocketlm.gguf import BlockType, dequantize
from pocketlm.models.blocks import Decoder
from pocketlm.models.config import ModelConfig
from pocketlm.models.families import llama
from pocketlm.models.family import Family
from pocketlm.models.fields import Fields
from pocketlm.models.program import Program
from pocketlm.models.reading import gguf_config, hf_config
from pocketlm.models.safetensors import FolderSource
from pocketlm.models.sources import Adapted, Matrix, TensorSource, decode, rounded_to
from pocketlm.models.ternary import (
    fits_blocks,
    float_matrix,
    split_ternary,
    ternarize,
    ternary_matrix,
    unpack_quarters,
    with_scale,
)

# A matrix that is ternary; the group is its name without ``.weight``.
BIT_LINEAR = re.compile(r"(blk\.\d+\.(?:attn_(?:q|k|v|output)|ffn_(?:gate|up|down)))\.weight")

_TERNARY_OR_FLOAT = (
    BlockType.TQ1_0,
    BlockType.TQ2_0,
    BlockType.I2_S,
    BlockType.F32,
    BlockType.F16,
    BlockType.BF16,
)


class _BitLinears(Adapted):
    """A source whose BitLinear scales are folded into the matrices."""

    def __init__(self, inner: TensorSource) -> None:
        super().__init__(inner)
        linears = {m[1] for name in inner.names() if (m := BIT_LINEAR.fullmatch(name))}
        self._scales = {f"{linear}.scale" for linear in linears} & set(inner.names())

    def names(self) -> Iterable[str]:
        return [name for name in self.inner.names() if name not in self._scales]

    def _scale_name(self, weight: str) -> str:
        return f"{weight.removesuffix('.weight')}.scale"

    def scale(self, weight: str) -> float | None:
        """The scale beside a weight, None where there is none."""
        name = self._scale_name(weight)
        if name not in self._scales:
            return None
        values = self.inner.vector(name)
        if values.size != 1 or not 0 < values[0] < np.inf:
            raise ModelFileError(f"tensor '{name}' is not one positive scale", path=self.path)
        return float(values[0])


class GGUFBitLinears(_BitLinears):
    """A GGUF file, where a ``.scale`` tensor multiplies its matrix."""

    def type(self, name: str) -> BlockType:
        """What ``matrix`` gives, or TQ2_0 for I2_S, which takes the same memory.

        Floats beside a scale are taken for ternary, as converters write them.
        """
        type, scaled = self.inner.type(name), self._scale_name(name) in self._scales
        if not scaled and type != BlockType.I2_S:
            return type
        ternary = type in _TERNARY_OR_FLOAT and fits_blocks(self.shape(name))
        return BlockType.TQ2_0 if ternary else BlockType.F32

    def matrix(self, name: str) -> Matrix:
        matrix, scale = self.inner.matrix(name), self.scale(name)
        shape = (matrix.rows, matrix.cols)
        if scale is None and (matrix.type != BlockType.I2_S or fits_blocks(shape)):
            return matrix
        in_two_bits = matrix.type in (BlockType.TQ2_0, BlockType.I2_S) and fits_blocks(shape)
        if scale is not None and in_two_bits:
            scaled = with_scale(matrix, scale)
            if scaled is not None:
                return scaled
        weights = dequantize(matrix.type, matrix.data, shape)
        ternary = split_ternary(weights)
        factor = 1.0 if scale is None else scale
        if ternary is None:
            return float_matrix(weights * np.float32(factor))
        return ternary_matrix(ternary[0], ternary[1] * factor)


class OnlineBitLinears(_BitLinears):
    """A folder of float weights that are rounded to ternary in their own dtype."""

    def type(self, name: str) -> BlockType:
        """What ``matrix`` gives, or TQ2_0 for I2_S, which takes the same memory."""
        if not BIT_LINEAR.fullmatch(name):
            return self.inner.type(name)
        return BlockType.TQ2_0 if fits_blocks(self.shape(name)) else BlockType.F32

    def matrix(self, name: str) -> Matrix:
        matrix = self.inner.matrix(name)
        if not BIT_LINEAR.fullmatch(name):
            return matrix
        codes, scale = ternarize(decode(matrix))
        rounded = rounded_to(scale, matrix.type)
        return ternary_matrix(codes, rounded)


class PackedBitLinears(_BitLinears):
    """A folder of packed codes, four rows a byte, each matrix with its ``weight_scale``."""

    def __init__(self, inner: FolderSource, *, inverse: bool) -> None:
        super().__init__(inner)
        self._folder = inner
        self._inverse = inverse

    def _packed(self, name: str) -> bool:
        return bool(BIT_LINEAR.fullmatch(name)) and self._folder.entry(name).dtype == "U8"

    def shape(self, name: str) -> tuple[int, ...]:
        shape = self.inner.shape(name)
        return (4 * shape[0], *shape[1:]) if self._packed(name) else shape

    def type(self, name: str) -> BlockType:
        """What ``matrix`` gives, or TQ2_0 for I2_S, which takes the same memory."""
        if self._packed(name):
            return BlockType.TQ2_0 if fits_blocks(self.shape(name)) else BlockType.F32
        return self.inner.type(name)

    def matrix(self, name: str) -> Matrix:
        if not BIT_LINEAR.fullmatch(name):
            return self.inner.matrix(name)
        scale = self.scale(name)
        if scale is None:
            raise ModelFileError(f"tensor '{name}' has no weight_scale", path=self.path)
        scale = 1 / scale if self._inverse else scale
        if not self._packed(name):
            return float_matrix(decode(self.inner.matrix(name)) * np.float32(scale))
        rows, cols = self.shape(name)
        codes = unpack_quarters(self._folder.bytes(name), rows, cols)
        return ternary_matrix(codes, scale)


def config_from_gguf(keys: Fields, source: TensorSource) -> ModelConfig:
    activation = "silu" if keys.prefix == "bitnet." else "relu2"
    return replace(gguf_config("bitnet", keys, source), activation=activation, quantize="row")


def config_from_hf(fields: Fields, source: TensorSource) -> ModelConfig:
    config = hf_config("bitnet", fields, source)
    # without a quantization_config transformers runs the same model in plain floats
    return replace(config, quantize="row" if "quantization_config" in fields else "block")


def program(config: ModelConfig) -> Program:
    decoder = Decoder(config)
    decoder.embed()
    for i in range(config.layers):
        normed = decoder.norm(f"blk.{i}.attn_norm")
        attended = decoder.attention(i, normed)
        decoder.norm(f"blk.{i}.attn_sub_norm", src=attended, dst=attended)
        decoder.project_into_residual(f"blk.{i}.attn_output", attended)
        decoder.select_rows(i)
        normed = decoder.norm(f"blk.{i}.ffn_norm")
        gated = decoder.gated_ffn(i, normed)
        decoder.norm(f"blk.{i}.ffn_sub_norm", src=gated, dst=gated)
        decoder.project_into_residual(f"blk.{i}.ffn_down", gated)
    return decoder.finish()


def _adapt_gguf(source: TensorSource, keys: Fields, config: ModelConfig) -> TensorSource:
    return GGUFBitLinears(source)


def _adapt_hf(source: TensorSource, fields: Fields, config: ModelConfig) -> TensorSource:
    how = fields.section("quantization_config")
    if how is None:
        return source
    for key in ("use_rms_norm", "modules_to_not_convert"):
        if how.raw(key) not in (None, False, [], ["lm_head"]):
            raise UnsupportedError(
                f"'{how.name(key)}' is not supported for BitNet", path=fields.path
            )
    linear_class = how.text("linear_class", "bitlinear")
    mode = how.text("quantization_mode", "offline")
    if linear_class == "autobitlinear" and mode == "online":
        return OnlineBitLinears(source)
    if linear_class not in ("bitlinear", "autobitlinear") or mode != "offline":
        raise how.wrong("linear_class", "'bitlinear' or 'autobitlinear', online or offline")
    assert isinstance(source, FolderSource)
    return PackedBitLinears(source, inverse=linear_class == "bitlinear")


_LINEARS = {
    name.removesuffix(".weight"): hf.removesuffix(".weight")
    for name, hf in llama.LAYER_NAMES.items()
    if "proj" in hf
}

FAMILY = Family(
    name="bitnet",
    gguf=("bitnet", "bitnet-b1.58", "bitnet-25"),
    hf=("BitNetForCausalLM",),
    layer_names={
        **llama.LAYER_NAMES,
        **{f"{name}.scale": f"{hf}.weight_scale" for name, hf in _LINEARS.items()},
        "attn_sub_norm.weight": "self_attn.attn_sub_norm.weight",
        "ffn_sub_norm.weight": "mlp.ffn_sub_norm.weight",
    },
    config_from_gguf=config_from_gguf,
    config_from_hf=config_from_hf,
    program=program,
    hf_defaults={
        "hidden_act": "relu2",
        "max_position_embeddings": 2048,
        "num_key_value_heads": 5,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0,
        "tie_word_embeddings": False,
    },
    adapt_hf=_adapt_hf,
    adapt_gguf=_adapt_gguf,
)
