"""The model families, one small module each; a new one is added to this list."""

from __future__ import annotations

from pocketlm.models.families import bitnet, gemma3, llama, mistral, phi3, qwen2, qwen3
from pocketlm.models.family import Family

FAMILIES: tuple[Family, ...] = (
    llama.FAMILY,
    mistral.FAMILY,
    qwen2.FAMILY,
    qwen3.FAMILY,
    gemma3.FAMILY,
    phi3.FAMILY,
    bitnet.FAMILY,
)
