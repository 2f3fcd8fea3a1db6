"""Prefill and decode speed of PocketLM and llama.cpp on one GGUF file, interleaved in one run.

    python benchmarks/speed.py MODEL.gguf [--prompt 512] [--generate 128] [--rounds 7] [--threads 2]

Each engine lives in a process of its own and is asked in turn, round by round, so that a noisy
machine hits both alike.
Prints medians, the spread and the ratio. Prompts are fixed token ids, decoding is greedy.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Engine(Protocol):
    """What is timed: compute tokens from position ``start`` on, return the most likely next one."""

    def decode(self, tokens: list[int], start: int) -> int: ...


class PocketLM:
    def __init__(self, path: Path, context: int, threads: int) -> None:
        from pocketlm import _native
        from pocketlm.models import open_model
        from pocketlm.models.build import build_executor

        self._executor = build_executor(open_model(path), threads=threads)
        pages = -(-context // _native.PAGE_POSITIONS)
        groups = len(self._executor.windows)
        self._executor.allocate(512, 1, 1, [pages] * groups, "f16")
        self._tables = np.tile(np.arange(pages, dtype=np.int32), (groups, 1, 1))
        self.name = f"pocketlm ({_native.isa()})"

    def decode(self, tokens: list[int], start: int) -> int:
        def ints(*values: int) -> NDArray[np.int32]:
            return np.array(values, np.int32)

        logits = self._executor.step(
            ints(*tokens),
            ints(len(tokens)),
            ints(start),
            self._tables,
            ints(0),
            ints(len(tokens) - 1),
        )
        return int(logits[0].argmax())


class LlamaCppEngine:
    def __init__(self, path: Path, context: int, threads: int) -> None:
        from llamacpp import LlamaCpp

        self._engine = LlamaCpp(path, context=context, threads=threads)
        self.name = "llama.cpp"

    def decode(self, tokens: list[int], start: int) -> int:
        if start == 0:
            self._engine.clear()
        self._engine.decode(tokens, start)
        return int(self._engine.logits(-1).argmax())


def _serve(kind: str, pipe: Connection, path: Path, context: int, threads: int) -> None:
    engine = {"pocketlm": PocketLM, "llama.cpp": LlamaCppEngine}[kind](path, context, threads)
    pipe.send(engine.name)
    while request := pipe.recv():
        pipe.send(_measure(engine, *request))


def _measure(engine: Engine, prompt: int, generate: int) -> tuple[float, float]:
    """Tokens per second of prefill (in chunks of at most 512) and of decode."""
    tokens = [1000 + 37 * i % 4000 for i in range(prompt)]
    begin = time.perf_counter()
    for start in range(0, prompt, 512):
        token = engine.decode(tokens[start : start + 512], start)
    prefilled = time.perf_counter()
    for i in range(generate):
        token = engine.decode([token], prompt + i)
    end = time.perf_counter()
    return prompt / (prefilled - begin), generate / (end - prefilled)


def run(options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Samples per engine and measure, first round (warm-up) left out."""
    context = mp.get_context("spawn")
    pipes, samples = {}, {}
    for kind in ("pocketlm", "llama.cpp"):
        ours, theirs = context.Pipe()
        size = options.prompt + options.generate
        process = context.Process(
            target=_serve, args=(kind, theirs, options.model, size, options.threads), daemon=True
        )
        process.start()
        theirs.close()  # so that a process that dies ends the wait for its answer
        name = ours.recv()
        pipes[name], samples[name] = ours, {"prefill": [], "decode": []}
    for round_ in range(options.rounds + 1):
        for name, pipe in pipes.items():
            time.sleep(0.3)  # lets the other engine's threads go to sleep
            pipe.send((options.prompt, options.generate))
            prefill, decode = pipe.recv()
            if round_ > 0:
                samples[name]["prefill"].append(prefill)
                samples[name]["decode"].append(decode)
    for pipe in pipes.values():
        pipe.send(None)
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--generate", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    samples = run(options)
    if options.json:
        print(json.dumps(samples, indent=2))
        return
    medians = {
        name: {measure: statistics.median(values) for measure, values in rows.items()}
        for name, rows in samples.items()
    }
    print(
        f"{options.model.name}: tokens/s, median (min..max) of {options.rounds} rounds, "
        f"{options.threads} threads"
    )
    for name, rows in samples.items():
        cells = (
            f"{measure} {options.prompt if measure == 'prefill' else options.generate}: "
            f"{medians[name][measure]:7.1f} ({min(values):.1f}..{max(values):.1f})"
            for measure, values in rows.items()
        )
        print(f"  {name:20}", "   ".join(cells))
    ours, peer = medians.values()
    print("  ratio               ", "   ".join(f"{m}: {ours[m] / peer[m]:.2f} x" for m in ours))


if __name__ == "__main__":
    main()
