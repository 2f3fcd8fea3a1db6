"""What a model in a file type will do on a device: speed from its rates, memory from the core."""

from __future__ import annotations

from dataclasses import dataclass

from pocketlm.advise.device import Device
from pocketlm.advise.performance.planned import PlannedModel
from pocketlm.advise.performance.residence import residence
from pocketlm.errors import RequestError
from pocketlm.models.memory import decode_reads


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
        basis: "formula", or what corrected it.
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
    rates = device.rates
    if rates is None:
        raise RequestError(
            f"nothing is known of how fast '{device.name}' is",
            hint="'pocketlm device' measures it, on the device itself.",
        )
    trained = model.spec.config.context
    if not 1 <= context <= trained:
        raise RequestError(f"a context of {context:,} positions; {model.name} has {trained:,}")
    file = model.file(type)
    memory = residence(model, file, context=context, kv=kv, threads=threads or rates.threads)
    prompt = min(prompt, context)

    def decode(positions: int) -> float:
        reads = decode_reads(model.spec, positions, kv, file.types)
        return 0.8 * rates.read_bandwidth / (reads.weights + reads.kv)

    prefill = 0.6 * rates.int8 / model.parameters
    return Prediction(
        decode=decode(prompt),
        decode_at_context=decode(context),
        prefill=prefill,
        first_token=0.3 + memory.weights / 2e9 + prompt / prefill,
        peak=memory.peak,
        file=file.size,
        weights=memory.weights,
        kv=memory.kv,
        basis="formula",
    )
