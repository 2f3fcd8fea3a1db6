"""A GGUF file of random weights in the shape of a real model, for timing and for memory.

    python benchmarks/random_model.py OUT.gguf [--shape qwen3-0.6b] [--type F16] [--seed 1]

Speed and memory depend on a model's shape and types, not on what it learned. Weights are Gaussian
and as large as trained ones, so that activations stay finite and quantizers see what they would
see; the tokenizer has as many tokens and merges as the real one. Tensors are made and written one
after the other. llama.cpp loads every shape but bitnet-2b, whose architecture is Microsoft's.
"""

from __future__ import annotations

import argparse
import itertools
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketlm.convert.stream import StreamTensor, TensorStream
from pocketlm.gguf import BlockType, Value
from pocketlm.quantize.files import encoder, write_quantized
from pocketlm.quantize.plan import plan
from pocketlm.quantize.quantization import make_recipe
from pocketlm.text.vocabulary import byte_alphabet

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_NORMAL, _CONTROL = 1, 3  # tokenizer.ggml.token_type
_SLICE = 1 << 22  # weights drawn at once


@dataclass(frozen=True)
class Shape:
    """The facts of a model that its shape follows from."""

    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    context: int
    rope_base: float
    tied: bool = True

    @property
    def bitnet(self) -> bool:
        return self.architecture.startswith("bitnet")


SHAPES = {
    "qwen3-0.6b": Shape("qwen3", 28, 1024, 16, 8, 128, 3072, 151_936, 40_960, 1e6),
    "smollm2-360m": Shape("llama", 32, 960, 15, 5, 64, 2560, 49_152, 8192, 1e5),
    "llama-1b": Shape("llama", 16, 2048, 32, 8, 64, 8192, 128_256, 131_072, 5e5),
    "bitnet-2b": Shape("bitnet-b1.58", 30, 2560, 20, 5, 128, 6912, 128_256, 4096, 5e5),
    "tiny-qwen3": Shape("qwen3", 2, 256, 4, 2, 64, 512, 1024, 512, 1e6),
    "tiny-llama": Shape("llama", 2, 256, 4, 2, 64, 512, 1024, 512, 1e5, tied=False),
    "tiny-bitnet": Shape("bitnet-b1.58", 2, 256, 4, 2, 64, 512, 1024, 512, 5e5),
}


