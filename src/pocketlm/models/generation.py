"""Sampling defaults that a model's makers ship with it, under one set of names.

GGUF files keep them as ``general.sampling.*`` keys, folders in generation_config.json. They win
over the engine's own defaults; a value out of its range is an error, since it would change every
answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pocketlm.gguf import Value
from pocketlm.gguf.metadata import Int32
from pocketlm.models.fields import Fields
from pocketlm.models.safetensors import read_json

# our name: (GGUF's, Hugging Face's, lowest, highest)
_KNOBS = {
    "temperature": ("temp", "temperature", 0.0, 100.0),
    "top_k": ("top_k", "top_k", 0.0, 1e9),
    "top_p": ("top_p", "top_p", 0.0, 1.0),
    "min_p": ("min_p", "min_p", 0.0, 1.0),
    "typical_p": ("typical_p", "typical_p", 0.0, 1.0),
    "repetition_penalty": ("penalty_repeat", "repetition_penalty", 1e-3, 100.0),
}


def gguf_generation(root: Fields) -> dict[str, float]:
    """The defaults in a GGUF file; llama.cpp's -1 for top_k (off) becomes 0."""
    found: dict[str, float] = {}
    for name, (key, _, low, high) in _KNOBS.items():
        key = f"general.sampling.{key}"
        if key in root:
            value = root.number(key, low=min(low, -1.0) if name == "top_k" else low, high=high)
            found[name] = max(value, 0.0)
    return _whole_top_k(found)


def folder_generation(folder: Path) -> dict[str, float]:
    """The defaults in a folder; ``do_sample: false`` is a temperature of 0."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return {}
    fields = Fields(read_json(path), path)
    found = {
        name: fields.number(key, low=low, high=high)
        for name, (_, key, low, high) in _KNOBS.items()
        if key in fields
    }
    if "do_sample" in fields and not fields.flag("do_sample", True):
        found["temperature"] = 0.0
    return _whole_top_k(found)


def gguf_sampling(generation: Mapping[str, float]) -> dict[str, Value]:
    """The defaults as keys of a GGUF file."""
    return {
        f"general.sampling.{key}": Int32(generation[name]) if name == "top_k" else generation[name]
        for name, (key, *_) in _KNOBS.items()
        if name in generation
    }


def folder_sampling(generation: Mapping[str, float]) -> dict[str, object]:
    """The defaults as fields of a generation_config.json; a temperature of 0 is greedy there."""
    found: dict[str, object] = {
        key: generation[name] for name, (_, key, *_) in _KNOBS.items() if name in generation
    }
    if found and found.get("temperature") == 0.0:
        return {**found, "temperature": 1.0, "do_sample": False}
    return {**found, "do_sample": True} if found else {}


def _whole_top_k(found: dict[str, float]) -> dict[str, float]:
    return {name: int(value) if name == "top_k" else value for name, value in found.items()}
