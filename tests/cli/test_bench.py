"""``pocketlm bench``: the table, the files it writes, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.tiny_file import write_tiny_model

from .conftest import Outcome

Run = Callable[..., Outcome]
QUICK = ("-p", "4", "-n", "2", "-d", "0", "--batch", "0", "--rounds", "1", "--threads", "1")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.gguf")


def test_the_table_and_the_files(pocketlm: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    files = ("--csv", out / "s.csv", "--markdown", out / "s.md", "--plot", out / "s.svg")
    done = pocketlm("bench", model, *QUICK, *files)
    assert done.code == 0, done.err
    assert f"{model} (F32, 0 MB)" in done.out
    for label in ("prefill 4", "decode 2", "first token", "peak memory"):
        assert label in done.out
        assert label in (out / "s.md").read_text()
        assert label in (out / "s.svg").read_text()
    assert (out / "s.csv").read_text().startswith("model,type,measure,")


def test_what_was_measured_is_kept_when_a_later_model_fails(
    pocketlm: Run, model: Path, tmp_path: Path
) -> None:
    broken, csv = tmp_path / "broken.gguf", tmp_path / "s.csv"
    broken.write_bytes(b"GGUF")
    done = pocketlm("bench", model, broken, *QUICK, "--csv", csv)
    assert done.code == 1
    assert str(broken) in done.err
    assert f"{model},F32,decode," in csv.read_text()


def test_json_has_the_plan_and_the_samples(pocketlm: Run, model: Path) -> None:
    found = pocketlm("bench", model, *QUICK, "--json").json()
    assert list(found) == ["machine", "plan", "engines", "read_bandwidth", "models"]
    assert (found["plan"]["prompt"], found["plan"]["batch"]) == (4, [])
    rows = {row["measure"]: row for row in found["models"][0]["rows"]}
    assert set(rows) == {"prefill", "decode", "first_token", "peak_memory"}
    samples = rows["decode"]["engines"]["pocketlm"]
    assert samples["values"] == [samples["median"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--batch", "1,x"), "--batch is '1,x'"),
        (("--batch", "2,2"), "names a number twice"),
        (("--against", "vllm"), "no engine 'vllm'"),
        (("--against", "ik,ik"), "named twice"),
        (("--rounds", "0"), "rounds is 0"),
        (("--plot", "speed.pdf"), "should end in .png or .svg"),
    ],
)
def test_what_is_refused(
    pocketlm: Run, model: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = pocketlm("bench", model, *arguments)
    assert done.code == 2
    assert message in done.err
    assert not done.out
