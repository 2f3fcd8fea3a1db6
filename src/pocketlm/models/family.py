"""What a model family is to the loader: names, two ways to read a configuration, one program."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from pocketlm.models.config import ModelConfig
from pocketlm.models.fields import Fields
from pocketlm.models.program import Program
from pocketlm.models.sources import TensorSource

ReadConfig = Callable[[Fields, TensorSource], ModelConfig]
Adapt = Callable[[TensorSource, Fields, ModelConfig], TensorSource]


def as_it_is(source: TensorSource, fields: Fields, config: ModelConfig) -> TensorSource:
    """The adaptation of a family whose files hold the values that the engine computes with."""
    return source


@dataclass(frozen=True)
class Family:
    """One model family.

    Attributes:
        name: as ModelConfig.family says it.
        gguf: values of ``general.architecture``.
        hf: classes in config.json's ``architectures``.
        layer_names: a layer's weights, GGUF's name to Hugging Face's (both without the layer's own
            prefix).
        config_from_gguf, config_from_hf: read the configuration from the file's keys.
        program: emits the forward pass.
        hf_defaults: what config.json leaves out when it equals the class's default.
        adapt_gguf, adapt_hf: wrap a source whose values are not the engine's.
    """

    name: str
    gguf: tuple[str, ...]
    hf: tuple[str, ...]
    layer_names: Mapping[str, str]
    config_from_gguf: ReadConfig
    config_from_hf: ReadConfig
    program: Callable[[ModelConfig], Program]
    hf_defaults: Mapping[str, object] = field(default_factory=dict)
    adapt_gguf: Adapt = as_it_is
    adapt_hf: Adapt = as_it_is


# Weights that every decoder of Hugging Face calls the same.
GLOBAL_NAMES = {
    "embed_tokens.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
ATTENTION_NAMES = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
}
FFN_NAMES = {
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
HEAD_NORM_NAMES = {
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
}

# `model.` alone, or the text model inside a multimodal one, as old and new checkpoints nest it.
_PREFIX = re.compile(r"(?:(?:language_model\.)?model\.(?:language_model\.)?|language_model\.)?(.+)")
_LAYER = re.compile(r"layers\.(\d{1,6})\.(.+)")
# Parts of a multimodal model beside the text model, and buffers that old checkpoints stored.
_NOT_TEXT = re.compile(
    r"(?:model\.)?(?:vision_tower|multi_modal_projector|vision_model)\.|.*\.rotary_emb\.inv_freq$"
)


def canonical_names(own_names: Iterable[str], layer_names: Mapping[str, str]) -> dict[str, str]:
    """Hugging Face name → canonical name, for the tensors that have one."""
    by_hf_name = {hf: gguf for gguf, hf in layer_names.items()}
    names = {}
    for own in own_names:
        match = _PREFIX.fullmatch(own)
        rest = match[1] if match else own
        layer = _LAYER.fullmatch(rest)
        if layer and layer[2] in by_hf_name:
            names[own] = f"blk.{int(layer[1])}.{by_hf_name[layer[2]]}"
        elif rest in GLOBAL_NAMES:
            names[own] = GLOBAL_NAMES[rest]
    return names


def is_text(own_name: str) -> bool:
    """Whether a tensor of a folder belongs to the text model."""
    return _NOT_TEXT.match(own_name) is None
