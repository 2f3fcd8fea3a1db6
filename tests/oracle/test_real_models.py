"""The real model files against transformers in float32 on their dequantized weights.

A short run that tells a broken engine from a sound one; ``benchmarks/`` measures the quality over
thousands of tokens and beside llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from pocketlm.models import ModelSpec, open_model
from pocketlm.models.families import FAMILIES
from pocketlm.models.sources import Matrix

from .native import NativeSequence

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.real,
    pytest.mark.usefixtures("quiet_torch"),
    pytest.mark.timeout(300),
]

PROMPT = (
    "The river had risen in the night, and by the time the sun came over the hills the lower road "
    "was under water. Nobody in the village was surprised. Every few years, when the snow melted "
    "too quickly, the same thing happened, and every few years somebody proposed to build a wall, "
    "and then the summer came and the wall was forgotten. "
)

Array = np.ndarray[Any, np.dtype[Any]]


def transformers_model(spec: ModelSpec) -> Any:
    """The same model in transformers: configuration by hand, weights decoded from the file."""
    from pocketlm.gguf import dequantize

    c = spec.config
    shape = {
        "vocab_size": c.vocab,
        "hidden_size": c.hidden,
        "intermediate_size": c.ffn,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "max_position_embeddings": c.context,
        "rms_norm_eps": c.norm_eps,
        "tie_word_embeddings": True,
        "pad_token_id": None,
    }
    if c.family == "gemma3":
        config: Any = transformers.Gemma3TextConfig(sliding_window=512, **shape)
    else:
        rope = {"rope_type": "default", "rope_theta": c.rope.theta}
        config = transformers.LlamaConfig(rope_parameters=rope, **shape)

    def decoded(matrix: Matrix) -> Array:
        values = dequantize(matrix.type, matrix.data, (matrix.rows, matrix.cols))
        return values if matrix.row_map is None else values[matrix.row_map]

    (family,) = (f for f in FAMILIES if f.name == c.family)
    state = {}
    for name, dims in spec.program.shapes().items():
        values = decoded(spec.source.matrix(name)) if len(dims) == 2 else spec.source.vector(name)
        if c.family == "gemma3" and len(dims) == 1:
            values = values - np.float32(1)
        own = {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight"}
        if name not in own:
            _, layer, rest = name.split(".", 2)
            own[name] = f"layers.{layer}.{family.layer_names[rest]}"
        state[f"model.{own[name]}"] = torch.from_numpy(np.ascontiguousarray(values))
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert missing == ["lm_head.weight"]
    assert not unexpected
    return model.eval()


@pytest.fixture(params=["smollm2:135m", "gemma3:270m"])
def spec(request: pytest.FixtureRequest, real_model: Callable[[str], Path]) -> Iterator[ModelSpec]:
    opened = open_model(real_model(request.param))
    yield opened
    opened.close()


def test_logits_and_greedy_choices(spec: ModelSpec) -> None:
    """Mean KL divergence and top-1 agreement over a paragraph and its greedy continuation."""
    from pocketlm.text import Tokenizer

    metadata: Any = spec.tokenizer_source
    tokenizer = Tokenizer.from_gguf(metadata, metadata["general.architecture"])
    tokens = np.array(tokenizer.encode(PROMPT, add_special=True), dtype=np.int32)
    sequence = NativeSequence(spec, kv="f16", threads=2)
    logits = [sequence.feed(tokens)]
    for _ in range(64):
        tokens = np.append(tokens, np.int32(logits[-1][-1].argmax()))
        logits.append(sequence.feed(tokens[-1:]))
    found = np.concatenate(logits)
    with torch.no_grad():
        ids = torch.from_numpy(tokens.astype(np.int64))[None]
        expected = transformers_model(spec)(input_ids=ids).logits[0].numpy()
    kl, agreement = compare(found, expected)
    assert kl <= 0.02
    assert agreement >= 0.9


def compare(found: Array, expected: Array) -> tuple[float, float]:
    """Mean KL(expected || found) in nats, and the share of positions with one top token."""
    p, q = (
        x - np.logaddexp.reduce(x.astype(np.float64), -1, keepdims=True) for x in (expected, found)
    )
    kl = float((np.exp(p) * (p - q)).sum(-1).mean())
    return kl, float((found.argmax(-1) == expected.argmax(-1)).mean())
