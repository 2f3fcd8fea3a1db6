"""Plan, footprint and compare of a model that is neither here nor in the catalog."""

from __future__ import annotations

from pathlib import Path

import pytest

from convert.tiny_folder import write_llama
from engine.tiny_file import write_tiny_model
from pocketlm.advise.comparison.comparison import compare
from pocketlm.advise.footprint import footprint
from pocketlm.advise.recommend import plan
from pocketlm.errors import SourceError
from pocketlm.quantize.quantization import quantize
from pocketlm.store import Store
from store.local_server import LocalServer, hub_repo

DEVICE = "raspberry-pi-5-8gb"  # which needs no probe


@pytest.fixture
def gguf(local_hub: LocalServer, tmp_path: Path) -> Path:
    path = write_tiny_model(tmp_path / "tiny.gguf")
    hub_repo(local_hub, "o/tiny-1.5M", {"tiny.gguf": path.read_bytes()})
    return path


@pytest.fixture
def folder(local_hub: LocalServer, tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    folder = write_llama(tmp_path / "folder")
    hub_repo(local_hub, "o/r", {path.name: path.read_bytes() for path in folder.iterdir()})
    return folder


def test_a_plan_is_that_of_the_file_and_begins_with_the_pull(gguf: Path) -> None:
    found, there = plan("hf:o/tiny-1.5M", device=DEVICE), plan(str(gguf), device=DEVICE)
    assert [form.type for form in found.forms] == [form.type for form in there.forms]
    assert [form.prediction for form in found.forms] == [form.prediction for form in there.forms]
    assert (found.parameters, found.trained) == (there.parameters, there.trained)
    assert found.licence == "apache-2.0"
    made = next(form for form in found.forms if form.made)
    assert made.commands[0] == "pocketlm pull hf:o/tiny-1.5M"
    assert f"tiny-1.5m-{made.type}.gguf".lower() in made.commands[1]
    assert not Store().list()


def test_a_quantized_file_is_planned_as_it_is(local_hub: LocalServer, gguf: Path) -> None:
    made = quantize(gguf, gguf.with_name("q.gguf"), "Q4_K_M")
    hub_repo(local_hub, "o/q", {"q.gguf": made.path.read_bytes()})
    (form,) = plan("hf:o/q:q.gguf", device=DEVICE).forms
    assert (form.type, form.made, form.prediction.file) == ("Q4_K_M", False, made.size)
    assert form.commands[0] == "pocketlm pull hf:o/q:q.gguf"


def test_a_footprint_is_of_the_files_on_the_hub(folder: Path) -> None:
    first, half = footprint("hf:o/r", ["F16"])
    assert (first.type, first.where, first.on_disk, first.measured_file) == (
        "F32", "hub", False, None,
    )  # fmt: skip
    assert first.file > half.file
    assert half.file == pytest.approx(footprint(folder, ["F16"])[1].file, abs=20_000)


def test_a_comparison_has_facts_and_sizes(folder: Path) -> None:
    hub, here = compare(["hf:o/r", str(folder)], types=["Q8_0"], device=DEVICE).subjects
    assert (hub.where, here.where, hub.gated) == ("hub", "here", False)
    for fact in ("parameters", "family", "quantization", "context", "layers", "hidden"):
        assert getattr(hub, fact) == getattr(here, fact)
    assert [(one.type, one.on_disk) for one in hub.sizes] == [("F32", False), ("Q8_0", False)]
    assert [one.weights for one in hub.sizes] == [one.weights for one in here.sizes]


def test_a_comparison_has_facts_where_pocketlm_does_not_run_it(
    local_hub: LocalServer, tmp_path: Path
) -> None:
    folder = write_llama(tmp_path, architectures=["FooForCausalLM"])
    hub_repo(local_hub, "o/r", {path.name: path.read_bytes() for path in folder.glob("*.*")})
    (subject,) = compare(["hf:o/r"], device=DEVICE).subjects
    assert subject.parameters
    assert not subject.sizes
    assert "FooForCausalLM" in subject.notes[0]


def test_what_is_in_the_catalog_or_here_is_not_asked_for(
    local_hub: LocalServer, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan("hf:google/gemma-3-270m-it", device=DEVICE)
    compare(["hf:google/gemma-3-270m-it"], device=DEVICE)
    assert not local_hub.requests
    Store().pull("hf:o/tiny-1.5M")
    monkeypatch.setenv("POCKETLM_OFFLINE", "1")
    assert plan("hf:o/tiny-1.5M", device=DEVICE).forms
    with pytest.raises(SourceError, match="PocketLM is offline"):
        plan("hf:o/other", device=DEVICE)
