"""How much an engine's arithmetic changes a model: KL divergence of its logits against float32.

    python benchmarks/fidelity.py MODEL.gguf TEXT.txt [--tokens 4096] [--chunk 512]

For each chunk of the text: the logits of transformers in float32 with the file's dequantized
weights, of PocketLM and of llama.cpp on the same file and tokens. Prints mean KL(reference ||
engine) in nats per token and top-1 agreement.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from llamacpp import LlamaCpp
from numpy.typing import NDArray
from reference import Reference

import pocketlm
from pocketlm import _native
from pocketlm.models import open_model
from pocketlm.models.build import build_executor

Logits = NDArray[np.float32]


class PocketLM:
    """The native executor over one sequence, f16 KV cache."""

    def __init__(self, path: Path, *, context: int, threads: int) -> None:
        self._executor = build_executor(open_model(path), threads=threads)
        self._pages = -(-context // _native.PAGE_POSITIONS)
        self._executor.allocate(context, 1, context, self._pages, "f16")

    def logits(self, tokens: list[int]) -> Logits:
        def ints(values: list[int]) -> NDArray[np.int32]:
            return np.array(values, np.int32)

        table = np.arange(self._pages, dtype=np.int32)[None]
        return self._executor.step(
            ints(tokens),
            ints([len(tokens)]),
            ints([0]),
            table,
            ints([0]),
            ints([*range(len(tokens))]),
        )


class Peer:
    """llama.cpp with the same interface."""

    def __init__(self, path: Path, *, context: int, threads: int) -> None:
        self._engine = LlamaCpp(path, context=context, threads=threads)

    def logits(self, tokens: list[int]) -> Logits:
        self._engine.clear()
        self._engine.decode(tokens, 0, all_logits=True)
        return np.stack([self._engine.logits(i) for i in range(len(tokens))])


@dataclass
class Score:
    """Per-token divergences of one engine."""

    kl: list[float] = field(default_factory=list)
    same_top: list[bool] = field(default_factory=list)

    def add(self, reference: Logits, logits: Logits) -> None:
        for wanted, got in zip(reference, logits, strict=True):
            p, q = _log_softmax(wanted), _log_softmax(got)
            self.kl.append(float(np.sum(np.exp(p) * (p - q))))
            self.same_top.append(bool(wanted.argmax() == got.argmax()))

    def summary(self) -> dict[str, float]:
        kl = np.array(self.kl)
        return {
            "mean_kl": float(kl.mean()),
            "standard_error": float(kl.std() / np.sqrt(len(kl))),
            "median_kl": float(np.median(kl)),
            "p99_kl": float(np.quantile(kl, 0.99)),
            "top1_agreement": float(np.mean(self.same_top)),
            "tokens": len(kl),
        }


def _log_softmax(logits: Logits) -> NDArray[np.float64]:
    x = logits.astype(np.float64)
    x -= x.max()
    return np.asarray(x - np.log(np.exp(x).sum()))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--chunk", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    with pocketlm.load(str(options.model)) as model:
        tokens = model.tokenizer.encode(options.text.read_text(encoding="utf-8"))
    tokens = tokens[: options.tokens]
    reference = Reference(options.model)
    engines = {
        "pocketlm": PocketLM(options.model, context=options.chunk, threads=options.threads),
        "llama.cpp": Peer(options.model, context=options.chunk, threads=options.threads),
    }
    scores = {name: Score() for name in engines}
    for start in range(0, len(tokens), options.chunk):
        chunk = tokens[start : start + options.chunk]
        wanted = reference.logits(chunk)
        for name, engine in engines.items():
            scores[name].add(wanted, engine.logits(chunk))

    summaries = {name: score.summary() for name, score in scores.items()}
    if options.json:
        print(json.dumps({"model": options.model.name, "isa": _native.isa()} | summaries, indent=2))
        return
    print(f"{options.model.name}, {options.text.name}, {len(tokens)} tokens, isa {_native.isa()}")
    for name, row in summaries.items():
        print(
            f"{name:10} mean KL {row['mean_kl']:.3e} ± {row['standard_error']:.1e}  "
            f"median {row['median_kl']:.2e}  "
            f"p99 {row['p99_kl']:.2e}  same top-1 {row['top1_agreement']:.4f}"
        )


if __name__ == "__main__":
    main()
