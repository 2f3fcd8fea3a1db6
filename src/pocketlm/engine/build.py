"""From an opened model to a running engine, with the memory known before it is taken.

It is asked whether the model fits before anything of it is in memory, tokenizer included
(``require_memory``), before the weights are packed, and once more before the KV cache and the
workspace are allocated: other programs may have taken memory meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pocketlm.engine.cpu import instruction_set
from pocketlm.engine.engine import Engine, EngineConfig
from pocketlm.engine.machine import available_cores, available_memory
from pocketlm.engine.options import EngineOptions
from pocketlm.engine.runner import NativeRunner, RunnerLimits
from pocketlm.engine.speculation.draft_model import DraftModel
from pocketlm.engine.speculation.ngram import NgramProposer
from pocketlm.engine.speculation.proposer import Proposer
from pocketlm.engine.speculation.same_tokens import require_same_tokens
from pocketlm.engine.speculation.speculator import Speculator
from pocketlm.errors import CapacityError, RequestError
from pocketlm.models.memory import Capacity, core_memory, kv_pages, tokenizer_memory
from pocketlm.models.spec import ModelSpec
from pocketlm.progress import ProgressCallback, silent

DEFAULT_CONTEXT = 4096
# Rows of logits that scoring asks for at once: enough for the output matrix to be read for many
# tokens, within this many bytes.
_ROW_BYTES = 16 << 20
_DRAFT_STEP = 256  # tokens that a draft model reads at once


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a running model takes, beside what its process has anyway.

    Workspace is the most that a step can use; one sequence touches less of it. ``tokenizer`` is 0
    where the engine is built without one, ``draft`` without a draft model (all that it takes).
    """

    weights: int
    kv: int
    workspace: int
    tokenizer: int = 0
    draft: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.workspace + self.tokenizer + self.draft


@dataclass(frozen=True)
class Built:
    """An engine and what was settled in building it."""

    engine: Engine
    memory: MemoryPlan
    context: int
    threads: int


def build_engine(
    spec: ModelSpec,
    eos_ids: frozenset[int],
    options: EngineOptions,
    *,
    draft: ModelSpec | None = None,
    progress: ProgressCallback = silent,
) -> Built:
    """Packs the weights, allocates the KV cache and returns the engine.

    draft: a model of the same vocabulary that guesses tokens to come.

    Raises CapacityError with all numbers where it does not fit into memory, RequestError for a
    context beyond what the model was made for or a wrong POCKETLM_ISA, ModelFileError for weights
    that cannot be packed, UnsupportedError for a draft model with other tokens.
    """
    instruction_set()
    config = spec.config
    context = choose_context(options.context, config.context)
    threads = options.threads or available_cores()
    plan = _core_plan(spec, options, context, threads, draft)
    _require_memory(plan, plan.total, context=context)
    proposer: Proposer | None = NgramProposer() if options.speculate == "ngram" else None
    if draft is not None:
        require_same_tokens(spec, draft)
        proposer = _draft_model(draft, options, plan, context, config.vocab, progress)
    runner = _runner(spec, options, plan, context, progress)
    engine = Engine(
        runner,
        EngineConfig(
            context=context,
            eos_ids=eos_ids,
            mixed_step=options.mixed_step,
            rope_switch=config.rope_switch,
            prefix_cache=options.prefix_cache,
        ),
        None if proposer is None else Speculator(proposer),
    )
    return Built(engine, plan, context, threads)


def _draft_model(
    spec: ModelSpec,
    options: EngineOptions,
    plan: MemoryPlan,
    context: int,
    vocab: int,
    progress: ProgressCallback,
) -> DraftModel:
    """The draft model, ready to guess for sequences of ``context`` as far as it can read them."""
    context = min(context, spec.config.context)
    runner = _runner(spec, _draft_options(options), plan, context, progress)
    return DraftModel(runner, vocab=vocab, context=context, rope_switch=spec.config.rope_switch)


def _draft_options(options: EngineOptions) -> EngineOptions:
    return replace(options, step_tokens=_DRAFT_STEP, output_rows=options.sequences, kv_tokens=None)


