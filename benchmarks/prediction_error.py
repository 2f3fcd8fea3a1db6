"""How far predicted speeds are from measured ones, with the device's rates of the same seconds.

    python benchmarks/prediction_error.py FILE.gguf ... [--rounds 5] [--save measured.jsonl]
    python benchmarks/prediction_error.py --read measured.jsonl [--fit]

The rates of a virtual machine change by a factor of two within minutes, as its neighbours come and
go. So every answer is measured between two probes, and predicted from the mean of both: what is
left is the model's error. An answer between probes that differ by more than a quarter does not
count, nor does one beside which the cores multiplied at less than 0.7 of the best rate that was
seen: then other programs ran on them. Printed: the median over the answers of
predicted / measured - 1.

``--fit`` also fits the shares of ``formula.toml`` to all measurements, and once more without each
model: what comes out for the model left out is what a model that nobody measured may expect.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pocketlm import _native
from pocketlm.advise.device import Rates, this_device
from pocketlm.advise.performance import planned
from pocketlm.advise.performance.formula import (
    Kernels,
    Work,
    kernels,
    prefill_seconds,
    seconds,
    work,
)
from pocketlm.engine.machine import available_cores
from pocketlm.evaluate.speed.contenders import OURS, Setup
from pocketlm.evaluate.speed.first_token import first_token
from pocketlm.evaluate.speed.plan import Question
from pocketlm.evaluate.speed.processes import EngineProcess

PROMPT, DEPTH, GENERATE = 512, 2048, 48
ALIKE, OURS_ALONE = 1.25, 0.7
ENDS = ("before", "after")
FITTED = ("step", "op", "read", "attention", "values", "cache")
# Round guesses that a fit begins with, and how far, as logarithms, they may be off: one that began
# with the shipped figures would know of the model that is left out.
GUESSES = (1.5e-4, 2e-6, 0.8, 0.5, 0.05, 0.5)
PRIOR = (1.0, 0.7, 0.3, 0.7, 1.0, 0.7)
KIND, KIND_PRIOR = 0.8, 0.4


def rates(threads: int) -> dict[str, float]:
    """What the machine does just now, in about a tenth of a second."""
    return {
        "read_bandwidth": max(_native.read_bandwidth(threads, 256 << 20, 2)),
        "int8": max(_native.multiply_add_rate("int8", threads, 0.015, 2)),
        "f32": max(_native.multiply_add_rate("f32", threads, 0.015, 2)),
    }


def last_cache() -> int:
    return max(this_device(probe=False).caches.values(), default=0)


def measure(path: Path, rounds: int) -> dict[str, Any]:
    """Answers of one model, each with the rates before and after it."""
    threads = available_cores()
    setup = Setup(
        engine=OURS,
        path=str(path),
        context=DEPTH + GENERATE + 1,
        sequences=1,
        threads=threads,
        kv="f16",
    )
    answers = []
    with EngineProcess(setup) as engine:
        for prompt in (PROMPT, DEPTH):
            engine.ask(Question(1, prompt, GENERATE))
            for _ in range(rounds if prompt == PROMPT else (rounds + 1) // 2):
                time.sleep(0.05)
                before = rates(threads)
                timing = engine.ask(Question(1, prompt, GENERATE))
                after = rates(threads)
                answers.append(
                    {
                        "prompt": prompt,
                        "before": before,
                        "after": after,
                        "prefill": timing.prefill_tokens / timing.prefill_s,
                        "decode": timing.decode_tokens / timing.decode_s,
                    }
                )
    starts = [first_token(setup).seconds for _ in range(2)]
    return {
        "file": str(path.absolute()),
        "isa": _native.isa(),
        "threads": threads,
        "cache": last_cache(),
        "answers": answers,
        "first_token": min(starts),
    }


def pooled(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One of each file, with the answers of all runs."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["file"] in found:
            found[row["file"]]["answers"] += row["answers"]
        else:
            found[row["file"]] = row
    return list(found.values())


class Measured:
    """A file with what it does in a step, and its samples: (measure, speed, rates)."""

    def __init__(self, row: dict[str, Any], best: float) -> None:
        path = Path(row["file"])
        model = planned(path)
        self.name = path.stem
        self.model = model.spec.config.family
        self.isa: str = row["isa"]
        self.cache: int = row["cache"]
        self.work = work(model.spec, model.file().types)
        self.samples = [
            (measure, answer[measure.split()[0]], found)
            for answer in row["answers"]
            for measure in self._measures(answer["prompt"])
            if (found := _agreed(answer, measure, row["threads"], best)) is not None
        ]

    @staticmethod
    def _measures(prompt: int) -> tuple[str, str]:
        at = f" at {DEPTH:,}" if prompt == DEPTH else ""
        return ("prefill" + at, "decode" + at)

    def errors(self, reach: Kernels) -> dict[str, list[float]]:
        """log(predicted / measured) of each sample, by measure."""
        found: dict[str, list[float]] = {}
        for measure, speed, given in self.samples:
            ratio = predicted(self.work, given, reach, measure, self.cache) / speed
            found.setdefault(measure, []).append(float(np.log(ratio)))
        return found


def best_int8(rows: Sequence[dict[str, Any]]) -> float:
    """What the cores multiply when nobody else computes on them."""
    return max(one[when]["int8"] for row in rows for one in row["answers"] for when in ENDS)


def _agreed(answer: dict[str, Any], measure: str, threads: int, best: float) -> Rates | None:
    """The mean rates around an answer; None where what the measure hangs on changed meanwhile, or
    the cores were not ours alone."""
    before, after = answer["before"], answer["after"]
    if min(before["int8"], after["int8"]) < OURS_ALONE * best:
        return None
    which = "int8" if measure.startswith("prefill") else "read_bandwidth"
    if not 1 / ALIKE < before[which] / after[which] < ALIKE:
        return None
    return Rates(**{name: (before[name] + after[name]) / 2 for name in before}, threads=threads)


def predicted(what: Work, given: Rates, reach: Kernels, measure: str, cache: int) -> float:
    """Tokens/s."""
    depth = DEPTH if measure.endswith(f"{DEPTH:,}") else PROMPT
    if measure.startswith("prefill"):
        return depth / prefill_seconds(what, given, reach, depth, cache)
    return 1 / seconds(what, given, reach, 1, depth + GENERATE // 2, cache)


def fit(files: Sequence[Measured], start: Kernels) -> Kernels:
    """The shares that predict best: least squares of logarithms, outliers held down, near round
    guesses where the measurements do not tell. What is not fitted is that of ``start``."""
    kinds = sorted({one.kind for file in files for one in file.work.products})
    first = np.log([*GUESSES, *(KIND for _ in kinds)])
    prior = np.array([*PRIOR, *(KIND_PRIOR for _ in kinds)])

    def reach(x: np.ndarray) -> Kernels:
        values = [float(one) for one in np.exp(x)]
        fitted = dict(zip(FITTED, values, strict=False))
        many = {**start.many, **dict(zip(kinds, values[len(FITTED) :], strict=True))}
        return replace(start, **fitted, many=many)  # type: ignore[arg-type]

    def residuals(x: np.ndarray) -> np.ndarray:
        found = reach(x)
        errors = [
            statistics.median(values) / 0.1
            for file in files
            for values in file.errors(found).values()
        ]
        return np.array([*errors, *((x - first) / prior)])

    x = first.copy()
    for _ in range(30):
        now = residuals(x)
        weights = 1 / np.sqrt(1 + now**2)[:, None]
        slopes = np.stack([(residuals(x + d) - now) / 1e-4 for d in 1e-4 * np.eye(len(x))], 1)
        change = np.linalg.lstsq(slopes * weights, -now * weights[:, 0], rcond=None)[0]
        x = x + np.clip(change, -0.5, 0.5)
        if np.abs(change).max() < 1e-4:
            break
    return reach(x)


def table(files: Sequence[Measured], by_file: Sequence[Kernels]) -> str:
    """Median errors in percent, Markdown."""
    measures = sorted({m for file in files for m, _, _ in file.samples})
    lines = ["| file | " + " | ".join(measures) + " |", "|---" * (len(measures) + 1) + "|"]
    for file, reach in zip(files, by_file, strict=True):
        errors = file.errors(reach)
        cells = [
            f"{np.expm1(statistics.median(errors[m])):+.0%} ({len(errors[m])})"
            if m in errors
            else "–"
            for m in measures
        ]
        lines.append(f"| {file.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--read", type=Path)
    parser.add_argument("--fit", action="store_true")
    options = parser.parse_args()
    rows = []
    if options.read:
        rows = [json.loads(line) for line in options.read.read_text().splitlines()]
    for path in options.files:
        rows.append(measure(path, options.rounds))
        if options.save:
            with options.save.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    best = best_int8(rows)
    found = [Measured(row, best) for row in pooled(rows)]
    start = kernels(found[0].isa)
    print(table(found, [start] * len(found)))
    if options.fit:
        print("\nfitted to all:", fit(found, start))
        print("\neach model by a fit to the others:\n")
        others = {
            model: fit([one for one in found if one.model != model], start)
            for model in {one.model for one in found}
        }
        print(table(found, [others[one.model] for one in found]))


if __name__ == "__main__":
    main()
