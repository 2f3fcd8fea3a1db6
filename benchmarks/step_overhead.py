"""What of a decode step is not the native step: drawing, bookkeeping, text, hand-over.

    python benchmarks/step_overhead.py MODEL [--sequences 1,16] [--tokens 200] [--rounds 5]

Reads answers through ``Model.stream``, several in a thread each. Clocks stand around
``Executor.step`` alone, so that measuring costs well under a microsecond. Prints, as medians of all
decode steps: microseconds from one step's end to the next one's, outside the native call, and
their share; without speculation and with it.
"""

from __future__ import annotations

import argparse
import statistics
import threading
from time import perf_counter
from typing import Any

import pocketlm
from pocketlm import _native

PROMPT = "Write a short story about a lighthouse keeper and a storm."


class TimedExecutor:
    """An executor that notes (sequences, begin, end) of its steps."""

    def __init__(self, executor: Any) -> None:
        self._executor = executor
        self.steps: list[tuple[int, float, float]] = []

    def step(self, *arguments: Any) -> Any:
        began = perf_counter()
        result = self._executor.step(*arguments)
        self.steps.append((len(arguments[1]), began, perf_counter()))
        return result


def measure(
    model: pocketlm.Model, timed: TimedExecutor, sequences: int, options: dict[str, Any]
) -> tuple[float, float]:
    """(seconds of a step with all sequences, of them outside the native call), medians."""
    timed.steps.clear()

    def read(seed: int) -> None:
        for _ in model.stream(PROMPT, seed=seed, ignore_eos=True, **options):
            pass

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(sequences)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole, outside = [], []
    for (_, _, ended), (count, began, end) in zip(timed.steps, timed.steps[1:], strict=False):
        if count == sequences:
            whole.append(end - ended)
            outside.append(began - ended)
    return statistics.median(whole), statistics.median(outside)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--sequences", default="1,16")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{arguments.model}, {_native.isa()}")
    print("SEQUENCES  SPECULATE  TEMPERATURE  STEP us  OUTSIDE us  SHARE")
    for sequences in map(int, arguments.sequences.split(",")):
        for speculate in ("off", "ngram"):
            with pocketlm.load(
                arguments.model, sequences=sequences, context=1024, speculate=speculate
            ) as model:
                runner: Any = model._shared._engine.runner
                runner._executor = timed = TimedExecutor(runner._executor)
                for temperature in (0.0, 0.8):
                    options = {"temperature": temperature, "max_tokens": arguments.tokens}
                    found = [
                        measure(model, timed, sequences, options) for _ in range(arguments.rounds)
                    ]
                    step, outside = (
                        1e6 * statistics.median(each) for each in zip(*found, strict=True)
                    )
                    print(
                        f"{sequences:9}  {speculate:9}  {temperature:11}  {step:7.0f}"
                        f"  {outside:10.0f}  {100 * outside / step:4.1f} %",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
