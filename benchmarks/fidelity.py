"""How much an engine's arithmetic changes a model: KL divergence of its logits against float32.

    python benchmarks/fidelity.py MODEL.gguf TEXT.txt [--tokens 4096] [--chunk 512] [--ik]

For each chunk of the text: the logits of transformers in float32 with the file's dequantized
weights, of PocketLM and of llama.cpp (and ik_llama.cpp) on the same file and tokens. Prints mean
KL(reference || engine) in nats per token with its standard error (clustered by chunk) and top-1
agreement.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from reference import Reference

import pocketlm
from pocketlm import _native
from pocketlm.backends import NativeBackend
from pocketlm.backends.ik import IkLlamaCpp
from pocketlm.backends.llama_api import LlamaApi
from pocketlm.backends.llamacpp import LlamaCpp
from pocketlm.evaluate.divergence import DivergenceMeter

Logits = NDArray[np.float32]


class Peer:
    """llama.cpp or its fork with the interface that is used of a backend."""

    def __init__(self, engine: LlamaApi) -> None:
        self._engine = engine

    def logits(self, tokens: NDArray[np.int32]) -> Logits:
        self._engine.clear()
        self._engine.decode(tokens, 0, all_logits=True)
        return np.stack([self._engine.logits(i) for i in range(len(tokens))])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--chunk", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ik", action="store_true", help="ik_llama.cpp, too")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    with pocketlm.load(str(options.model)) as model:
        ids = model.tokenizer.encode(options.text.read_text(encoding="utf-8"))
    tokens = np.array(ids[: options.tokens + 1], np.int32)  # the last is only what follows
    reference = Reference(options.model)
    size = {"context": options.chunk, "threads": options.threads}
    engines = {
        "pocketlm": NativeBackend.open(options.model, **size),
        "llama.cpp": Peer(LlamaCpp(options.model, **size)),
    }
    if options.ik:
        engines["ik_llama.cpp"] = Peer(IkLlamaCpp(options.model, **size))
    meters = {name: DivergenceMeter() for name in engines}
    for start in range(0, len(tokens) - 1, options.chunk):
        chunk = tokens[start : start + options.chunk]
        following = tokens[start + 1 : start + 1 + len(chunk)]
        wanted = reference.logits(chunk.tolist())
        for name, engine in engines.items():
            found, count = engine.logits(chunk), len(following)
            meters[name].add(wanted[:count], found[:count], following)
            meters[name].end_sequence()

    results = {name: meter.result() for name, meter in meters.items()}
    if options.json:
        record = {"model": options.model.name, "isa": _native.isa()}
        print(json.dumps(record | {n: asdict(r) for n, r in results.items()}, indent=2))
        return
    print(
        f"{options.model.name}, {options.text.name}, {len(tokens) - 1} tokens, isa {_native.isa()}"
    )
    for name, row in results.items():
        print(
            f"{name:12} mean KL {row.mean:.3e} ± {row.standard_error or 0:.1e}  "
            f"median {row.median:.2e}  p99 {row.p99:.2e}  same top-1 {row.top1:.4f}"
        )


if __name__ == "__main__":
    main()
