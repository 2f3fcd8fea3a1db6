"""The page of a comparison: whole by itself, escaped, and readable without seeing it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

from advise.comparison.example import EXAMPLE, HERE
from pocketlm.advise.comparison.charts import Chart, svg
from pocketlm.advise.comparison.layout import tables
from pocketlm.advise.comparison.page import page
from pocketlm.advise.comparison.records import Comparison
from pocketlm.advise.comparison.trying import Cost, Tried

EVIL = "<script>alert(1)</script>\"' & </title><img src=x>"
VOID = {"meta", "img", "link", "br", "input"}


class Page(HTMLParser):
    """Everything in a page: elements with their attributes, texts. All has to be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_it_needs_nothing_else() -> None:
    """No script, no address, nothing that loads, and a policy that would forbid it."""
    text = page(EXAMPLE)
    found = Page(text)
    names = {name for name, _ in found.elements}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "form", "a", "base"}
    for _, attributes in found.elements:
        assert not set(attributes) & {"src", "href", "srcset", "xlink:href", "data", "action"}
        assert not any(name.startswith("on") for name in attributes)
    style = "".join(re.findall(r"<style>(.*?)</style>", text, re.S))
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [m["content"] for m in found.all("meta") if "http-equiv" in m]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert re.findall(r"https?://[^\s<\"]+", text) == ["https://example.org/report"]  # a text


def test_every_text_is_escaped() -> None:
    evil = replace(
        HERE, name=EVIL, family=EVIL, licence=EVIL, languages=(EVIL,), notes=(EVIL,),
        quantization=EVIL, sizes=(replace(HERE.sizes[0], type=EVIL),),
    )  # fmt: skip
    table = replace(EXAMPLE.scores[0], name=EVIL, evaluator=EVIL, source=EVIL)
    comparison = Comparison((evil,), 4096, "f16", EVIL, (table,), (EVIL,))
    table_rows = tuple(replace(row, values=row.values[:1]) for row in table.rows)
    comparison = replace(comparison, scores=(replace(table, rows=table_rows),))
    tried = [Tried(EVIL, EVIL, Cost(1, 1.0, 1.0, EVIL)), Tried(EVIL, "", None, EVIL)]
    text = page(comparison, prompt=EVIL, tried=tried)
    found = Page(text)
    assert not found.all("script")
    assert not found.all("img")
    assert "<script" not in text
    assert sum(EVIL in part for part in found.texts) > 10


def test_it_can_be_read_without_seeing_it() -> None:
    text = page(EXAMPLE)
    found = Page(text)
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    pictures = found.all("svg")
    assert len(pictures) == 6  # sizes, memory, two speeds, measured, scores
    for picture in pictures:
        assert picture["role"] == "img"
        assert set(str(picture["aria-labelledby"]).split()) <= set(ids)
    assert len(found.all("table")) == len(found.all("caption")) == len(tables(EXAMPLE))
    assert all(cell["scope"] in ("row", "col") for cell in found.all("th"))
    assert found.all("html") == [{"lang": "en"}]
    # Each chart's figures stand in a table, too.
    for part in re.findall(r"<section.*?</section>", text, re.S):
        if "<svg" in part:
            for value in re.findall(r'<text class="value"[^>]*>([^<]+)<', part):
                assert f"<td>{value}</td>" in part


def test_light_and_dark() -> None:
    text = page(EXAMPLE)
    assert "color-scheme:light dark" in text
    assert "prefers-color-scheme:dark" in text
    for name in ("ground", "text", "soft", "line", *(f"c{i}" for i in range(8))):
        assert text.count(f"--{name}:#") == 2


def test_bars_are_as_long_as_their_values() -> None:
    chart = Chart(
        "t", "d", ["a", "b"], ["x", "y"], [[100.0, 50.0], [None, 0.0]],
        [["100", "50"], ["–", "0"]],
    )  # fmt: skip
    drawn = svg(chart, "c")
    widths = [float(w) for w in re.findall(r'<rect[^>]* width="([\d.]+)"', drawn)]
    assert widths[1] * 2 == widths[0]
    assert widths[2] == 1.0
    assert len(widths) == 3
    assert "<title>y, a: 50</title>" in drawn
    assert svg(replace(chart, values=[[0.0, 0.0]] * 2), "c")  # nothing to scale by


def test_answers_stand_beside_each_other() -> None:
    tried = [Tried("x", "one\ntwo", Cost(2, 0.1, 9.0, "stop")), Tried("y", "", None, "no memory")]
    found = Page(page(EXAMPLE, prompt="Why?", tried=tried))
    assert len(found.all("article")) == 2
    assert {"Asked: Why?", "one\ntwo", "failed: no memory"} <= set(found.texts)
