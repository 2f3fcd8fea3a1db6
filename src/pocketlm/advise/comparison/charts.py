"""Bar charts as inline SVG: no scripts, colours from the page's style, a text for every bar.

A chart has a title and a description for readers that do not see it; its figures stand beside the
bars and in the table that the page shows with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _VALUE = 720, 96  # of the picture, of what stands right of the bars
_CHARACTER, _LONGEST = 8.2, 30  # width of one in a label, and the most that a label has
_BAR, _GAP, _GROUP_GAP, _TOP = 16, 3, 12, 10
COLOURS = 8  # classes c0 … c7 of the page's style; more models begin again


@dataclass(frozen=True)
class Chart:
    """Attributes:
    title, description: what it shows.
    groups: labels of the groups of bars.
    series: names of the models.
    values: for each group a value for each model; None where there is none.
    texts: the values as they are written.
    """

    title: str
    description: str
    groups: Sequence[str]
    series: Sequence[str]
    values: Sequence[Sequence[float | None]]
    texts: Sequence[Sequence[str]]


def svg(chart: Chart, name: str) -> str:
    """The picture; ``name`` is unique in the page."""
    largest = max((v for row in chart.values for v in row if v is not None), default=0) or 1
    labels = [g if len(g) <= _LONGEST else g[: _LONGEST - 1] + "…" for g in chart.groups]
    left = round(_CHARACTER * max((len(label) for label in labels), default=0)) + 16
    scale = (_WIDTH - left - _VALUE) / largest
    parts: list[str] = []
    y = _TOP
    rows = zip(chart.groups, labels, chart.values, chart.texts, strict=True)
    for group, label, values, texts in rows:
        shown = [i for i, value in enumerate(values) if value is not None]
        middle = y + len(shown) * (_BAR + _GAP) / 2
        parts.append(f'<text class="group" x="{left - 8}" y="{middle:.1f}">{escape(label)}</text>')
        for i in shown:
            length = max(1.0, (values[i] or 0) * scale)
            text = f"{chart.series[i]}, {group}: {texts[i]}"
            parts.append(
                f'<rect class="c{i % COLOURS}" x="{left}" y="{y}" width="{length:.1f}" '
                f'height="{_BAR}"><title>{escape(text)}</title></rect>'
                f'<text class="value" x="{left + length + 5:.1f}" y="{y + _BAR / 2:.1f}">'
                f"{escape(texts[i])}</text>"
            )
            y += _BAR + _GAP
        y += _GROUP_GAP
    return (
        f'<svg viewBox="0 0 {_WIDTH} {y}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escape(chart.title)}</title>'
        f'<desc id="{name}-d">{escape(chart.description)}</desc>{"".join(parts)}</svg>'
    )


def legend(series: Sequence[str]) -> str:
    """Which colour is which model; the order is that of the bars, so colour alone says nothing."""
    items = (
        f'<li><span class="key c{i % COLOURS}"></span>{escape(name)}</li>'
        for i, name in enumerate(series)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'
