"""What a model in a file type will do on a device: speed from its rates, memory from the core."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from pocketlm.advise.device import Device
from pocketlm.advise.performance.formula import Formula, Work, kernels, scaled, work
from pocketlm.advise.performance.history import Case, correction, remembered
from pocketlm.advise.performance.planned import PlannedFile, PlannedModel
from pocketlm.advise.performance.residence import residence
from pocketlm.errors import RequestError
from pocketlm.models.memory import decode_reads
from pocketlm.settings import Settings


@dataclass(frozen=True)
class Prediction:
    """One model, in one type, on one device. Speeds are tokens/s, sizes bytes.

    Attributes:
        decode: after a prompt of the asked length.
        decode_at_context: of the last token that fits the context.
        prefill: of that prompt.
        first_token: seconds from the start of the process to the first token of its answer.
        peak: the most that the process has resident, with a full context.
        file: on disk.
        weights: packed in memory.
        kv: of the whole context.
        basis: "formula", "corrected by 4 measurements", "measured here 2 times".
    """

    decode: float
    decode_at_context: float
    prefill: float
    first_token: float
    peak: int
    file: int
    weights: int
    kv: int
    basis: str


def predict(
    model: PlannedModel,
    type: str | None,
    device: Device,
    *,
    context: int,
    kv: str = "f16",
    prompt: int = 512,
    threads: int | None = None,
) -> Prediction:
    """The speed and memory of a model on a device.

    Args:
        type: a file type; None is the model's own.
        context: positions of the KV cache.
        kv: its type, "f16", "q8" or "f32".
        prompt: tokens of the prompt before the answer, at most the context.
        threads: that compute; None is those that the device was measured with.

    Raises RequestError for an unknown type, a context beyond the model's, or a device without
    rates.
    """
    trained = model.spec.config.context
    if not 1 <= context <= trained:
        raise RequestError(f"a context of {context:,} positions; {model.name} has {trained:,}")
    file = model.file(type)
    formula = formula_of(model, file, device, kv=kv, threads=threads)
    threads = threads or formula.rates.threads
    prompt = min(prompt, context)
    memory = residence(model, file, context=context, kv=kv, threads=threads)
    runs = remembered(Settings.from_environment().home)
    found = correction(case_of(model, file, device, kv=kv, threads=threads), runs)
    prefill = found.value("prefill", prompt, formula.prefill)
    start = formula.load(memory.weights, model.spec.config.vocab)
    return Prediction(
        decode=found.value("decode", prompt, formula.decode),
        decode_at_context=found.value("decode", context, formula.decode),
        prefill=prefill,
        first_token=found.value("start", 0, lambda _: start) + prompt / prefill,
        peak=memory.peak,
        file=file.size,
        weights=memory.weights,
        kv=memory.kv,
        basis=found.basis,
    )


def formula_of(
    model: PlannedModel, file: PlannedFile, device: Device, *, kv: str, threads: int | None
) -> Formula:
    """The uncorrected speed of a model. Raises RequestError for a device without rates."""
    rates = device.rates
    if rates is None:
        raise RequestError(
            f"nothing is known of how fast '{device.name}' is",
            hint="'pocketlm device' measures it, on the device itself.",
        )
    given = scaled(rates, threads or rates.threads)
    what = replace(_work(model, file), kv=_kv_of_a_position(model, kv))
    return Formula(what, given, kernels(device.isa), max(device.caches.values(), default=0))


# Rankings ask for one model with several contexts, types of the KV cache and devices.


@lru_cache(maxsize=64)
def _work(model: PlannedModel, file: PlannedFile) -> Work:
    return work(model.spec, file.types)


@lru_cache(maxsize=64)
def _kv_of_a_position(model: PlannedModel, kv: str) -> int:
    return decode_reads(model.spec, 1, kv).kv


def case_of(
    model: PlannedModel, file: PlannedFile, device: Device, *, kv: str, threads: int
) -> Case:
    """What tells this prediction from others, for what was measured of the same."""
    return Case(
        cpu=device.cpu,
        cores=device.cores,
        isa=device.isa,
        threads=threads,
        kv=kv,
        shapes=model.fingerprint,
        type=file.type,
        reads=sum(product.nbytes for product in _work(model, file).products),
    )
