"""The memory of a process that runs a model, before there is one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pocketlm.advise.performance.planned import PlannedFile, PlannedModel
from pocketlm.models.memory import Capacity, core_memories

PROCESS_BYTES = 62 << 20
"""What ``pocketlm run`` takes before it opens a model, and touches besides the model's own memory:
the interpreter 9 MiB, NumPy, tokenizers, jinja2 and the core 33, the command line 10, and 14 for
code that runs, threads, caches and the text itself. Measured on Linux x86-64 with CPython 3.11.
21 MiB of it are pages of the libraries' files. A kernel that maps large folios whole (Linux 6.18)
has up to 13 MiB more of them resident where the files were just written; they take no memory
beyond the page cache."""

_THOUSAND = 1024  # tokens of "1k", a whole number of the cache's pages


@dataclass(frozen=True)
class Residence:
    """Bytes that are resident when one sequence fills the context.

    Attributes:
        weights: packed.
        kv_per_1k: KV cache of 1,024 tokens.
        kv: KV cache of the whole context.
        workspace: buffers of a step.
        tokenizer: once it is built.
        context: tokens.
        peak: the most there is at any time, of the whole process.
    """

    weights: int
    kv_per_1k: int
    kv: int
    workspace: int
    tokenizer: int
    context: int
    peak: int


def residence(
    model: PlannedModel,
    file: PlannedFile,
    *,
    context: int,
    kv: str,
    threads: int,
    step_tokens: int = 512,
) -> Residence:
    """What ``file`` of the model takes with a KV cache of ``context`` positions in type ``kv``.

    The tokenizer is built before the weights are packed, and lets go what it does not keep; pages
    of the file leave as they are packed. So the peak is while it is built, or in the end: weights,
    cache, the rows of the workspace that a prompt touches, and logits.
    """
    capacity = Capacity(
        tokens=min(context, step_tokens),
        sequences=1,
        rows=1,
        context=context,
        kv=kv,
        threads=threads,
    )
    thousand = replace(capacity, context=_THOUSAND)
    core, short = core_memories(model.spec, [capacity, thousand], file.types)
    logits = 4 * model.spec.config.vocab
    running = core.weights + core.kv + core.workspace + model.tokenizer.kept + logits
    return Residence(
        weights=core.weights,
        kv_per_1k=short.kv,
        kv=core.kv,
        workspace=core.workspace,
        tokenizer=model.tokenizer.kept,
        context=context,
        peak=PROCESS_BYTES + max(running, model.tokenizer.building),
    )
