"""A comparison as Markdown: GitHub's tables, which any page renders."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pocketlm.advise.comparison.layout import tables
from pocketlm.advise.comparison.records import Comparison
from pocketlm.advise.comparison.trying import Tried

_MARKS = re.compile(r"([\\`*_\[\]<>|#~])")


def markdown_text(found: Comparison) -> str:
    """A heading, a table and a note for each part."""
    lines: list[str] = []
    for table in tables(found):
        lines += [f"## {_plain(table.title)}", "", _line(["", *table.head])]
        lines.append(_line(["---", *["---:" if table.numbers else "---"] * len(table.head)], True))
        lines += [_line([label, *cells]) for label, cells in table.rows]
        lines += ["", _plain(table.note), ""] if table.note else [""]
    for subject in found.subjects:
        lines += [f"- {_plain(subject.name)}: {_plain(note)}" for note in subject.notes]
    lines += [f"- {_plain(note)}" for note in found.notes]
    return "\n".join(lines).rstrip() + "\n"


def _line(cells: Sequence[str], made: bool = False) -> str:
    return "| " + " | ".join(cell if made else _plain(cell) for cell in cells) + " |"


def _plain(text: str) -> str:
    """Text that says itself: nothing in it is taken for Markdown or HTML."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))


def answers_text(prompt: str, tried: Sequence[Tried]) -> str:
    """What every model answered, as quotations."""
    lines = ["", f"## Answers to: {_plain(prompt)}", ""]
    for one in tried:
        lines += [f"### {_plain(one.name)}", ""]
        lines += [f"> {_plain(line)}".rstrip() for line in one.text.strip().splitlines()]
        lines += ["", _plain(one.cost), ""]
    return "\n".join(lines).rstrip() + "\n"
