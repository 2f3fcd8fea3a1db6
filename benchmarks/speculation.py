"""What speculation is worth: decode speed with it and without, answers under way in turn.

    python benchmarks/speculation.py MODEL TEXT [--draft REF] [--tokens 256] [--rounds 5]

TEXT is a file with English prose; of it a passage is taken. The tasks:

* copy: one passage was rewritten with a name changed, as an example; the same with another one.
* prose: a story, greedy and sampled: little comes again.
* never: the same with guesses at every step that are always wrong.

Prints medians over the rounds, and stops if an answer with speculation is not the one without.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pocketlm
from pocketlm import _native
from pocketlm.engine.request import Request
from pocketlm.engine.speculation.speculator import Speculator


class Wrong:
    """A proposer that is sure of what does not come: always token 0."""

    def prepare(self, request: Request) -> bool:
        return True

    def confidence(self, request: Request) -> int:
        return 8

    def propose(self, wanted: Mapping[Request, int]) -> dict[Request, list[int]]:
        return {request: [0] * count for request, count in wanted.items()}

    def clear(self) -> None:
        pass

    def forget(self, request: Request) -> None:
        pass


def tasks(text: str) -> dict[str, dict[str, Any]]:
    words = text.split()
    first, second = (" ".join(words[start : start + 150]) for start in (300, 500))
    other = {"Alice": "Carol", "She": "He", "she": "he"}
    name = max(other, key=lambda name: second.count(name))
    copy = (
        f"Original:\n{first}\n\nRewritten, with {other[name]} in place of {name}:\n"
        f"{first.replace(name, other[name])}\n\nOriginal:\n{second}\n\n"
        f"Rewritten, with {other[name]} in place of {name}:\n"
    )
    story = "Write a short story about a lighthouse keeper and a storm."
    return {
        "copy": {"messages": copy, "raw": True, "temperature": 0.0},
        "prose": {"messages": story, "temperature": 0.0},
        "prose, sampled": {"messages": story, "temperature": 1.0},
        "never": {"messages": story, "temperature": 1.0},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("text", type=Path)
    parser.add_argument("--draft")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--task", help="only this one")
    arguments = parser.parse_args()
    modes = ["off", "ngram", *([arguments.draft] if arguments.draft else [])]
    print(f"{arguments.model}, {_native.isa()}")
    print("TASK            SPECULATE  TOK/S  RATIO  GUESSED  RIGHT  OF")
    with ExitStack() as stack:
        models = {
            mode: stack.enter_context(pocketlm.load(arguments.model, speculate=mode))
            for mode in modes
        }
        for name, task in tasks(arguments.text.read_text(encoding="utf-8")).items():
            if arguments.task not in (None, name):
                continue
            if name == "never":
                models = {mode: models[mode] for mode in ("off", "ngram")}
                engine: Any = models["ngram"]._shared._engine
                engine._speculator = Speculator(Wrong())
            compare(name, task, models, arguments.tokens, arguments.rounds)


def compare(
    name: str, task: dict[str, Any], models: dict[str, pocketlm.Model], tokens: int, rounds: int
) -> None:
    speeds: dict[str, list[float]] = {mode: [] for mode in models}
    last: dict[str, pocketlm.Stats] = {}
    for seed in range(rounds):
        answers = {}
        for mode, model in models.items():
            chunks = list(model.stream(**task, max_tokens=tokens, seed=seed, ignore_eos=True))
            answers[mode] = [chunk.token for chunk in chunks]
            stats = last[mode] = chunks[-1].stats
            assert stats is not None
            speeds[mode].append(stats.decode_tps or 0)
        if any(answer != answers["off"] for answer in answers.values()):
            raise SystemExit(f"{name}: the answers differ")
    base = statistics.median(speeds["off"])
    for mode, found in speeds.items():
        speed, stats = statistics.median(found), last[mode]
        print(
            f"{name:14}  {Path(mode).name:>9}  {speed:5.0f}  {speed / base:5.2f}"
            f"  {stats.drafted_tokens:7}  {stats.accepted_tokens:5}  {stats.completion_tokens:3}",
            flush=True,
        )


if __name__ == "__main__":
    main()