def tensor_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """By GGUF name, in numpy's order, in the order of the file."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm": (shape.hidden,),
        "attn_q": (q, shape.hidden),
        "attn_k": (kv, shape.hidden),
        "attn_v": (kv, shape.hidden),
        "attn_output": (shape.hidden, q),
        "ffn_norm": (shape.hidden,),
        "ffn_gate": (shape.ffn, shape.hidden),
        "ffn_up": (shape.ffn, shape.hidden),
        "ffn_down": (shape.hidden, shape.ffn),
    }
    if shape.architecture == "qwen3":
        layer |= {"attn_q_norm": (shape.head_dim,), "attn_k_norm": (shape.head_dim,)}
    if shape.bitnet:
        layer |= {"attn_sub_norm": (q,), "ffn_sub_norm": (shape.ffn,)}
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (shape.vocab, shape.hidden)}
    if not shape.tied:
        shapes["output.weight"] = (shape.vocab, shape.hidden)
    shapes["output_norm.weight"] = (shape.hidden,)
    for i in range(shape.layers):
        shapes |= {f"blk.{i}.{name}.weight": size for name, size in layer.items()}
    return shapes


def tokenizer(vocab: int) -> dict[str, Value]:
    """A byte-level BPE tokenizer of ``vocab`` tokens.

    The 256 bytes, then words of two, three and more small letters in the alphabet's order, each
    merged from the word without its last letter and that letter, then the special tokens.
    """
    tokens, merges = list(byte_alphabet()), []
    wanted = vocab - len(SPECIAL)
    for word in itertools.islice(_words(), wanted - len(tokens)):
        tokens.append(word)
        merges.append(f"{word[:-1]} {word[-1]}")
    tokens += SPECIAL
    types = [_NORMAL] * wanted + [_CONTROL] * len(SPECIAL)
    end = tokens.index("<|endoftext|>")
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": end,
        "tokenizer.ggml.eos_token_id": end,
        "tokenizer.ggml.add_bos_token": False,
    }


def _words() -> Iterator[str]:
    for length in itertools.count(2):
        for letters in itertools.product(string.ascii_lowercase, repeat=length):
            yield "".join(letters)


def metadata(name: str, shape: Shape) -> dict[str, Value]:
    keys: dict[str, Value] = {
        "block_count": shape.layers,
        "context_length": shape.context,
        "embedding_length": shape.hidden,
        "feed_forward_length": shape.ffn,
        "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": shape.head_dim,
        "rope.freq_base": shape.rope_base,
        "vocab_size": shape.vocab,
    }
    return {
        "general.architecture": shape.architecture,
        "general.name": f"random weights in the shape of {name}",
        **{f"{shape.architecture}.{key}": value for key, value in keys.items()},
        **tokenizer(shape.vocab),
    }


def weights(
    name: str, shape: tuple[int, ...], seed: tuple[int, int], *, ternary: bool
) -> NDArray[np.uint8]:
    """A matrix as bytes of F16, a vector as bytes of F32.

    Matrices keep the size of what they multiply (standard deviation 1/sqrt(columns)), those that
    write into the residual stream a fifth of it; embeddings have 0.02, as before training.
    """
    rng = np.random.default_rng(seed)
    if len(shape) == 1:
        values = 1 + rng.standard_normal(shape, dtype=np.float32) / 10
        return values.view(np.uint8)
    size = 1 / np.sqrt(shape[-1])
    if name.startswith("token_embd"):
        size = 0.02
    elif name.endswith(("attn_output.weight", "ffn_down.weight")):
        size /= 5
    out = np.empty(shape, np.float16).reshape(-1)
    for begin in range(0, out.size, _SLICE):
        part = out[begin : begin + _SLICE]
        if ternary:
            part[:] = rng.integers(-1, 2, part.size, np.int8) * np.float16(size)
        else:
            part[:] = rng.standard_normal(part.size, dtype=np.float32) * np.float32(size)
    return out.view(np.uint8)


def random_stream(name: str, seed: int) -> TensorStream:
    """The model as a stream: every tensor is drawn when it is read, the same each time."""
    shape = SHAPES[name]

    def read(tensor: str, size: tuple[int, ...], index: int) -> Callable[[], NDArray[np.uint8]]:
        ternary = shape.bitnet and tensor.startswith("blk.")
        return lambda: weights(tensor, size, (seed, index), ternary=ternary)

    tensors = [
        StreamTensor(
            tensor,
            BlockType.F32 if len(size) == 1 else BlockType.F16,
            size,
            read(tensor, size, index),
            lambda: None,
        )
        for index, (tensor, size) in enumerate(tensor_shapes(shape).items())
    ]
    return TensorStream(Path(name), shape.architecture, metadata(name, shape), tensors)


def write(out: Path, name: str, type: str, *, seed: int = 1, threads: int = 2) -> None:
    """Writes the shape ``name`` as a file of the type ``type``, rounded to nearest."""
    recipe = make_recipe(type)
    stream = random_stream(name, seed)
    out.unlink(missing_ok=True)
    encode = encoder("nearest", None, threads=threads)
    write_quantized(stream, plan(stream, recipe), out, recipe=recipe, encode=encode)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="qwen3-0.6b")
    parser.add_argument("--type", default=None, help="default F16; TQ2_0 for bitnet-2b")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    default = "TQ2_0" if SHAPES[options.shape].bitnet else "F16"
    write(options.out, options.shape, options.type or default, seed=options.seed)


if __name__ == "__main__":
    main()
