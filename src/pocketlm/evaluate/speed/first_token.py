"""From nothing to the first token: a fresh process each time, with the file in the page cache.

PocketLM is run as its user does, ``pocketlm run``, tokenizer and command line included. A peer is a
worker that is asked for one token; its tokenizer belongs to its model. Python's start counts for
both.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from time import perf_counter

from pocketlm.errors import PocketLMError
from pocketlm.evaluate.speed.contenders import OURS, Setup
from pocketlm.evaluate.speed.plan import Question
from pocketlm.evaluate.speed.processes import EngineProcess

_PROMPT = "The capital of France is"
_QUESTION = Question(sequences=1, prompt=5, generate=0)


@dataclass(frozen=True)
class FirstToken:
    """Seconds until there was a token, and the bytes resident at most until then."""

    seconds: float
    peak_memory: int


def first_token(setup: Setup) -> FirstToken:
    """Starts an engine for one token. Raises PocketLMError with what it said where it fails."""
    begin = perf_counter()
    if setup.engine == OURS:
        return _ours(setup, begin)
    with EngineProcess(setup) as process:
        process.ask(_QUESTION)
        seconds = perf_counter() - begin
        assert process.peak_memory is not None
        return FirstToken(seconds, process.peak_memory)


def _ours(setup: Setup, begin: float) -> FirstToken:
    command = [
        *(sys.executable, "-m", "pocketlm", "run", setup.path, _PROMPT, "--raw", "--json"),
        *("--context", str(setup.context), "--threads", str(setup.threads)),
        *("--kv", setup.kv, "--temperature", "0", "--max-tokens", "1", "--on-overflow", "truncate"),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    seconds = perf_counter() - begin
    rest, complaints = process.communicate()
    if process.returncode != 0:
        raise PocketLMError(f"pocketlm run failed: {complaints.strip() or 'no message'}")
    return FirstToken(seconds, int(json.loads(first + rest)["stats"]["peak_memory_bytes"]))
