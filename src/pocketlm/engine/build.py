"""From an opened model to a running engine, with the memory known before it is taken.

It is asked twice whether the model fits: from the file's metadata before the weights are packed,
and by the executor's own sum before the KV cache and the workspace are allocated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pocketlm import _native
from pocketlm.engine.engine import Engine, EngineConfig
from pocketlm.engine.machine import available_cores, available_memory
from pocketlm.engine.runner import NativeRunner, RunnerLimits
from pocketlm.errors import CapacityError, RequestError
from pocketlm.models.memory import estimate
from pocketlm.models.spec import ModelSpec
from pocketlm.progress import ProgressCallback, silent

KvType = Literal["f16", "f32"]

DEFAULT_CONTEXT = 4096
_MOST_SEQUENCES = 1024
# Rows of logits that scoring asks for at once: enough for the output matrix to be read for many
# tokens, within this many bytes.
_ROW_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How a model is to be run. Raises RequestError for a value out of range.

    Attributes:
        context: positions of a sequence; None is the model's own, but at most 4,096.
        threads: None is the physical cores that this process may use.
        kv: type of the KV cache, "f16" or "f32".
        sequences: how many may run at once, each with a whole context.
        step_tokens: new tokens computed in one step; smaller ones answer sooner while a long prompt
            is read, larger ones read it faster.
        prefix_cache: whether equal beginnings are computed once.
    """

    context: int | None = None
    threads: int | None = None
    kv: KvType = "f16"
    sequences: int = 1
    step_tokens: int = 512
    prefix_cache: bool = True

    def __post_init__(self) -> None:
        _check("context", self.context, 1, 1 << 30, optional=True)
        _check("threads", self.threads, 1, 1024, optional=True)
        _check("sequences", self.sequences, 1, _MOST_SEQUENCES)
        _check("step_tokens", self.step_tokens, 1, 1 << 16)
        if self.kv not in get_args(KvType):
            raise RequestError(f"kv is {self.kv!r}, expected one of {', '.join(get_args(KvType))}")


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a running model takes."""

    weights: int
    kv: int
    workspace: int

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.workspace


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
    progress: ProgressCallback = silent,
) -> Built:
    """Packs the weights, allocates the KV cache and returns the engine.

    Raises CapacityError with all numbers where it does not fit into memory, RequestError for a
    context beyond what the model was made for or a wrong POCKETLM_ISA, ModelFileError for weights
    that cannot be packed.
    """
    from pocketlm.models.build import build_executor

    _require_instruction_set()
    config = spec.config
    context = choose_context(options.context, config.context)
    threads = options.threads or available_cores()
    expected = estimate(spec, positions=context * options.sequences, kv=options.kv)
    _require_memory(MemoryPlan(expected.weights, expected.kv, 0), taken=0, context=context)
    executor = build_executor(spec, threads=threads, progress=progress)
    limits = limits_for(context, config.vocab, options)
    sizes = executor.requirements(
        limits.max_tokens, limits.max_sequences, limits.max_rows, limits.pages, limits.kv
    )
    plan = MemoryPlan(sizes["weights"], sizes["kv"], sizes["workspace"])
    _require_memory(plan, taken=plan.weights, context=context)
    runner = NativeRunner(executor, limits, vocab=config.vocab)
    engine = Engine(
        runner,
        EngineConfig(
            context=context,
            eos_ids=eos_ids,
            rope_switch=config.rope_switch,
            prefix_cache=options.prefix_cache,
        ),
    )
    return Built(engine, plan, context, threads)


def limits_for(context: int, vocab: int, options: EngineOptions) -> RunnerLimits:
    """What the runner allocates so that every sequence can have the whole context."""
    rows = max(options.sequences, min(128, max(16, _ROW_BYTES // (4 * vocab))))
    return RunnerLimits(
        max_tokens=max(options.step_tokens, rows),
        max_sequences=options.sequences,
        max_rows=rows,
        pages=options.sequences * -(-context // _native.PAGE_POSITIONS),
        kv=options.kv,
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


def _require_instruction_set() -> None:
    """Has the core read POCKETLM_ISA now, where a wrong value can be said well."""
    try:
        _native.isa()
    except ValueError as error:
        raise RequestError(f"POCKETLM_ISA: {error}") from error


def _require_memory(plan: MemoryPlan, *, taken: int, context: int) -> None:
    """``taken`` bytes of the plan are in use already and no longer count as available."""
    memory = available_memory()
    if plan.total - taken <= memory.available:
        return
    gib = 2**30
    parts = f"weights {plan.weights / gib:.2f} + KV cache {plan.kv / gib:.2f}"
    if plan.workspace:
        parts += f" + workspace {plan.workspace / gib:.2f}"
    raise CapacityError(
        f"the model needs {plan.total / gib:.2f} GiB ({parts}) for a context of {context:,}, "
        f"but {(memory.available + taken) / gib:.2f} GiB are left of {memory.limit}",
        hint="Choose a smaller context, fewer sequences or a smaller model.",
    )


def _check(name: str, value: int | None, low: int, high: int, *, optional: bool = False) -> None:
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RequestError(f"{name} is {value!r}, expected an integer in [{low}, {high:,}]")
