"""``pocketlm recommend`` and ``pocketlm plan``: what they print, and what exit codes they have."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from advise.recommend.devices import VM
from advise.recommend.simple import simple_performance as simple_performance
from engine.tiny_file import write_tiny_model
from pocketlm.advise.device import to_json
from pocketlm.cli.main import VERBS

from .conftest import Outcome

Run = Callable[..., Outcome]
simple = pytest.mark.usefixtures("simple_performance")


@pytest.fixture
def vm(tmp_path: Path) -> Path:
    """A machine of two cores as ``pocketlm device --json`` wrote it."""
    path = tmp_path / "vm.json"
    path.write_text(to_json(VM), "utf-8")
    return path


@simple
def test_what_to_take_and_why(pocketlm: Run, vm: Path) -> None:
    done = pocketlm("recommend", "--device", vm, "--use", "chat-mobile", "--limit", "2")
    assert done.code == 0
    title, memory, limits, _, first, *rest = done.out.splitlines()
    assert title.startswith("chat on a phone, on vm-2-cores (Test CPU, 2 cores, 24.00 GiB of RAM)")
    assert "usable: 24.0 GiB less 1.0 GiB for the system and other programs" in memory
    assert "context 2,048; at least 5.3 tokens/s" in limits
    assert first.startswith("1. ")
    text = "\n".join(rest)
    assert text.count("\n   do       pocketlm ") == 2
    for part in ("   why ", "   speed    ", "   memory   ", "more fit: ", "ruled out: ", "points"):
        assert part in text
    assert "rule '" not in text


@simple
def test_explain_tells_every_rule_and_form(pocketlm: Run, vm: Path) -> None:
    done = pocketlm("recommend", "--device", vm, "--explain", "--limit", "1")
    for part in ("rule 'score': ", "   also     ", "--explain tells all"):
        assert (part in done.out) == (part != "--explain tells all")


def test_json_has_the_same(pocketlm: Run, vm: Path) -> None:
    found = pocketlm("recommend", "--device", vm, "--json", "--limit", "1").json()
    (ranked,) = found["ranked"]
    best = ranked["best"]
    assert best["points"] == pytest.approx(sum(one["points"] for one in best["reasons"]))
    assert best["prediction"]["peak"] <= found["memory"]
    assert found["device"]["name"] == "vm-2-cores"


@simple
def test_json_of_everything_with_explain(pocketlm: Run, vm: Path) -> None:
    few = pocketlm("recommend", "--device", vm, "--json").json()
    everything = pocketlm("recommend", "--device", vm, "--json", "--explain").json()
    assert everything["ranked"][:3] == few["ranked"]
    assert len(everything["ranked"]) > 3


@simple
def test_the_commands_are_verbs_that_exist(pocketlm: Run, vm: Path) -> None:
    found = pocketlm("recommend", "--device", vm, "--json", "--explain").json()
    for ranked in found["ranked"]:
        for choice in (ranked["best"], *ranked["others"]):
            for command in choice["commands"]:
                program, verb, *_ = shlex.split(command)
                assert program == "pocketlm"
                assert verb in VERBS


@simple
def test_where_nothing_is_left_it_says_what_to_relax(pocketlm: Run, vm: Path) -> None:
    arguments = ["recommend", "--device", vm, "--ram", "256MB", "--min-speed", "1"]
    done = pocketlm(*arguments)
    assert done.code == 1
    assert "ruled out: " in done.out
    assert "no model of the catalog keeps every limit" in done.err
    assert "GiB of RAM instead of 0.2 (--ram " in done.err
    typed = done.err.partition("(--ram ")[2].partition(")")[0]
    assert pocketlm("recommend", "--device", vm, "--ram", typed, "--min-speed", "1").code == 0
    told = pocketlm(*arguments, "--json")
    assert told.code == 1
    assert not told.json()["ranked"]
    assert told.json()["relax"][0]["changes"][0]["option"] == "ram"


@simple
@pytest.mark.parametrize(
    ("option", "value", "code", "message"),
    [
        ("--use", "code", 1, "Did you mean 'coding'?"),
        ("--device", "raspi", 1, "raspberry-pi"),
        ("--lang", "spansh", 1, "'spanish'"),
        ("--license", "apache", 1, "'apache-2.0'"),
        ("--ram", "much", 2, "such as 6GiB"),
        ("--context", "long", 2, "such as 8192 or 8k"),
        ("--min-speed", "-1", 2, "above 0"),
        ("--limit", "0", 2, "--limit"),
    ],
)
def test_refusals(
    pocketlm: Run, vm: Path, option: str, value: str, code: int, message: str
) -> None:
    device = [] if option == "--device" else ["--device", vm]
    done = pocketlm("recommend", *device, option, value)
    assert (done.code, done.out) == (code, "")
    assert message in done.err


def test_a_plan_of_a_model_of_the_catalog(pocketlm: Run, vm: Path) -> None:
    done = pocketlm("plan", "qwen3:0.6b", "--device", vm)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "qwen3:0.6b (Micro, 596M parameters, apache-2.0)"
    (best,) = (line for line in lines if line.endswith("  best"))
    assert best.split()[0] in lines[-1]
    assert " && pocketlm serve " in lines[-1]
    found = pocketlm("plan", "qwen3:0.6b", "--device", vm, "--kv", "q8", "--json").json()
    assert found["kv"] == "q8"
    assert all(form["fits"] for form in found["forms"])


@simple
def test_a_plan_of_a_file(pocketlm: Run, vm: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf")
    found = pocketlm("plan", model, "--device", vm, "--json").json()
    by_type = {form["type"]: form for form in found["forms"]}
    assert by_type["F32"]["commands"] == [f"pocketlm serve {model} --context 256"]
    quantize, serve = by_type["Q8_0"]["commands"]
    assert quantize == f"pocketlm quantize {model} tiny-q8_0.gguf Q8_0"
    assert serve == "pocketlm serve tiny-q8_0.gguf --context 256"
    again = pocketlm("plan", model, "--device", vm, "--context", "257")
    assert again.code == 2
    assert "made for 256" in again.err


@simple
def test_a_plan_that_does_not_fit(pocketlm: Run, vm: Path) -> None:
    done = pocketlm("plan", "phi4:14b", "--device", vm, "--ram", "2GB")
    assert done.code == 1
    assert "fits in no type" in done.err
    typed = done.err.partition("(--ram ")[2].partition(")")[0]
    assert pocketlm("plan", "phi4:14b", "--device", vm, "--ram", typed).code == 0
