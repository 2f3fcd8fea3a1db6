"""The picture of a footprint: grouped bars for each type, one panel for each model.

matplotlib is the ``plot`` extra and is imported when a picture is drawn. Its figure is used without
pyplot, so nothing depends on a display or on what the caller draws.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pocketlm.advise.footprint import Footprint
from pocketlm.errors import RequestError, UnsupportedError

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # type: ignore[import-not-found,unused-ignore]

Format = Literal["png", "svg"]

# Okabe and Ito's palette, which people with every kind of colour vision tell apart.
_BARS = (
    ("file", "file on disk", "#0072B2"),
    ("weights", "weights in memory", "#56B4E9"),
    ("kv", "KV cache", "#E69F00"),
    ("peak", "peak memory, predicted", "#009E73"),
)
_F16, _MEASURED = "#D55E00", "#000000"
_WIDTH = 0.2  # of a bar, where types are 1 apart


def picture_format(path: Path) -> Format:
    """The format that a file's name asks for. Raises RequestError for another."""
    suffix = path.suffix.lower().removeprefix(".")
    for known in get_args(Format):
        if suffix == known:
            return known  # type: ignore[no-any-return]
    raise RequestError(f"'{path.name}' should end in .png or .svg")


def require_matplotlib() -> None:
    """Raises UnsupportedError where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UnsupportedError(
            "drawing needs matplotlib, which is not installed",
            hint="Install it with: pip install 'pocketlm[plot]'.",
        )


def draw(footprints: Sequence[Footprint], format: Format) -> bytes:
    """The picture as a file's bytes; the same footprints give the same bytes.

    Raises UnsupportedError where matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib  # type: ignore[import-not-found,unused-ignore]
    from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]

    models = list(dict.fromkeys(one.model for one in footprints))
    most = max(sum(one.model == model for one in footprints) for model in models)
    # Text stays text in an SVG: small, searchable, and in the reader's font.
    with matplotlib.rc_context({"svg.hashsalt": "pocketlm", "svg.fonttype": "none"}):
        size = (max(6.5, 1.6 + 1.05 * most), 0.7 + 3.9 * len(models))
        figure = Figure(figsize=size, layout="constrained")
        for number, model in enumerate(models):
            axes = figure.add_subplot(len(models), 1, number + 1)
            _panel(axes, [one for one in footprints if one.model == model])
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


def _panel(axes: Axes, rows: Sequence[Footprint]) -> None:
    """The bars of one model, with the size of its F16 file as a line."""
    unit, name = (1e9, "GB") if max(one.peak for one in rows) >= 2e9 else (1e6, "MB")
    places = range(len(rows))
    for bar, (field, label, colour) in enumerate(_BARS):
        shift = (bar - (len(_BARS) - 1) / 2) * _WIDTH
        heights = [getattr(one, field) / unit for one in rows]
        drawn = axes.bar([x + shift for x in places], heights, _WIDTH, label=label, color=colour)
        texts = [f"{h:.2f}" if unit == 1e9 else f"{h:.0f}" for h in heights]
        for text in axes.bar_label(drawn, texts, fontsize=6.5, padding=2, rotation=90):
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.6})
    half = rows[0].file / (1 - rows[0].reduction) / unit
    axes.axhline(half, color=_F16, linestyle="--", linewidth=1, label="file in F16", zorder=0)
    measured = [(x, one.measured_peak) for x, one in enumerate(rows) if one.measured_peak]
    if measured:
        axes.plot(
            [x + 2.2 * _WIDTH for x, _ in measured],  # beside its bar
            [peak / unit for _, peak in measured],
            linestyle="none",
            marker="D",
            markersize=4,
            color=_MEASURED,
            label="peak memory, measured",
        )
    axes.set_xticks(list(places), [_tick(one) for one in rows], fontsize=8)
    axes.set_ylabel(name)
    axes.margins(x=0.02, y=0.14)
    model = Path(rows[0].model)
    title = model.name if model.exists() else rows[0].model
    axes.set_title(f"{title}, context {rows[0].context:,}", fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def _tick(one: Footprint) -> str:
    where = " (on disk)" if one.on_disk else ""
    percent = round(-100 * one.reduction)
    smaller = f"{percent:+} %" if percent else "as F16"
    return f"{one.type}{where}\n{one.bits_per_weight:.1f} bits\n{smaller}"
