"""A comparison for a terminal: tables as wide as it is, columns below each other where they do not
fit beside each other."""

from __future__ import annotations

import io

from pocketlm.advise.comparison.layout import Table, chunks, tables
from pocketlm.advise.comparison.records import Comparison

_LABEL = 20  # characters of the first column
_COLUMN = 18  # the fewest that a model's column is given


def console_text(found: Comparison, width: int) -> str:
    """All tables, for a terminal of ``width`` characters."""
    parts = [_table(table, width) for table in tables(found)]
    notes = [f"{s.name}: {note}" for s in found.subjects for note in s.notes] + list(found.notes)
    if notes:
        parts.append("\n".join(notes) + "\n")
    return "\n".join(parts)


def _table(table: Table, width: int) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    out = io.StringIO()
    console = Console(file=out, width=max(width, _LABEL + _COLUMN), highlight=False, markup=False)
    console.print(table.title)
    for columns in chunks(table.head, (width - _LABEL) // _COLUMN):
        drawn = RichTable(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
        drawn.add_column("", overflow="fold")
        for column in columns:
            drawn.add_column(
                Text(table.head[column]),
                justify="right" if table.numbers else "left",
                overflow="fold",
            )
        for label, cells in table.rows:
            drawn.add_row(Text(label), *(Text(cells[column]) for column in columns))
        console.print(drawn)
    if table.note:
        console.print(table.note)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
