"""The picture of a run of ``pocketlm bench``: for each model the engines' bars, measure by measure.

Bars are shares of PocketLM's median, so that measures of any size stand side by side; the lines on
them are the spread. matplotlib is used as in ``footprint_picture``.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from pocketlm.advise.footprint_picture import Format, require_matplotlib
from pocketlm.advise.speed_tables import title
from pocketlm.evaluate.speed.contenders import OURS
from pocketlm.evaluate.speed.results import ModelSpeed, Speed

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # type: ignore[import-not-found,unused-ignore]

# Of Okabe and Ito's palette, as in ``footprint_picture``.
_COLOURS = {OURS: "#0072B2", "llamacpp": "#E69F00", "llamacpp-nofa": "#D55E00", "ik": "#009E73"}
_WIDTH = 0.8  # of the bars of a measure together, where measures are 1 apart


def draw(speed: Speed, format: Format) -> bytes:
    """The picture as a file's bytes; the same run gives the same bytes.

    Raises UnsupportedError where matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib  # type: ignore[import-not-found,unused-ignore]
    from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]

    with matplotlib.rc_context({"svg.hashsalt": "pocketlm", "svg.fonttype": "none"}):
        most = max(len(model.rows) for model in speed.models)
        size = (max(6.5, 1.2 + 1.25 * most), 0.7 + 3.2 * len(speed.models))
        figure = Figure(figsize=size, layout="constrained")
        for number, model in enumerate(speed.models):
            _panel(figure.add_subplot(len(speed.models), 1, number + 1), model, list(speed.engines))
        shown = {
            label: handle
            for axes in figure.axes
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(
            shown.values(), shown.keys(), loc="outside upper center", ncols=3, frameon=False
        )
        out = io.BytesIO()
        metadata: dict[str, Any] = {"Date": None} if format == "svg" else {"Software": None}
        figure.savefig(out, format=format, dpi=150, metadata=metadata)
    return out.getvalue()


def _panel(axes: Axes, model: ModelSpeed, engines: list[str]) -> None:
    width = _WIDTH / max(3, len(engines))
    for number, engine in enumerate(engines):
        shift = (number - (len(engines) - 1) / 2) * width
        for place, row in enumerate(model.rows):
            if engine not in row.engines:
                continue
            ours, samples = row.engines[OURS].median, row.engines[engine]
            bar = axes.bar(
                place + shift,
                samples.median / ours,
                width,
                yerr=[
                    [(samples.median - samples.least) / ours],
                    [(samples.most - samples.median) / ours],
                ],
                color=_COLOURS.get(engine),
                error_kw={"elinewidth": 0.8},
                label=title(engine),
            )
            axes.bar_label(bar, [_number(samples.median, row.unit)], fontsize=6.5, padding=2)
    axes.axhline(1, color="#888888", linewidth=0.6, zorder=0)
    ticks = [f"{row.label}\n{'MB' if row.unit == 'bytes' else row.unit}" for row in model.rows]
    axes.set_xticks(range(len(ticks)), ticks, fontsize=7.5)
    axes.set_ylabel("PocketLM = 1")
    axes.margins(x=0.02, y=0.14)
    axes.set_title(f"{model.model} ({model.type})", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _number(value: float, unit: str) -> str:
    return {"s": f"{value:.2f}", "bytes": f"{value / 1e6:.0f}"}.get(unit, f"{value:.0f}")
