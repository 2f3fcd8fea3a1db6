"""``pocketlm footprint``: the table, the files it writes, and what it refuses."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.tiny_file import write_tiny_model
from pocketlm.advise.footprint import DEFAULT_TYPES, footprint
from pocketlm.store import Store
from store.local_server import LocalServer, hub_repo

from .conftest import Outcome

Run = Callable[..., Outcome]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.gguf")


def test_the_table(pocketlm: Run, model: Path) -> None:
    done = pocketlm("footprint", model)
    assert done.code == 0
    title, head, *rows = done.out.splitlines()
    assert title == f"{model}, context 256"
    assert head.split() == [
        "TYPE",
        "FILE",
        "BITS/WEIGHT",
        "VS",
        "F16",
        "WEIGHTS",
        "KV/1K",
        "PEAK",
        "NOTE",
    ]
    assert [row.split()[0] for row in rows] == ["F32", *DEFAULT_TYPES]
    assert rows[0].endswith("on disk")
    for row, one in zip(rows[1:], footprint(model)[1:], strict=True):
        change = "same" if one.type == "F16" else f"{-100 * one.reduction:.1f} %"
        assert f"  {one.bits_per_weight:.2f} " in row
        assert f"  {change}  " in row


def test_json_is_what_python_gives(pocketlm: Run, model: Path) -> None:
    found = pocketlm("footprint", model, "--types", "q4_0, Q8_0", "--context", "64", "--json")
    assert found.json() == [vars(one) for one in footprint(model, ["Q4_0", "Q8_0"], context=64)]


def test_csv_and_pictures(pocketlm: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    other = Path(shutil.copy(model, tmp_path / "other.gguf"))
    arguments = [
        model,
        other,
        model,
        "--types",
        "Q4_0",
        "--csv",
        out / "t.csv",
        "--plot",
        out / "t.svg",
    ]
    assert pocketlm("footprint", *arguments).code == 0
    rows = list(csv.DictReader(io.StringIO((out / "t.csv").read_text())))
    assert [row["type"] for row in rows] == ["F32", "Q4_0"] * 2
    assert int(rows[0]["file"]) == int(rows[0]["measured_file"]) == model.stat().st_size
    assert rows[1]["measured_file"] == ""
    assert "Q4_0" in (out / "t.svg").read_text()
    assert {file.name for file in out.iterdir()} == {"t.csv", "t.svg"}


def test_measured_beside_predicted(pocketlm: Run, model: Path) -> None:
    (found,) = pocketlm("footprint", model, "--types", "none", "--measure", "--json").json()
    # of a model of kilobytes this is the process: the interpreter, libraries and a prompt
    assert found["peak"] == pytest.approx(found["measured_peak"], rel=0.2)
    table = pocketlm("footprint", model, "--types", "Q4_0", "--measure").out.splitlines()
    assert "MEASURED" in table[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--types", "Q9"], "no file type 'Q9'"),
        (["--types", ","], "names no file type"),
        (["--context", "257"], "made for 256"),
        (["--plot", "t.pdf"], "t.pdf"),
        (["--plot", "no/such/t.png"], "cannot write"),
        (["--csv", "no/such/t.csv"], "cannot write"),
    ],
)
def test_refusals(
    arguments: list[str],
    message: str,
    pocketlm: Run,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    done = pocketlm("footprint", model, *arguments)
    assert done.code == 2
    assert message in done.err
    assert not done.out
    assert set(tmp_path.iterdir()) == before


def test_an_unknown_model(pocketlm: Run) -> None:
    done = pocketlm("footprint", "nothing:here")
    assert done.code == 1
    assert "nothing:here" in done.err


def test_a_model_of_the_catalog_is_not_pulled(pocketlm: Run) -> None:
    done = pocketlm("footprint", "gemma3:1b", "--types", "Q4_0")
    assert done.code == 0
    title, _, published, made = done.out.splitlines()
    assert title == "gemma3:1b, context 4,096, from the catalog"
    assert published.startswith("BF16")
    assert published.endswith("as published")
    assert made.split()[0] == "Q4_0"
    assert "pulled" not in done.err
    refused = pocketlm("footprint", "granite4:350m")
    assert refused.code == 1
    assert "not one that PocketLM runs" in refused.err


def test_a_model_of_the_hub_is_not_downloaded(
    pocketlm: Run, model: Path, local_hub: LocalServer
) -> None:
    hub_repo(local_hub, "o/r", {"m.gguf": model.read_bytes()})
    done = pocketlm("footprint", "hf:o/r", "--types", "Q8_0")
    assert done.code == 0
    title, _, own, _ = done.out.splitlines()
    assert title == "hf:o/r, context 256, from the hub"
    assert own.endswith("as published")
    assert not Store().list()
    planned = pocketlm("plan", "hf:o/r", "--device", "raspberry-pi-5-8gb")
    assert planned.code == 0
    assert "pocketlm pull hf:o/r && " in planned.out
    compared = pocketlm("compare", "hf:o/r", "--device", "raspberry-pi-5-8gb", "--types", "Q8_0")
    assert "on the hub, F32" in compared.out
