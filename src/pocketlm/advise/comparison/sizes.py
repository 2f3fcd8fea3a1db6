"""Sizes, memory and predicted speed of one model in several types, whether it is here or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pocketlm.advise.comparison.records import Sized
from pocketlm.advise.device import Device
from pocketlm.advise.performance import PlannedModel, predict, residence
from pocketlm.engine.options import KvType


def sizes(
    model: PlannedModel,
    types: Sequence[str],
    device: Device,
    *,
    context: int,
    kv: KvType,
    threads: int | None,
) -> tuple[Sized, ...]:
    """The model's own file, here or on the hub, then each of the types that it is not in already.

    A device whose rates nobody knows has memory and no speeds. Raises RequestError for an unknown
    type.
    """
    files = [] if model.size is None else [model.file()]
    for type in types:
        if (file := model.file(type)) not in files:
            files.append(file)
    found = []
    for file in files:
        memory = residence(model, file, context=context, kv=kv, threads=threads or device.cores)
        sized = Sized(
            type=file.type,
            on_disk=model.here and file.own,
            requantized=file.requantized,
            file=file.size,
            weights=memory.weights,
            kv=memory.kv,
            peak=memory.peak,
        )
        if device.rates is not None:
            wanted = None if file.own else file.type
            told = predict(model, wanted, device, context=context, kv=kv, threads=threads)
            sized = replace(
                sized,
                decode=told.decode,
                prefill=told.prefill,
                first_token=told.first_token,
                basis=told.basis,
            )
        found.append(sized)
    return tuple(found)
