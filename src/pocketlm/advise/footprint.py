"""What a model takes on disk and in memory, in types that it has and in types that it could have.

Nothing is loaded and nothing is written: sizes come from the code that would write the file (the
plan of ``quantize`` and the header of the GGUF writer) and from the core's own sum over a program
whose weights have shapes but no data. ``peak`` measures what this predicts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pocketlm.advise.peak import measured_peak
from pocketlm.advise.performance import PlannedFile, PlannedModel, Where, planned, residence
from pocketlm.catalog import CatalogEntry
from pocketlm.engine.build import choose_context
from pocketlm.engine.machine import available_cores
from pocketlm.engine.options import EngineOptions, KvType
from pocketlm.progress import Progress, ProgressCallback, silent
from pocketlm.quantize.file_types import file_type

DEFAULT_TYPES = ("F16", "Q8_0", "Q6_K", "Q5_1", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """One model in one type. Sizes are bytes.

    Attributes:
        model: the ref.
        type: the file type: what the file is, or what it would be made.
        where: the model is known from; of the catalog, and of a folder on the hub, the size of the
            tokenizer's texts is an estimate.
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
    where: Where = "here"


def footprint(
    ref: str | Path | CatalogEntry,
    types: Sequence[str] = DEFAULT_TYPES,
    *,
    context: int | None = None,
    kv: KvType = "f16",
    threads: int | None = None,
    measure: bool = False,
    progress: ProgressCallback = silent,
) -> list[Footprint]:
    """The model as it is, then in each of the types that it is not in already.

    Args:
        ref: a ref of the store, of the catalog or of the hub, the path of a .gguf file or a
            safetensors folder, or an entry of the catalog. A model that is not here is first as its
            makers publish it.
        types: names of file types (``pocketlm.quantize``), in any case.
        context: tokens; None is the model's own, at most 4,096.
        kv: type of the KV cache.
        threads: that compute; None is the physical cores.
        measure: run the file on disk in a process of its own, with a prompt that fills the context.

    Raises RequestError for an unknown type or a context beyond the model's, and what ``planned``
    raises.
    """
    options = EngineOptions(context=context, kv=kv, threads=threads or available_cores())
    wanted = list(dict.fromkeys(file_type(name).name for name in types))
    model = planned(ref)
    options = replace(options, context=choose_context(context, model.spec.config.context))
    found = list(_sized(model, wanted, options))
    if measure and model.here:
        progress(Progress(f"measure {model.spec.path.name}", 0, None))
        found[0] = replace(found[0], measured_peak=measured_peak(model.spec.path, options))
    return found


def _sized(
    model: PlannedModel, wanted: Sequence[str], options: EngineOptions
) -> Iterator[Footprint]:
    """One for the model as it is, and one for each type."""
    half = model.file("F16").size
    first = model.file()
    on_disk = model.size if model.here else None
    yield replace(_made(model, first, half, options), measured_file=on_disk)
    for type in wanted:
        file = model.file(type)
        if file.own or file is first:
            continue
        yield _made(model, file, half, options)


def _made(model: PlannedModel, file: PlannedFile, half: int, options: EngineOptions) -> Footprint:
    """The model in one type, beside its F16 file of ``half`` bytes."""
    assert options.context is not None
    assert options.threads is not None
    memory = residence(
        model,
        file,
        context=options.context,
        kv=options.kv,
        threads=options.threads,
        step_tokens=options.step_tokens,
    )
    return Footprint(
        model=model.name,
        type=file.type,
        where=model.where,
        on_disk=model.here and file.own,
        requantized=file.requantized,
        file=file.size,
        parameters=model.parameters,
        bits_per_weight=8 * file.size / model.parameters,
        reduction=1 - file.size / half,
        **vars(memory),
    )
