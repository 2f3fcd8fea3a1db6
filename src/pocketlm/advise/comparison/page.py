"""A comparison as one HTML file that needs nothing else: no scripts, no fonts, no other address.

Every text is escaped, and the file's own policy (CSP) forbids it to load or run anything, so what a
model's file or an endpoint says can do nothing in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape

from pocketlm.advise.comparison.charts import Chart, legend, svg
from pocketlm.advise.comparison.layout import NONE, Table, in_type, tables
from pocketlm.advise.comparison.records import Comparison, Sized
from pocketlm.advise.comparison.trying import Tried

_NAMED = 4  # models that the page's title has the names of
_STYLE = """
:root{color-scheme:light dark;--ground:#fff;--text:#1b1d22;--soft:#5b6270;--line:#d9dce3;
--c0:#2f6fde;--c1:#c4572b;--c2:#2b8a57;--c3:#8a4fc7;--c4:#a87a00;--c5:#c03a6b;--c6:#12808c;--c7:#666c78}
@media(prefers-color-scheme:dark){:root{--ground:#15171c;--text:#e8eaef;--soft:#a3aab8;--line:#343945;
--c0:#7da8ff;--c1:#f0936a;--c2:#66c794;--c3:#bd94f0;--c4:#dcb64a;--c5:#f083a8;--c6:#5cc3cf;--c7:#a9afbb}}
body{margin:0 auto;max-width:64rem;padding:1.5rem;background:var(--ground);color:var(--text);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}p{color:var(--soft)}
.wide{overflow-x:auto}table{border-collapse:collapse;min-width:100%}
caption{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
th,td{padding:.3rem .7rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
.numbers td,.numbers thead th{text-align:right;font-variant-numeric:tabular-nums}
th{font-weight:600}svg{width:100%;height:auto;margin:.8rem 0}
svg text{font:13px system-ui,sans-serif;fill:var(--text);dominant-baseline:central}
svg .group{text-anchor:end}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;padding:0}
.key{display:inline-block;width:.8rem;height:.8rem;margin-right:.4rem;vertical-align:-.05rem}
.answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(16rem,1fr));gap:1rem}
.answers article{border:1px solid var(--line);border-radius:.4rem;padding:.2rem 1rem}
.answers pre{white-space:pre-wrap;overflow-wrap:anywhere;font:inherit}
""" + "".join(f"rect.c{i}{{fill:var(--c{i})}}.key.c{i}{{background:var(--c{i})}}" for i in range(8))


def page(found: Comparison, *, prompt: str | None = None, tried: Sequence[Tried] = ()) -> str:
    """The whole file."""
    names = [subject.name for subject in found.subjects]
    of = ", ".join(names) if len(names) <= _NAMED else f"{len(names)} models"
    title = escape(f"Comparison of {of}")
    charts = dict(_charts(found))
    parts = []
    for number, table in enumerate(tables(found)):
        parts.append(f'<section aria-labelledby="h{number}"><h2 id="h{number}">')
        parts.append(f"{escape(table.title)}</h2>")
        if table.title in charts:
            parts.append(legend(names) + svg(charts[table.title], f"chart{number}"))
        parts.append(_table(table))
        parts.append((f"<p>{escape(table.note)}</p>" if table.note else "") + "</section>")
    if prompt is not None:
        parts.append(_answers(prompt, tried))
    notes = [f"{s.name}: {note}" for s in found.subjects for note in s.notes] + list(found.notes)
    if notes:
        parts.append(f"<h2>Notes</h2><ul>{''.join(f'<li>{escape(n)}</li>' for n in notes)}</ul>")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n"
        f"<body><main><h1>{title}</h1>\n{chr(10).join(parts)}\n</main></body></html>\n"
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.head)
    rows = "".join(
        f'<tr><th scope="row">{escape(label)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for label, cells in table.rows
    )
    kind = ' class="numbers"' if table.numbers else ""
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(table.title)}">'
        f"<table{kind}><caption>{escape(table.title)}</caption>"
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _charts(found: Comparison) -> Iterator[tuple[str, Chart]]:
    """By the title of the table that has the same figures."""
    by_title = {table.title: table for table in tables(found)}
    sized: tuple[tuple[str, str, Callable[[Sized], float | None]], ...] = (
        ("File size", "Size of each model's file in each type.", lambda s: s.file),
        ("Memory", "Memory that each model takes in each type.", lambda s: s.peak),
        ("Decode, tokens/s", "Predicted speed of writing, by type.", lambda s: s.decode),
        ("Prefill, tokens/s", "Predicted speed of reading, by type.", lambda s: s.prefill),
    )
    for title, description, value in sized:
        if title in by_title:
            yield title, _by_type(found, by_title[title], description, value)
    for table in found.scores:
        title = f"Published scores: {table.name}"
        drawn = by_title[title]
        yield (
            title,
            Chart(
                title,
                f"Scores of each model by {table.evaluator}; more is better.",
                [label for label, _ in drawn.rows],
                drawn.head,
                [row.values for row in table.rows],
                [cells for _, cells in drawn.rows],
            ),
        )
    if "Measured on this device" in by_title:
        rows = by_title["Measured on this device"].rows[:2]
        values = [
            [None if cell == NONE else float(cell.replace(",", "")) for cell in cells]
            for _, cells in rows
        ]
        yield (
            "Measured on this device",
            Chart(
                "Measured speed",
                "Tokens per second of reading a prompt and of writing; more is better.",
                [label.partition(",")[0] for label, _ in rows],
                by_title["Measured on this device"].head,
                values,
                [cells for _, cells in rows],
            ),
        )


def _by_type(
    found: Comparison, table: Table, description: str, value: Callable[[Sized], float | None]
) -> Chart:
    def of(sized: Sized | None) -> float | None:
        return None if sized is None else value(sized)

    labels = [label for label, _ in table.rows]
    return Chart(
        table.title,
        description,
        labels,
        table.head,
        [[of(in_type(subject, label)) for subject in found.subjects] for label in labels],
        [cells for _, cells in table.rows],
    )


def _answers(prompt: str, tried: Sequence[Tried]) -> str:
    articles = "".join(
        f"<article><h3>{escape(one.name)}</h3><pre>{escape(one.text)}</pre>"
        f"<p>{escape(one.cost)}</p></article>"
        for one in tried
    )
    return (
        f"<section><h2>Answers</h2><p>Asked: {escape(prompt)}</p>"
        f'<div class="answers">{articles}</div></section>'
    )