def _runner(
    spec: ModelSpec,
    options: EngineOptions,
    plan: MemoryPlan,
    context: int,
    progress: ProgressCallback,
) -> NativeRunner:
    """Packs the weights, and asks whether the rest still fits before it is allocated."""
    from pocketlm.models.build import build_executor

    threads = options.threads or available_cores()
    executor = build_executor(spec, threads=threads, progress=progress)
    capacity = _capacity(options, context, spec.config.vocab, threads)
    limits = RunnerLimits(
        max_tokens=capacity.tokens,
        max_sequences=capacity.sequences,
        max_rows=capacity.rows,
        pages=kv_pages(executor.windows, capacity),
        kv=capacity.kv,
    )
    sizes = executor.requirements(
        limits.max_tokens, limits.max_sequences, limits.max_rows, list(limits.pages), limits.kv
    )
    _require_memory(plan, sizes["kv"] + sizes["workspace"], context=context)
    return NativeRunner(executor, limits, vocab=spec.config.vocab)


def plan_memory(
    spec: ModelSpec, options: EngineOptions, *, draft: ModelSpec | None = None
) -> MemoryPlan:
    """What the model with its tokenizer will take; nothing of it is loaded yet.

    Raises RequestError for a context beyond what the model was made for or a wrong POCKETLM_ISA,
    ModelFileError for weights that cannot be packed.
    """
    instruction_set()
    context = choose_context(options.context, spec.config.context)
    core = _core_plan(spec, options, context, options.threads or available_cores(), draft)
    return replace(core, tokenizer=tokenizer_memory(spec).kept)


def require_memory(
    spec: ModelSpec, options: EngineOptions, *, draft: ModelSpec | None = None
) -> MemoryPlan:
    """``plan_memory`` of a model that fits. Raises as ``build_engine`` does."""
    plan = plan_memory(spec, options, draft=draft)
    context = choose_context(options.context, spec.config.context)
    needed = max(plan.total, tokenizer_memory(spec).building)
    _require_memory(plan, needed, context=context)
    return plan


def _core_plan(
    spec: ModelSpec,
    options: EngineOptions,
    context: int,
    threads: int,
    draft: ModelSpec | None = None,
) -> MemoryPlan:
    sizes = core_memory(spec, _capacity(options, context, spec.config.vocab, threads))
    plan = MemoryPlan(sizes.weights, sizes.kv, sizes.workspace)
    if draft is None:
        return plan
    context = min(context, draft.config.context)
    other = _core_plan(draft, _draft_options(options), context, threads)
    return replace(plan, draft=other.total)


def _capacity(options: EngineOptions, context: int, vocab: int, threads: int) -> Capacity:
    """What is allocated. Raises RequestError for a cache too small for one whole context."""
    if options.kv_tokens is not None and options.kv_tokens < context:
        raise RequestError(
            f"kv_tokens is {options.kv_tokens:,}, expected at least the context of {context:,}"
        )
    rows = options.output_rows or min(128, max(16, _ROW_BYTES // (4 * vocab)))
    rows = max(options.sequences, rows)
    return Capacity(
        tokens=max(options.step_tokens, rows),
        sequences=options.sequences,
        rows=rows,
        context=context,
        pool=options.kv_tokens,
        kv=options.kv,
        threads=threads,
    )


def choose_context(asked: int | None, model: int) -> int:
    """The context to run with. Raises RequestError for more than the model was made for."""
    if asked is None:
        return min(model, DEFAULT_CONTEXT)
    if asked > model:
        raise RequestError(
            f"a context of {asked:,} positions was asked for; the model was made for {model:,}"
        )
    return asked


def _require_memory(plan: MemoryPlan, missing: int, *, context: int) -> None:
    """``missing`` bytes are still to be taken; the rest of the plan is in use already."""
    memory = available_memory()
    if missing <= memory.available:
        return
    gib = 2**30
    parts = f"weights {plan.weights / gib:.2f} + KV cache {plan.kv / gib:.2f}"
    parts += f" + workspace {plan.workspace / gib:.2f}"
    if plan.tokenizer:
        parts += f" + tokenizer {plan.tokenizer / gib:.2f}"
    if plan.draft:
        parts += f" + draft model {plan.draft / gib:.2f}"
    needed = max(plan.total, missing)
    raise CapacityError(
        f"the model needs {needed / gib:.2f} GiB ({parts}) for a context of {context:,}, "
        f"but {(memory.available + needed - missing) / gib:.2f} GiB are left of {memory.limit}",
        hint="Choose a smaller context, fewer sequences or a smaller model.",
    )
