"""Parameters as Ollama names them: their types, and what they are called here.

They stand in Modelfiles, in the records of models and in requests of the Ollama API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INTEGERS = {
    "num_ctx", "num_keep", "seed", "num_predict", "top_k", "repeat_last_n", "num_batch", "num_gpu",
    "main_gpu", "num_thread", "draft_num_predict", "mirostat",
}  # fmt: skip
NUMBERS = {
    "top_p", "min_p", "typical_p", "temperature", "repeat_penalty", "presence_penalty",
    "frequency_penalty", "tfs_z", "mirostat_tau", "mirostat_eta",
}  # fmt: skip
SWITCHES = {
    "use_mmap", "use_mlock", "numa", "low_vram", "f16_kv", "logits_all", "vocab_only",
    "embedding_only", "penalize_newline",
}  # fmt: skip

# Options by Ollama's names, and by ours (``engine.sampling``).
OPTION_NAMES = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repeat_penalty": "repetition_penalty",
    "repeat_last_n": "penalty_window",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "stop": "stop",
    "num_predict": "max_tokens",
}


def sampling_options(params: Mapping[str, Any]) -> dict[str, Any]:
    """Options under our names; those that say nothing to us are left out."""
    found = {
        ours: params[theirs]
        for theirs, ours in OPTION_NAMES.items()
        if params.get(theirs) is not None
    }
    if found.get("penalty_window") == 0:  # theirs is off; ours would be everything
        del found["penalty_window"]
        found |= {"repetition_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0}
    for name, least in (("max_tokens", 1), ("penalty_window", 0), ("seed", 0)):
        value = found.get(name)
        if isinstance(value, int) and value < least:
            del found[name]  # no limit, everything, a new one: what ours are without it
    return found
