"""A plan as text: a table of types, the best of them, and how to get it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter

from pocketlm.advise.recommend.planning import KV_TYPES, Form, Plan
from pocketlm.advise.recommend.telling import count, device_name, gib, speed_text

COLUMNS = (
    "TYPE", "FILE", "PEAK", "FITS", "TOK/S", "FULL", "FIRST",
    *(f"LONGEST {kv}" for kv in KV_TYPES), "",
)  # fmt: skip


def plan_record(found: Plan) -> dict[str, Any]:
    """The plan as JSON."""
    record: dict[str, Any] = TypeAdapter(Plan).dump_python(found, mode="json")
    return record


def plan_head(found: Plan) -> Iterator[str]:
    """What is planned, above the table."""
    licence = found.licence or "licence not said"
    yield f"{found.model} ({found.size_class}, {count(found.parameters)} parameters, {licence})"
    yield f"  on       {device_name(found.device)}"
    yield f"  memory   {gib(found.memory)} usable: {found.room}"
    trained = "" if found.trained is None else f" of {found.trained:,}"
    yield f"  context  {found.context:,}{trained}, KV cache {found.kv}"


def plan_rows(found: Plan) -> list[tuple[str, ...]]:
    """The table: one row for each type."""
    return [_row(form, found) for form in found.forms]


def _row(form: Form, found: Plan) -> tuple[str, ...]:
    said = form.prediction
    return (
        form.type,
        gib(said.file),
        gib(said.peak),
        "yes" if form.fits else "no",
        f"{said.decode:.1f}",
        f"{said.decode_at_context:.1f}",
        f"{said.first_token:.1f} s",
        *(f"{form.longest[kv]:,}" if form.longest[kv] else "-" for kv in KV_TYPES),
        "best" if form.type == found.best else "",
    )


def plan_choice(found: Plan) -> Iterator[str]:
    """The best type, below the table."""
    best = next((form for form in found.forms if form.type == found.best), None)
    if best is None:
        return
    for title, one in zip(["why", *[""] * len(found.why)], found.why, strict=False):
        points = f"{one.points:+6.1f}  " if one.points else ""
        yield f"  {title:<8} {points}{one.says}"
    yield f"  speed    {speed_text(best.prediction, found.context)}"
    yield f"  do       {' && '.join(best.commands)}"


def plan_relaxation(found: Plan) -> str:
    """Where nothing fits: how much RAM would do."""
    least = min(found.forms, key=lambda form: form.prediction.peak)
    ways = [f"{_ram(found.ram_needed)} of RAM (--ram {_ram(found.ram_needed)})"]
    longest = max(form.longest[found.kv] for form in found.forms)
    if longest:
        ways.append(f"a context of {longest:,} (--context {longest})")
    return (
        f"{least.type}, the smallest, takes {gib(least.prediction.peak)} where "
        f"{gib(found.memory)} are usable: {' or '.join(ways)} would do."
    )


def _ram(amount: int) -> str:
    return f"{-(-10 * amount // 2**30) / 10:g}GiB"
