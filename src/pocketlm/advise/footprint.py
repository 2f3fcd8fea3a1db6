"""What a model takes on disk and in memory, in types that it has and in types that it could have.

Nothing is loaded and nothing is written: sizes come from the code that would write the file (the
plan of ``quantize`` and the header of the GGUF writer) and from the core's own sum over a program
whose weights have shapes but no data. ``peak`` measures what this predicts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from pocketlm.advise.peak import measured_peak
from pocketlm.convert.stream import TensorStream, open_stream
from pocketlm.engine.build import choose_context
from pocketlm.engine.machine import available_cores
from pocketlm.engine.options import EngineOptions, KvType
from pocketlm.gguf import BlockType
from pocketlm.models import ModelSpec, open_model
from pocketlm.models.memory import Capacity, core_memory, tokenizer_memory
from pocketlm.progress import Progress, ProgressCallback, silent
from pocketlm.quantize.file_types import FileType, file_type
from pocketlm.quantize.plan import FLOATS, PlannedTensor, Recipe, plan
from pocketlm.quantize.quantization import file_size
from pocketlm.store import Store
from pocketlm.store.describe import describe_path
from pocketlm.store.importing import model_files

DEFAULT_TYPES = ("F16", "Q8_0", "Q6_K", "Q5_1", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")

PROCESS_BYTES = 62 << 20
"""What ``pocketlm run`` takes before it opens a model, and touches besides the model's own memory:
the interpreter 9 MiB, NumPy, tokenizers, jinja2 and the core 33, the command line 10, and 14 for
code that runs, threads, caches and the text itself. Measured on Linux x86-64 with CPython 3.11."""

_THOUSAND = 1024  # tokens of "1k", a whole number of the cache's pages


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """One model in one type. Sizes are bytes.

    Attributes:
        model: the ref.
        type: the file type: what the file is, or what it would be made.
        on_disk: whether this is the file itself, rather than one that could be made of it.
        requantized: whether it would be made of a file that is quantized already.
        file: size of the file, metadata included.
        parameters: weights of all its tensors.
        bits_per_weight: of the whole file, as ``pocketlm quantize`` says it.
        reduction: how much smaller the file is than the same model's in F16, 0.7 for 70 %.
        weights: packed in memory.
        kv_per_1k: KV cache of 1,024 tokens.
        kv: KV cache of the whole context.
        workspace: buffers of a step of one sequence.
        tokenizer: resident once it is built.
        context: tokens that ``kv`` and ``peak`` are for.
        peak: the most that a process is predicted to have resident, after a prompt that fills the
            context.
        measured_file, measured_peak: the same of the file on disk as they are; None where there is
            no such file or nothing was measured.
    """

    model: str
    type: str
    on_disk: bool
    requantized: bool
    file: int
    parameters: int
    bits_per_weight: float
    reduction: float
    weights: int
    kv_per_1k: int
    kv: int
    workspace: int
    tokenizer: int
    context: int
    peak: int
    measured_file: int | None = None
    measured_peak: int | None = None


def footprint(
    ref: str | Path,
    types: Sequence[str] = DEFAULT_TYPES,
    *,
    context: int | None = None,
    kv: KvType = "f16",
    threads: int | None = None,
    measure: bool = False,
    progress: ProgressCallback = silent,
) -> list[Footprint]:
    """The model as it lies on disk, then in each of the types that it is not in already.

    Args:
        ref: a ref of the store, or the path of a .gguf file or a safetensors folder.
        types: names of file types (``pocketlm.quantize``), in any case.
        context: tokens; None is the model's own, at most 4,096.
        kv: type of the KV cache.
        threads: that compute; None is the physical cores.
        measure: run the file on disk in a process of its own, with a prompt that fills the context.

    Raises RequestError for an unknown type or a context beyond the model's, and what opening the
    model raises.
    """
    options = EngineOptions(context=context, kv=kv, threads=threads or available_cores())
    wanted = list(dict.fromkeys(file_type(name) for name in types))
    path = ref if isinstance(ref, Path) else Store().resolve(ref).path
    with closing(open_model(path)) as spec, open_stream(path) as stream:
        options = replace(options, context=choose_context(context, spec.config.context))
        found = list(_sized(str(ref), spec, stream, wanted, options))
    if measure:
        progress(Progress(f"measure {path.name}", 0, None))
        found[0] = replace(found[0], measured_peak=measured_peak(path, options))
    return found


def _sized(
    model: str,
    spec: ModelSpec,
    stream: TensorStream,
    wanted: Sequence[FileType],
    options: EngineOptions,
) -> Iterator[Footprint]:
    """One for the file itself, and one for each type."""
    original = describe_path(spec.path).quantization
    size = sum(given.path.stat().st_size for given in model_files(spec.path))
    parameters = sum(math.prod(tensor.shape) for tensor in stream.tensors)
    half = _plan(stream, file_type("F16"))[1]

    def made(type: str, file: int, types: Mapping[str, BlockType], requantized: bool) -> Footprint:
        return Footprint(
            model=model,
            type=type,
            on_disk=False,
            requantized=requantized,
            file=file,
            parameters=parameters,
            bits_per_weight=8 * file / parameters,
            reduction=1 - file / half,
            **vars(_memory(spec, types, options)),
        )

    yield replace(made(original, size, {}, False), on_disk=True, measured_file=size)
    for kind in wanted:
        planned, file = _plan(stream, kind)
        if kind.name == original and all(item.copied for item in planned):
            continue
        types = {item.tensor.name: item.type for item in planned}
        again = any(not (item.copied or item.tensor.type in FLOATS) for item in planned)
        yield made(kind.name, file, types, again)


def _plan(stream: TensorStream, kind: FileType) -> tuple[list[PlannedTensor], int]:
    """The tensors that ``quantize`` would write, and the size of its file."""
    recipe = Recipe(kind, allow_requantize=True)
    planned = plan(stream, recipe)
    return planned, file_size(stream, planned, recipe)


@dataclass(frozen=True)
class _Memory:
    weights: int
    kv_per_1k: int
    kv: int
    workspace: int
    tokenizer: int
    context: int
    peak: int


def _memory(spec: ModelSpec, types: Mapping[str, BlockType], options: EngineOptions) -> _Memory:
    """What the model takes when one sequence fills the context.

    The tokenizer is built before the weights are packed, and lets go what it does not keep; pages
    of the file leave as they are packed. So the peak is while it is built, or in the end: weights,
    cache, the rows of the workspace that a prompt touches, and logits.
    """
    assert options.context is not None
    assert options.threads is not None
    capacity = Capacity(
        tokens=min(options.context, options.step_tokens),
        sequences=1,
        rows=1,
        context=options.context,
        kv=options.kv,
        threads=options.threads,
    )
    core = core_memory(spec, capacity, types)
    tokenizer = tokenizer_memory(spec)
    logits = 4 * spec.config.vocab
    running = core.weights + core.kv + core.workspace + tokenizer.kept + logits
    return _Memory(
        weights=core.weights,
        kv_per_1k=core_memory(spec, replace(capacity, context=_THOUSAND), types).kv,
        kv=core.kv,
        workspace=core.workspace,
        tokenizer=tokenizer.kept,
        context=options.context,
        peak=PROCESS_BYTES + max(running, tokenizer.building),
    )
