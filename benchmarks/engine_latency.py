"""How long others wait while a long prompt is read, and what a known beginning saves.

    python benchmarks/engine_latency.py MODEL [--streams 4] [--prompt 4000] [--shared 1000]
        [--rounds 3]

Drives the engine itself, without text. First some streams decode; then a long prompt comes, and
the time between two of their tokens is taken until its first token is there: the usual gap is the
median before it came, the worst one is the longest while it was read. Then a prompt is read twice
with another ending: how much sooner the second one has its first token, and whether its tokens and
log-probabilities are to the bit those without the prefix cache.
"""

from __future__ import annotations

import argparse
import random
import statistics
from pathlib import Path
from time import perf_counter

from pocketlm import _native
from pocketlm.engine.build import EngineOptions, build_engine
from pocketlm.engine.engine import Engine
from pocketlm.engine.request import Request
from pocketlm.engine.sampling import SamplingParams
from pocketlm.models import open_model

Tokens = list[int]


def prompt(engine: Engine, length: int, seed: int) -> Tokens:
    rng = random.Random(seed)
    return [rng.randrange(1000, min(40_000, engine.runner.vocab)) for _ in range(length)]


def finish(engine: Engine) -> None:
    while engine.busy:
        engine.step()


def interference(engine: Engine, streams: int, length: int) -> tuple[float, list[float], float]:
    """(the usual gap, all gaps while the prompt is read, seconds until its first token)."""
    endless = SamplingParams(temperature=0.8, max_tokens=2000, ignore_eos=True, seed=1)
    talking = [engine.add(prompt(engine, 100, i), endless) for i in range(streams)]
    while any(len(request.output) < 40 for request in talking):
        engine.step()
    gaps = [timed_step(engine) for _ in range(60)]
    late = engine.add(
        prompt(engine, length, random.randrange(10**6, 10**7)), SamplingParams(max_tokens=4, seed=1)
    )
    began = perf_counter()
    reading = []
    while not late.output:
        reading.append(timed_step(engine))
    seconds = perf_counter() - began
    for request in talking:
        engine.abort(request)
    finish(engine)
    return statistics.median(gaps), reading, seconds


def timed_step(engine: Engine) -> float:
    began = perf_counter()
    engine.step()
    return perf_counter() - began


def first_token(engine: Engine, tokens: Tokens) -> tuple[float, Request, list[object]]:
    params = SamplingParams(temperature=0.8, max_tokens=16, ignore_eos=True, seed=7, logprobs=5)
    began = perf_counter()
    request = engine.add(tokens, params)
    seconds, outputs = 0.0, []
    while engine.busy:
        for output in engine.step():
            seconds = seconds or perf_counter() - began
            outputs.append((output.token, output.logprobs))
    return seconds, request, outputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--prompt", type=int, default=4000)
    parser.add_argument("--shared", type=int, default=1000)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    spec = open_model(arguments.model)
    context = min(spec.config.context, 8192)
    options = EngineOptions(
        context=context, sequences=arguments.sequences, kv_tokens=4 * context, speculate="off"
    )
    engine = build_engine(spec, frozenset(), options).engine
    print(f"{arguments.model.name}, {_native.isa()}, context {context:,}")
    print("USUAL GAP ms  WORST ms  RATIO  P99  STEPS  LONG PROMPT s")
    for _ in range(arguments.rounds):
        usual, reading, seconds = interference(engine, arguments.streams, arguments.prompt)
        reading.sort()
        p99 = reading[int(0.99 * len(reading))]
        print(
            f"{1e3 * usual:12.1f}  {1e3 * reading[-1]:8.1f}  {reading[-1] / usual:5.2f}"
            f"  {p99 / usual:4.2f}  {len(reading):5}  {seconds:13.2f}",
            flush=True,
        )
    print("FIRST s  AGAIN s  SOONER  CACHED  SAME BITS")
    for i in range(arguments.rounds):
        shared = prompt(engine, arguments.shared, 1000 + i)
        first, _, _ = first_token(engine, [*shared, *prompt(engine, 20, 1)])
        again, request, outputs = first_token(engine, [*shared, *prompt(engine, 20, 2)])
        engine.scheduler.prefix_cache = False
        _, _, plain = first_token(engine, [*shared, *prompt(engine, 20, 2)])
        engine.scheduler.prefix_cache = True
        print(
            f"{first:7.3f}  {again:7.4f}  {first / again:5.1f}x  {request.cached:6}"
            f"  {outputs == plain}",
            flush=True,
        )


if __name__ == "__main__":
    main()
