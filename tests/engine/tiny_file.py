"""A GGUF file of some kilobytes that loads, chats and answers nonsense: bytes as tokens, ChatML."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pocketlm.gguf import BlockType, TensorData, write_gguf
from pocketlm.text.vocabulary import byte_alphabet

HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM, LAYERS = 64, 96, 4, 2, 16, 2
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CONTEXT = 256
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_tiny_model(
    path: Path,
    *,
    template: str | None = TEMPLATE,
    control: list[str] = CONTROL,
    top_k: int = 20,
    window: int = 0,
) -> Path:
    """Writes it and returns its path. Its own default for top_k stands in the metadata.

    window: of all layers, 0 for none.
    """
    tokens = [*byte_alphabet(), "zq", *control]
    metadata = {
        "general.architecture": "llama",
        "general.name": "tiny",
        "general.sampling.top_k": top_k,
        "llama.block_count": LAYERS,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": HIDDEN,
        "llama.feed_forward_length": FFN,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.sliding_window": window,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array([1] * 257 + [3] * 3, np.int32),
        "tokenizer.ggml.merges": ["z q"],
        "tokenizer.ggml.bos_token_id": 258,
        "tokenizer.ggml.eos_token_id": 259,
    }
    if template is not None:
        metadata["tokenizer.chat_template"] = template
    write_gguf(path, metadata, list(_tensors(len(tokens))))
    return path


def _tensors(vocab: int) -> list[TensorData]:
    shapes = {"token_embd.weight": (vocab, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for i in range(LAYERS):
        for name, shape in {
            "attn_norm.weight": (HIDDEN,),
            "attn_q.weight": (HEADS * HEAD_DIM, HIDDEN),
            "attn_k.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
            "attn_v.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
            "attn_output.weight": (HIDDEN, HEADS * HEAD_DIM),
            "ffn_norm.weight": (HIDDEN,),
            "ffn_gate.weight": (FFN, HIDDEN),
            "ffn_up.weight": (FFN, HIDDEN),
            "ffn_down.weight": (HIDDEN, FFN),
        }.items():
            shapes[f"blk.{i}.{name}"] = shape
    rng = np.random.default_rng(0)
    return [
        TensorData(name, BlockType.F32, shape, 0.3 * rng.standard_normal(shape).astype(np.float32))
        for name, shape in shapes.items()
    ]
