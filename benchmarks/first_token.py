"""Time to the first token in a fresh process, phase by phase, and the memory that it took.

    python benchmarks/first_token.py MODEL.gguf... [--runs 7] [--context 4096] [--fill]

Each run is what a user starts: `pocketlm run MODEL hi --max-tokens 1 --temperature 0`. The clock
starts before the process does and stops at the first byte of the answer. The phases come from as
many further runs, in which the functions that stand for a phase are timed from inside; what lies
between them is imports and the command line. With `--fill` the prompt takes all of the context, so
that the peak is the most memory this model can take. The first run warms the page cache.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

# phase: (module, name in it) of the functions whose time it is; those called inside one count there
PHASES = {
    "parse": ("pocketlm.models", "open_model"),
    "plan": ("pocketlm.api", "require_memory"),
    "tokenizer": ("pocketlm.api", "_tokenizer"),
    "template": ("pocketlm.api", "_template"),
    "pack": ("pocketlm.models.build", "build_executor"),
    "cache": ("pocketlm.engine.build", "NativeRunner"),
    "prompt": ("pocketlm.api", "Model._chat_prompt"),
    "prefill": ("pocketlm.engine.runner", "NativeRunner.step"),
}
MB = 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fill", action="store_true", help="a prompt as long as the context")
    options = parser.parse_args()
    for model in options.models:
        _report(model, options)


def _report(model: str, options: argparse.Namespace) -> None:
    command = [model, "--max-tokens", "1", "--temperature", "0", "--stats"]
    command += ["--threads", str(options.threads), "--context", str(options.context)]
    prompt = "hi"
    if options.fill:
        command += ["--raw", "--on-overflow", "truncate"]
        prompt = "All of this is there to take room. " * options.context
    tool = [str(Path(sys.executable).with_name("pocketlm")), "run", *command]
    timed = [sys.executable, __file__, "--inside", "run", *command]
    _run(tool, prompt)
    runs = [_run(tool, prompt) for _ in range(options.runs)]
    inside = [_run(timed, prompt)[2] for _ in range(options.runs)]
    first, end = (median(run[i] for run in runs) for i in (0, 1))
    print(f"{Path(model).name}: first text after {first:.3f} s, end after {end:.3f} s")
    lines = [line for _, _, text in runs[-1:] for line in text.splitlines() if "memory" in line]
    print("\n".join(lines))
    for phase in _phases(inside[0]):
        found = sorted(_phases(text)[phase] for text in inside)
        print(f"  {phase:12} {median(found) * 1e3:7.1f} ms   (least {found[0] * 1e3:.1f})")


def _run(command: list[str], prompt: str) -> tuple[float, float, str]:
    """Seconds to the first byte on stdout and to the end, and what stands on stderr."""
    started = time.monotonic()
    environment = os.environ | {"STARTED": str(started)}
    with subprocess.Popen(
        [*command, "-"],  # the prompt comes from stdin: it may be long
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(prompt)
        process.stdin.close()
        process.stdout.read(1)
        first = time.monotonic() - started
        process.stdout.read()
        errors = process.stderr.read()
    if process.returncode:
        sys.exit(errors)
    return first, time.monotonic() - started, errors


def _phases(errors: str) -> dict[str, float]:
    rows = (line.split("=") for line in errors.splitlines() if line.startswith("phase:"))
    return {name.removeprefix("phase:"): float(seconds) for name, seconds in rows}


def _inside(arguments: list[str]) -> None:
    """Runs the command line in this process, with the functions of PHASES timed."""
    begun = time.monotonic()
    spent = dict.fromkeys(PHASES, 0.0)
    open_phases: list[str] = []
    first: list[float] = []

    def timed(phase: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            open_phases.append(phase)
            start = time.monotonic()
            try:
                return call(*args, **options)
            finally:
                open_phases.pop()
                if not open_phases:
                    spent[phase] += time.monotonic() - start

        return run

    import pocketlm.cli.main

    for phase, (module, name) in PHASES.items():
        owner = importlib.import_module(module)
        *path, last = name.split(".")
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, last, timed(phase, getattr(owner, last)))
    write = sys.stdout.write
    sys.stdout.write = lambda text: (first or first.append(time.monotonic())) or write(text)  # type: ignore[method-assign]
    code = pocketlm.cli.main.main(arguments)
    started = float(os.environ["STARTED"])
    total = (first[0] if first else time.monotonic()) - started
    spent = {"interpreter": begun - started} | spent
    spent["imports, rest"] = total - sum(spent.values())
    spent["all"] = total
    for phase, seconds in spent.items():
        print(f"phase:{phase}={seconds}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        _inside(sys.argv[2:])
    else:
        main()
