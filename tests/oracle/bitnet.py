"""Tiny BitNet folders in each form that checkpoints keep their weights, and what each one means.

transformers' own loader of packed checkpoints wants accelerate, so the model is put together here
from the same class that the loader would use, AutoBitLinear, and the files are written by hand.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf as gguf_py
import numpy as np
import torch
import transformers
from safetensors.torch import save_file

from pocketlm.gguf import BlockType, TensorData, write_gguf

from .tiny import VOCAB, Tiny, gguf_metadata, random_model

with warnings.catch_warnings():  # of torch.jit, which this import passes by
    warnings.simplefilter("ignore", DeprecationWarning)
    from transformers.integrations.bitnet import AutoBitLinear, pack_weights

Array = np.ndarray[Any, np.dtype[Any]]

# 256 columns are one block of the packed form
CONFIG: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _is_bit_linear(name: str) -> bool:
    return name.endswith("_proj.weight")


def write_online(folder: Path, dtype: torch.dtype) -> Any:
    """Float weights that are rounded to ternary on load, in the checkpoint's dtype."""
    model = random_model(transformers.BitNetConfig(**CONFIG))
    tensors = {n: p.to(dtype) for n, p in model.state_dict().items() if n != "lm_head.weight"}
    _write(folder, tensors, linear_class="autobitlinear", quantization_mode="online")
    meant = {}
    for name, value in tensors.items():
        if _is_bit_linear(name):
            mean = value.float().abs().mean().clamp(min=1e-5)
            value = ((value.float() / mean).round().clamp(-1, 1) * mean).to(dtype)
        meant[name] = value
    return _with_bit_linears(model, meant, dict.fromkeys(meant, 1.0))


def write_packed(folder: Path, *, inverse: bool) -> Any:
    """Codes in quarters and a bfloat16 scale, which multiplies or (``inverse``) divides."""
    model = random_model(transformers.BitNetConfig(**CONFIG))
    stored, meant, scales = {}, {}, {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        stored[name] = meant[name] = value.to(torch.bfloat16)
        if _is_bit_linear(name):
            mean = value.abs().mean()
            codes = (value / mean).round().clamp(-1, 1)
            scale = (1 / mean if inverse else mean).to(torch.bfloat16)
            meant[name], scales[name] = codes, float(1 / scale.float() if inverse else scale)
            stored[name] = pack_weights(codes.clone())
            stored[f"{name}_scale"] = scale[None]
    linear_class = "bitlinear" if inverse else "autobitlinear"
    _write(folder, stored, linear_class=linear_class, quantization_mode="offline")
    return _with_bit_linears(model, meant, scales)


def write_scaled_gguf(path: Path) -> Any:
    """Microsoft's architecture: codes in TQ2_0 blocks of scale 1, the scale a tensor of its own."""

    def tensors(name: str, codes: Array, scale: np.float32) -> list[TensorData]:
        data = gguf_py.quants.quantize(codes, gguf_py.GGMLQuantizationType.TQ2_0)
        own_scale = name.replace(".weight", ".scale")
        return [
            TensorData(own_scale, BlockType.F32, (1,), np.array([scale])),
            TensorData(name, BlockType.TQ2_0, codes.shape, data),
        ]

    return _write_gguf(path, tensors)


def write_ternary_gguf(path: Path, type: BlockType, *, half: bool) -> Any:
    """Every BitLinear in ``type`` with its scale inside, rounded to float16 if ``half``."""

    def tensors(name: str, codes: Array, scale: np.float32) -> list[TensorData]:
        values = codes * scale
        if type == BlockType.F32:
            data: Array = values
        elif type == BlockType.I2_S:
            data = _i2_s(codes, scale)
        else:
            kind = gguf_py.GGMLQuantizationType(int(type))
            data = gguf_py.quants.quantize(values, kind)
        return [TensorData(name, type, codes.shape, data)]

    return _write_gguf(path, tensors, half=half)


def _i2_s(codes: Array, scale: np.float32) -> Array:
    """bitnet.cpp's form, written out weight by weight."""
    flat, out = codes.reshape(-1), bytearray(codes.size // 4)
    for i, code in enumerate(flat.astype(int).tolist()):
        block, j = divmod(i, 128)
        out[32 * block + j % 32] |= (code + 1) << (6 - 2 * (j // 32))
    return np.frombuffer(bytes(out) + scale.tobytes() + bytes(28), dtype=np.uint8)


def _write_gguf(
    path: Path,
    tensors: Callable[[str, Array, np.float32], list[TensorData]],
    *,
    half: bool = False,
) -> Any:
    model = random_model(transformers.BitNetConfig(**CONFIG))
    meant, scales, written = {}, {}, []
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        own = _gguf_name(name)
        meant[name] = value
        if _is_bit_linear(name):
            mean = np.float32(value.abs().mean())
            scale = np.float32(np.float16(mean)) if half else mean
            meant[name] = (value / float(scale)).round().clamp(-1, 1)
            scales[name] = float(scale)
            written += tensors(own, meant[name].numpy(), scale)
        else:
            written.append(TensorData(own, BlockType.F32, tuple(value.shape), value.numpy()))
    tiny = Tiny(model.config, "bitnet-b1.58", {"rope.freq_base": 500_000.0})
    write_gguf(path, gguf_metadata(tiny), written)
    return _with_bit_linears(model, meant, scales)


def _gguf_name(name: str) -> str:
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.weight", name)
    if layer is None:
        return {"model.embed_tokens.weight": "token_embd.weight"}.get(name, "output_norm.weight")
    return f"blk.{layer[1]}.{_GGUF_LAYER[layer[2]]}.weight"


_GGUF_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.attn_sub_norm": "attn_sub_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.ffn_sub_norm": "ffn_sub_norm",
    "mlp.down_proj": "ffn_down",
}


def _write(folder: Path, tensors: dict[str, torch.Tensor], **how: str) -> None:
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "model.safetensors")
    config = {"architectures": ["BitNetForCausalLM"], "hidden_act": "relu2", **CONFIG}
    config["quantization_config"] = {"quant_method": "bitnet", **how}
    (folder / "config.json").write_text(json.dumps(config))


def _with_bit_linears(
    model: Any, weights: dict[str, torch.Tensor], scales: dict[str, float]
) -> Any:
    """The model with these weights, its linear layers replaced by offline AutoBitLinears."""
    with torch.no_grad():
        for name, value in weights.items():
            model.get_parameter(name).copy_(value.float())
    for name, scale in scales.items():
        if not _is_bit_linear(name):
            continue
        stem = name.removesuffix(".weight")
        linear = model.get_submodule(stem)
        quantized = AutoBitLinear(linear.in_features, linear.out_features, bias=False)
        quantized.weight = linear.weight
        quantized.weight_scale = torch.tensor([scale])
        model.set_submodule(stem, quantized)
    return model
