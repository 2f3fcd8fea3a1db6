"""A run of ``pocketlm bench`` as text: tables for a terminal and for Markdown, samples as CSV.

Both tables are made of the same cells. A cell has the median and the spread; the last column says
how many times better PocketLM is than the better one of the peers.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence

from pocketlm.evaluate.speed.contenders import OURS
from pocketlm.evaluate.speed.results import ModelSpeed, Row, Samples, Speed, Unit, label

_TITLES = {
    OURS: "PocketLM",
    "llamacpp": "llama.cpp",
    "llamacpp-nofa": "llama.cpp, no FA",
    "ik": "ik_llama.cpp",
}


def title(engine: str) -> str:
    """An engine's name for people."""
    return _TITLES.get(engine, engine)


def console_text(speed: Speed) -> str:
    """The facts of the run and a table for each model, as wide as they need."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    out = io.StringIO()
    console = Console(file=out, width=1000, highlight=False, markup=False)
    for line in _facts(speed):
        console.print(line)
    for model in speed.models:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
        for number, name in enumerate(_head(speed)):
            table.add_column(name, justify="right" if number > 1 else "left", no_wrap=True)
        for cells in _cells(speed, model):
            table.add_row(*cells)
        console.print()
        console.print(_title(model))
        console.print(table)
        for line in _notes(speed, model):
            console.print(line)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def markdown_text(speed: Speed) -> str:
    """The same as Markdown."""
    lines = [f"- {line}" for line in _facts(speed)]
    for model in speed.models:
        head = _head(speed)
        lines += ["", f"**{_title(model)}**", "", _line(head)]
        lines.append(_line(["---", "---", *["---:"] * (len(head) - 2)]))
        lines += [_line(cells) for cells in _cells(speed, model)]
        notes = _notes(speed, model)
        lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join(lines).rstrip() + "\n"


def csv_text(speed: Speed) -> str:
    """One line for each sample."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(("model", "type", "measure", "unit", "engine", "round", "value"))
    for model in speed.models:
        for row in model.rows:
            for engine, samples in row.engines.items():
                for number, value in enumerate(samples.values, 1):
                    table.writerow(
                        (model.model, model.type, row.measure, row.unit, engine, number, value)
                    )
    return out.getvalue()


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _facts(speed: Speed) -> list[str]:
    plan, machine = speed.plan, speed.machine
    read = speed.read_bandwidth
    lines = [
        f"{machine.cpu}, {machine.cores} cores, {machine.system}",
        f"{plan.threads} threads, KV cache {plan.kv}, medians of {plan.rounds} interleaved rounds "
        "(smallest to largest)",
        f"memory read: {read.median / 1e9:.1f} GB/s "
        f"({read.least / 1e9:.1f} to {read.most / 1e9:.1f})",
    ]
    return lines + [
        f"{title(name)}: {version or 'loaded no model'}" for name, version in speed.engines.items()
    ]


def _title(model: ModelSpeed) -> str:
    return f"{model.model} ({model.type}, {model.file / 1e6:,.0f} MB)"


def _peers(speed: Speed) -> list[str]:
    return [name for name in speed.engines if name != OURS]


def _head(speed: Speed) -> list[str]:
    peers = _peers(speed)
    last = ["against the better" if len(peers) > 1 else "ratio"] if peers else []
    return ["measure", "in", title(OURS), *(title(name) for name in peers), *last]


def _cells(speed: Speed, model: ModelSpeed) -> Iterator[list[str]]:
    peers = _peers(speed)
    for row in model.rows:
        cells = [row.label, _UNITS[row.unit][0]]
        cells += [_cell(row, name) for name in (OURS, *peers)]
        if peers:
            cells.append("–" if row.ratio is None else f"{row.ratio:.2f} ×")
        yield cells


_UNITS: dict[Unit, tuple[str, float]] = {
    "tokens/s": ("tokens/s", 1),
    "s": ("s", 1),
    "bytes": ("MB", 1e6),
}


def _cell(row: Row, engine: str) -> str:
    samples: Samples | None = row.engines.get(engine)
    if samples is None:
        return "–"
    _, scale = _UNITS[row.unit]
    values = [value / scale for value in (samples.median, samples.least, samples.most)]
    digits = max(0, 2 - math.floor(math.log10(values[0])))  # three that say something
    median, least, most = (f"{value:,.{digits}f}" for value in values)
    return f"{median} ({least}–{most})"


def _notes(speed: Speed, model: ModelSpeed) -> list[str]:
    lines = [
        f"{label(one.measure, speed.plan)}: {(one.weights + one.kv) / 1e6:,.1f} MB for a token "
        f"(weights {one.weights / 1e6:,.1f}, KV {one.kv / 1e6:,.1f}), "
        f"{100 * one.reached:.0f} % of the memory read"
        for one in model.traffic
    ]
    lines += [
        f"{title(one.engine)} goes on with the same token as PocketLM in {one.same} of "
        f"{one.prompts} prompts"
        for one in model.agreements
    ]
    for failure in model.failures:
        what = "loading" if failure.measure is None else label(failure.measure, speed.plan)
        lines.append(f"{title(failure.engine)}, {what}: {failure.reason}")
    return lines
