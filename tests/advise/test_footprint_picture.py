"""The picture: its formats, that it shows what it should, and what is said where it cannot be."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from pocketlm.advise.footprint import Footprint
from pocketlm.advise.footprint_picture import draw, picture_format, require_matplotlib
from pocketlm.errors import RequestError, UnsupportedError

MB = 1_000_000
HALF = Footprint(
    model="small:1m",
    type="F16",
    on_disk=True,
    requantized=False,
    file=100 * MB,
    parameters=50 * MB,
    bits_per_weight=16.0,
    reduction=0.0,
    weights=99 * MB,
    kv_per_1k=10 * MB,
    kv=40 * MB,
    workspace=8 * MB,
    tokenizer=15 * MB,
    context=4096,
    peak=210 * MB,
    measured_file=100 * MB,
    measured_peak=205 * MB,
)
QUARTER = replace(
    HALF,
    type="Q4_0",
    on_disk=False,
    file=28 * MB,
    bits_per_weight=4.48,
    reduction=0.72,
    weights=29 * MB,
    peak=140 * MB,
    measured_file=None,
    measured_peak=None,
)


def test_png() -> None:
    data = draw([HALF, QUARTER], "png")
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    assert 900 < width < 2400
    assert 600 < height < 2400


def test_svg_says_what_it_shows() -> None:
    other = [replace(one, model="large:1b", peak=30 * one.peak) for one in (HALF, QUARTER)]
    picture = draw([HALF, QUARTER, *other], "svg")
    texts = {text.strip() for text in ElementTree.fromstring(picture).itertext() if text.strip()}
    assert {"F16 (on disk)", "Q4_0", "4.5 bits", "-72 %", "as F16", "28", "MB", "GB"} <= texts
    assert {"small:1m, context 4,096", "large:1b, context 4,096"} <= texts
    assert {"file on disk", "KV cache", "file in F16", "peak memory, measured"} <= texts
    assert "4.20" in texts  # GB, the peak of the large one


def test_the_same_footprints_make_the_same_file() -> None:
    for format in ("png", "svg"):
        assert draw([HALF, QUARTER], format) == draw([HALF, QUARTER], format)


def test_formats() -> None:
    assert picture_format(Path("a/b.PNG")) == "png"
    assert picture_format(Path("b.svg")) == "svg"
    for name in ("b.pdf", "png", "b"):
        with pytest.raises(RequestError, match=r"\.png or \.svg"):
            picture_format(Path(name))


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match="matplotlib") as error:
        draw([HALF], "png")
    assert "pocketlm[plot]" in str(error.value)
    with pytest.raises(UnsupportedError):
        require_matplotlib()
