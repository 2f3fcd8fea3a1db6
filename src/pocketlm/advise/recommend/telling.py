"""Recommendations as text: what to take and why, what was ruled out, what to relax."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import TypeAdapter

from pocketlm.advise.device import Device
from pocketlm.advise.performance import Prediction
from pocketlm.advise.recommend.recommending import Choice, Ranked, Recommended, RuledOut
from pocketlm.advise.recommend.relaxing import Change

_OF_A_LIMIT = 4
_LIMITS = {
    "engine": "not run by PocketLM's engine",
    "use": "not made for this use",
    "offline": "not here, and offline",
    "license": "licence",
    "lang": "language",
    "context": "context",
    "disk": "disk",
    "memory": "memory",
    "min_speed": "speed",
}


def recommended_lines(found: Recommended, limit: int, *, explain: bool) -> Iterator[str]:
    """The whole answer; ``limit`` is how many models are told of."""
    yield f"{found.title}, on {device_name(found.device)}"
    yield f"  memory   {gib(found.memory)} usable: {found.room}"
    yield (
        f"  limits   context {found.context:,}; at least {found.min_speed:g} tokens/s "
        "with the context full"
    )
    for number, ranked in enumerate(found.ranked[:limit], 1):
        yield ""
        yield from _ranked_lines(number, ranked, found, explain=explain)
    left = len(found.ranked) - limit
    if left > 0:
        names = ", ".join(f"{one.best.model} {one.best.type}" for one in found.ranked[limit:])
        yield ""
        yield f"{left} more fit: {names}"
    yield ""
    yield from _ruled_out_lines(found.ruled_out, explain=explain)


def relaxation_text(found: Recommended) -> str:
    """Where nothing fits: what must give."""
    if not found.relax:
        return "No limit that can be relaxed is in the way."
    single = all(len(one.changes) == 1 for one in found.relax)
    ways = [
        f"{', and '.join(change.says for change in one.changes)} "
        f"({options(one.changes)}) lets {one.opens} through"
        for one in found.relax
    ]
    title = "Relax one limit" if single else "No single limit is enough; relax these together"
    return f"{title}: {'; or '.join(ways)}."


def record(found: Recommended, limit: int | None) -> dict[str, Any]:
    """The answer as JSON, with ``limit`` models; None for all of them."""
    whole = TypeAdapter(Recommended).dump_python(found, mode="json")
    return {**whole, "ranked": whole["ranked"][:limit]}


def _ranked_lines(
    number: int, ranked: Ranked, found: Recommended, *, explain: bool
) -> Iterator[str]:
    best = ranked.best
    facts = f"{best.size_class}, {count(best.parameters)} parameters, {best.licence}"
    yield f"{number}. {best.model} in {best.type}, KV cache {best.kv}   ({facts})"
    for title, one in zip(["why", *[""] * len(best.reasons)], best.reasons, strict=False):
        yield f"   {title:<8} {one.points:+6.1f}  {one.says}"
        if explain:
            yield f"   {'':<8} {'':<6}  rule '{one.rule}': {one.source}"
    yield f"   {'':<8} {best.points:6.1f}  points"
    yield f"   speed    {speed_text(best.prediction, found.context)}"
    yield f"   memory   {_memory(best.prediction, found.memory)}"
    for note in best.notes:
        yield f"   note     {note}"
    if explain:
        for other in ranked.others:
            yield f"   also     {_other(other)}"
        for name, broken in ranked.unfit:
            yield f"   not      {name}: {'; '.join(str(one) for one in broken)}"
    yield f"   do       {' && '.join(best.commands)}"


def _other(choice: Choice) -> str:
    return (
        f"{choice.type}, KV {choice.kv}: {choice.points:.1f} points, "
        f"{choice.prediction.decode_at_context:.1f} tokens/s, {gib(choice.prediction.peak)}"
    )


def _memory(prediction: Prediction, memory: int) -> str:
    return (
        f"{gib(prediction.peak)} at its peak of {gib(memory)} usable "
        f"(weights {gib(prediction.weights)}, KV cache {gib(prediction.kv)})"
    )


def speed_text(prediction: Prediction, context: int) -> str:
    """Speed in words, with what it rests on."""
    return (
        f"{prediction.decode:.1f} tokens/s, {prediction.decode_at_context:.1f} at {context:,} "
        f"tokens; first token after {prediction.first_token:.1f} s "
        f"(prompts {prediction.prefill:,.0f} tokens/s); {prediction.basis}"
    )


def _ruled_out_lines(found: Sequence[RuledOut], *, explain: bool) -> Iterator[str]:
    if not found:
        return
    yield f"ruled out: {len(found)}"
    by_limit: dict[str, list[str]] = {}
    for one in found:
        first = one.violations[0]
        form = f" in {one.variant}" if one.variant else ""
        by_limit.setdefault(first.limit, []).append(f"{one.model}{form} ({first})")
    for limit, models in by_limit.items():
        yield f"  {_LIMITS[limit]}: {len(models)}"
        for text in models if explain else models[:_OF_A_LIMIT]:
            yield f"    {text}"
        if not explain and len(models) > _OF_A_LIMIT:
            yield f"    and {len(models) - _OF_A_LIMIT} more; --explain tells all"


def options(changes: Sequence[Change]) -> str:
    """Changes as options: ``--ram 6.1GB --context 4096``."""
    found = []
    for change in changes:
        name = "--" + change.option.replace("_", "-")
        gone = change.value is None or change.value is False
        found.append(f"without {name}" if gone else f"{name} {_typed(change.value)}")
    return " ".join(found)


def device_name(device: Device) -> str:
    """What a device is called, with what matters of it."""
    name = "this device" if device.name == "this" else device.name
    return f"{name} ({device.cpu}, {device.cores} cores, {gib(device.ram)} of RAM)"


def count(parameters: int) -> str:
    """``596M``, ``4.0B``."""
    return f"{parameters / 1e9:.1f}B" if parameters >= 999_950_000 else f"{parameters / 1e6:.0f}M"


def gib(amount: int) -> str:
    """Bytes in powers of two, as memory is counted."""
    return f"{amount / 2**30:.2f} GiB"


def _typed(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
