"""Measuring what a model takes in memory: ``pocketlm run`` in a process of its own.

The prompt fills the context, so that every page of the KV cache is written; the process itself says
the most that it had resident.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

from pocketlm.engine.options import EngineOptions
from pocketlm.errors import PocketLMError

_ANSWER = 4  # tokens


def measured_peak(path: Path, options: EngineOptions) -> int:
    """Bytes resident at most while the model reads a prompt that fills the context.

    options: with context and threads.
    Raises PocketLMError with what the process said where it fails.
    """
    assert options.context is not None
    answer = max(1, min(_ANSWER, options.context - 1))
    command = [
        *(sys.executable, "-m", "pocketlm", "run", str(path), "-", "--raw", "--json"),
        *("--context", str(options.context), "--kv", options.kv),
        *("--threads", str(options.threads), "--temperature", "0"),
        *("--max-tokens", str(answer), "--on-overflow", "truncate"),
    ]
    done = subprocess.run(
        command, input=_words(options.context), capture_output=True, text=True, encoding="utf-8"
    )
    if done.returncode != 0:
        raise PocketLMError(f"measuring failed: {done.stderr.strip() or 'no message'}", path=path)
    return int(json.loads(done.stdout)["stats"]["peak_memory_bytes"])


def _words(count: int) -> str:
    """Words of random letters: each is at least one token, whatever the vocabulary."""
    draw = random.Random(0)
    return " ".join("".join(draw.choices("etaoinshrdlu", k=5)) for _ in range(count))
