"""This device's figures for a model that is here: speed as ``bench`` measures it, loss on one text.

The text is ours and short, written for this: no model was trained on it and none was calibrated on
it. Every token but the first is counted, each with at least half a window before it, so that models
of all vocabularies are measured on the same bytes.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from pocketlm.advise.comparison.records import Measured
from pocketlm.engine.options import KvType
from pocketlm.evaluate.evaluation import DEFAULT_CONTEXT, evaluate
from pocketlm.evaluate.speed.bench import bench
from pocketlm.evaluate.speed.contenders import OURS
from pocketlm.evaluate.texts import read_utf8
from pocketlm.progress import ProgressCallback, silent

PROMPT, GENERATE, ROUNDS = 256, 64, 3
OUR_TEXT = "PocketLM's own text of 3 kB"


def measure(
    path: Path,
    text: Path | None,
    *,
    context: int,
    kv: KvType,
    threads: int | None,
    progress: ProgressCallback = silent,
) -> Measured:
    """Measures one model; some seconds for a small one.

    Args:
        text: a UTF-8 file; None is our own text.
        context: the most that the model was made for.

    Raises what ``bench`` and ``evaluate`` raise.
    """
    words = own_text() if text is None else read_utf8(text).removesuffix("\n")
    prompt = min(PROMPT, max(1, context - GENERATE - 1))
    speed = bench(
        path,
        prompt=prompt,
        generate=GENERATE,
        depth=0,
        batch=(),
        rounds=ROUNDS,
        threads=threads,
        kv=kv,
        progress=progress,
    )
    medians = {row.measure: row.engines[OURS].median for row in speed.models[0].rows}
    window = min(DEFAULT_CONTEXT, context)
    loss = evaluate(
        path,
        text=words,
        context=window,
        stride=max(1, window // 2),
        threads=threads,
        kv=kv,
        progress=progress,
    )
    assert loss.perplexity is not None
    return Measured(
        prefill=medians["prefill"],
        decode=medians["decode"],
        prompt=prompt,
        generate=GENERATE,
        first_token=medians["first_token"],
        peak=round(medians["peak_memory"]),
        perplexity=loss.perplexity.perplexity,
        bits_per_byte=loss.bits_per_byte,
        text=OUR_TEXT if text is None else text.name,
    )


def own_text() -> str:
    """The text that ships with PocketLM."""
    found = files("pocketlm.advise.comparison") / "text.txt"
    return found.read_text("utf-8").removesuffix("\n")
