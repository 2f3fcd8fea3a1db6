"""A run's tables, its samples as CSV and its picture, of figures that are made up."""

from __future__ import annotations

import csv
import io
import re

import pytest

from pocketlm.advise.speed_picture import draw
from pocketlm.advise.speed_tables import console_text, csv_text, markdown_text
from pocketlm.evaluate.speed.limits import Machine
from pocketlm.evaluate.speed.plan import Plan
from pocketlm.evaluate.speed.results import (
    Agreement,
    Failure,
    ModelSpeed,
    Row,
    Samples,
    Speed,
    Traffic,
    label,
    unit,
)

PLAN = Plan(threads=2, prompt=512, generate=128, batch=(16,))
FIGURES = {
    "prefill": {"pocketlm": (4000.0, 3000.4, 5000.0), "llamacpp": (1000.0,) * 3},
    "decode": {"pocketlm": (90.5, 80.25, 100.0), "llamacpp": (60.0,) * 3, "ik": (100.0,) * 3},
    "batch_16": {"pocketlm": (500.0,) * 3, "llamacpp": (100.0,) * 3},
    "first_token": {"pocketlm": (0.4, 0.3, 0.5), "llamacpp": (0.2,) * 3, "ik": (0.6,) * 3},
    "peak_memory": {"pocketlm": (150e6,) * 3, "llamacpp": (300e6,) * 3, "ik": (450e6,) * 3},
}
ENGINES = {"pocketlm": "1.0, avx2", "llamacpp": "xllamacpp 1, AVX2", "ik": "ik 2, AVX2"}


def speed(engines: dict[str, str] = ENGINES, models: int = 1) -> Speed:
    rows = tuple(
        Row(m, label(m, PLAN), unit(m), {n: Samples(v) for n, v in e.items() if n in engines})
        for m, e in FIGURES.items()
    )
    one = ModelSpeed(
        "some|model",
        "Q4_0",
        90_000_000,
        rows,
        (Traffic("decode", 80_000_000, 4_500_000, 0.765),),
        (Agreement("ik", 16, 2),) * ("ik" in engines),
        (Failure("ik", "batch_16", "the process was ended by signal 6: oh"),) * ("ik" in engines),
        Samples((9e9, 10e9, 11e9)),
    )
    machine = Machine("Some CPU", 2, "avx2", "Linux 1")
    return Speed(machine, PLAN, engines, Samples((9e9, 10e9, 11e9)), (one,) * models)


def test_the_markdown() -> None:
    lines = markdown_text(speed()).splitlines()
    assert lines[:6] == [
        "- Some CPU, 2 cores, Linux 1",
        "- 2 threads, KV cache f16, medians of 5 interleaved rounds (smallest to largest)",
        "- memory read: 10.0 GB/s (9.0 to 11.0)",
        "- PocketLM: 1.0, avx2",
        "- llama.cpp: xllamacpp 1, AVX2",
        "- ik_llama.cpp: ik 2, AVX2",
    ]
    start = next(i for i, line in enumerate(lines) if line.startswith("| measure"))
    rows = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[start:][:7]]
    assert rows == [
        ["measure", "in", "PocketLM", "llama.cpp", "ik_llama.cpp", "against the better"],
        ["---", "---", "---:", "---:", "---:", "---:"],
        [
            *("prefill 512", "tokens/s", "4,000 (3,000–5,000)", "1,000 (1,000–1,000)"),
            *("–", "4.00 ×"),
        ],
        [
            *("decode 128", "tokens/s", "90.5 (80.2–100.0)", "60.0 (60.0–60.0)"),
            *("100 (100–100)", "0.91 ×"),
        ],
        ["decode 32 × 16", "tokens/s", "500 (500–500)", "100 (100–100)", "–", "5.00 ×"],
        [
            *("first token", "s", "0.400 (0.300–0.500)", "0.200 (0.200–0.200)"),
            *("0.600 (0.600–0.600)", "0.50 ×"),
        ],
        ["peak memory", "MB", "150 (150–150)", "300 (300–300)", "450 (450–450)", "2.00 ×"],
    ]
    assert lines[-3:] == [
        "- decode 128: 84.5 MB for a token (weights 80.0, KV 4.5), 76 % of the memory read",
        "- ik_llama.cpp goes on with the same token as PocketLM in 2 of 16 prompts",
        "- ik_llama.cpp, decode 32 × 16: the process was ended by signal 6: oh",
    ]


def test_the_console_has_the_cells_of_the_markdown() -> None:
    console = console_text(speed())
    for line in markdown_text(speed()).splitlines():
        for cell in re.split(r"(?<!\\)\|", line.removeprefix("- ").strip("*")):
            if not re.fullmatch(r"[-: ]*", cell):
                assert cell.strip().replace("\\|", "|") in console, cell
    assert console == "".join(line.rstrip() + "\n" for line in console.splitlines())


def test_without_peers_there_are_no_ratios() -> None:
    text = markdown_text(speed({"pocketlm": "1.0, avx2"}))
    assert "| measure | in | PocketLM |\n" in text
    assert "×" not in text.replace("32 × 16", "")


def test_csv_has_every_sample() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(speed(models=2)))))
    assert len(rows) == 2 * sum(len(v) for engines in FIGURES.values() for v in engines.values())
    first = rows[0]
    assert first == {
        "model": "some|model",
        "type": "Q4_0",
        "measure": "prefill",
        "unit": "tokens/s",
        "engine": "pocketlm",
        "round": "1",
        "value": "4000.0",
    }


def test_the_picture() -> None:
    pytest.importorskip("matplotlib")
    picture = draw(speed(models=2), "svg")
    text = picture.decode()
    for shown in ("llama.cpp", "ik_llama.cpp", "some|model (Q4_0)", "decode 32 × 16", "4000"):
        assert text.count(shown) >= 1, shown
    assert picture == draw(speed(models=2), "svg")
    assert draw(speed(), "png").startswith(b"\x89PNG")
