"""A comparison as tables of texts: one column for each model, the same for every writer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pocketlm.advise.comparison.records import Comparison, Measured, Sized, Subject

MISSING = "not said"
NONE = "–"
_LANGUAGES = 12  # that are named


@dataclass(frozen=True)
class Table:
    """Attributes:
    title: what the rows are about.
    head: names of the models.
    rows: a label and a text for each model.
    note: what has to be known to read it.
    numbers: whether the texts are figures, to be set flush right.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    note: str = ""
    numbers: bool = True


def tables(found: Comparison) -> list[Table]:
    """Facts, file sizes, memory, speeds, measurements and scores; those that have anything."""
    head = tuple(subject.name for subject in found.subjects)
    rooms = [_facts(found, head), *_sizes(found, head), *_measured(found, head)]
    for table in found.scores:
        rows = tuple(
            (
                row.benchmark if row.mode is None else f"{row.benchmark} ({row.mode})",
                tuple(NONE if value is None else f"{value:.1f}" for value in row.values),
            )
            for row in table.rows
        )
        note = f"{table.evaluator}; {table.protocol}. Source: {table.source}"
        rooms.append(Table(f"Published scores: {table.name}", head, rows, note))
    return [table for table in rooms if table.rows]


def _facts(found: Comparison, head: tuple[str, ...]) -> Table:
    rows: list[tuple[str, tuple[str, ...]]] = []

    def row(label: str, text: Callable[[Subject], str | None]) -> None:
        cells = [text(subject) for subject in found.subjects]
        if any(cells):
            rows.append((label, tuple(cell or MISSING for cell in cells)))

    row("where", _where)
    row("title", lambda s: s.title)
    row("publisher", lambda s: s.publisher)
    row("family", lambda s: s.family)
    row("parameters", lambda s: None if s.parameters is None else f"{s.parameters:,}")
    row("class", lambda s: s.size_class)
    row("context", lambda s: None if s.context is None else f"{s.context:,} tokens")
    row("licence", _licence)
    row("languages", _languages)
    row("made for", lambda s: ", ".join(s.uses) or None)
    row("trained to", _trained)
    row("released", lambda s: s.released)
    row("layers × width", lambda s: s.layers and f"{s.layers} × {s.hidden:,}")  # type: ignore[arg-type,return-value]
    row("vocabulary", lambda s: None if s.vocabulary is None else f"{s.vocabulary:,} tokens")
    return Table("Facts", head, tuple(rows), numbers=False)


def _where(subject: Subject) -> str:
    if subject.where in ("here", "hub"):
        place = "here" if subject.where == "here" else "on the hub"
        size = "" if subject.file is None else f", {size_text(subject.file)}"
        return f"{place}, {subject.quantization}{size}"
    return "not here" if subject.where == "catalog" else "runs elsewhere"


def _licence(subject: Subject) -> str | None:
    if subject.licence is None:
        return None
    return subject.licence + (", gated" if subject.gated else "")


def _languages(subject: Subject) -> str | None:
    named = subject.languages or ()
    claimed = max(len(named), subject.language_count or 0)
    more = claimed - len(named[:_LANGUAGES])
    if not named:
        return f"{claimed} that are not named" if claimed else None
    return ", ".join(named[:_LANGUAGES]) + (f" and {more} more" if more > 0 else "")


def _trained(subject: Subject) -> str | None:
    if subject.base is None:
        return None
    return "continue text (base)" if subject.base else "answer"


def _sizes(found: Comparison, head: tuple[str, ...]) -> list[Table]:
    of_context = f"{found.context:,} tokens of context, KV cache {found.kv}"
    speeds = f"Predicted for {found.device}."
    return [
        _by_type(found, head, "File size", lambda s: size_text(s.file), ""),
        _by_type(
            found, head, "Memory", lambda s: size_text(s.peak), f"A process with {of_context}."
        ),
        _by_type(found, head, "Decode, tokens/s", lambda s: _speed(s.decode), speeds),
        _by_type(found, head, "Prefill, tokens/s", lambda s: _speed(s.prefill), speeds),
    ]


def types_of(found: Comparison) -> list[str]:
    """The types of all models, the largest file first."""
    largest: dict[str, float] = {}
    for subject in found.subjects:
        for sized in subject.sizes:
            share = sized.file / (subject.parameters or 1)
            largest[sized.type] = max(largest.get(sized.type, 0), share)
    return sorted(largest, key=lambda name: (-largest[name], name))


def in_type(subject: Subject, type: str) -> Sized | None:
    """The model in that type: the file that is here, where it is of that type."""
    same = [sized for sized in subject.sizes if sized.type == type]
    return next((sized for sized in same if sized.on_disk), same[0] if same else None)


def _by_type(
    found: Comparison,
    head: tuple[str, ...],
    title: str,
    text: Callable[[Sized], str | None],
    note: str,
) -> Table:
    rows = []
    for type in types_of(found):
        cells = []
        for subject in found.subjects:
            sized = in_type(subject, type)
            cell = None if sized is None else text(sized)
            cells.append(NONE if cell is None else cell + ("*" if sized and sized.on_disk else ""))
        if any(cell != NONE for cell in cells):
            rows.append((type, tuple(cells)))
    if any(cell.endswith("*") for _, cells in rows for cell in cells):
        note = f"{note} * is the file here.".strip()
    return Table(title, head, tuple(rows), note)


def _measured(found: Comparison, head: tuple[str, ...]) -> list[Table]:
    all_measured = [subject.measured for subject in found.subjects]
    one = next((measured for measured in all_measured if measured is not None), None)
    if one is None:
        return []

    def row(label: str, text: Callable[[Measured], str]) -> tuple[str, tuple[str, ...]]:
        return label, tuple(NONE if m is None else text(m) for m in all_measured)

    rows = (
        row(f"prefill {one.prompt:,}, tokens/s", lambda m: f"{m.prefill:,.1f}"),
        row(f"decode {one.generate:,}, tokens/s", lambda m: f"{m.decode:,.1f}"),
        row("first token of a new process, s", lambda m: f"{m.first_token:.2f}"),
        row("peak memory", lambda m: size_text(m.peak)),
        row("perplexity", lambda m: NONE if m.perplexity is None else f"{m.perplexity:.2f}"),
        row(
            "bits per byte", lambda m: NONE if m.bits_per_byte is None else f"{m.bits_per_byte:.3f}"
        ),
    )
    note = (
        f"Medians, of the files that are here. Perplexity and bits per byte on {one.text}: "
        "perplexity is of each model's own tokens, so models compare by bits per byte; less is "
        "better."
    )
    return [Table("Measured on this device", head, rows, note)]


def _speed(value: float | None) -> str | None:
    return None if value is None else f"{value:,.1f}"


def size_text(count: int) -> str:
    """Bytes in decimal units: ``98.4 MB``."""
    if count >= 999_950_000:
        return f"{count / 1e9:,.2f} GB"
    return f"{count / 1e6:,.1f} MB"


def chunks(head: Sequence[str], room: int) -> list[range]:
    """Columns that stand side by side where ``room`` of them fit; at least one."""
    step = max(1, room)
    return [range(at, min(at + step, len(head))) for at in range(0, len(head), step)]
