"""From a model to a quantized file on a tiny model, through ``pocketlm.quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pocketlm
from engine.tiny_file import write_tiny_model
from pocketlm.gguf import BlockType, GGUFFile
from pocketlm.progress import Progress
from pocketlm.quantize.importance import Importance
from pocketlm.quantize.schedule import Schedule

OPTIONS: dict[str, Any] = {"threads": 1}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bytes are tokens here: 12 windows of the model's context of 256."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    rng = np.random.default_rng(0)
    words = ["".join(chr(97 + c) for c in rng.integers(0, 26, 5)) for _ in range(520)]
    path.write_text(" ".join(words), encoding="utf-8")
    return path


def metadata(path: Path) -> dict[str, Any]:
    with GGUFFile.open(path) as file:
        return dict(file.metadata)


def test_search_is_the_default(source: Path, tmp_path: Path) -> None:
    found = pocketlm.quantize(source, tmp_path / "q.gguf", "q4_k_m", **OPTIONS)
    assert (found.file_type, found.method, found.held_out) == ("Q4_K_M", "search", {})
    assert found.size == (tmp_path / "q.gguf").stat().st_size
    assert set(found.fallbacks.values()) == {"Q5_0", "Q8_0"}
    with pocketlm.load(tmp_path / "q.gguf", **OPTIONS) as model:
        assert model.generate("abc", max_tokens=3).text is not None
    searched = pocketlm.evaluate(
        tmp_path / "q.gguf", text="a" * 300, reference=source, context=64, **OPTIONS
    )
    assert searched.divergence is not None
    assert searched.divergence.mean < 0.5


def test_an_importance_matrix_is_measured_saved_and_read(
    source: Path, text: Path, tmp_path: Path
) -> None:
    saved = tmp_path / "imatrix.gguf"
    pocketlm.quantize(
        source, tmp_path / "a.gguf", "Q4_0", calibration=text, save_imatrix=saved, **OPTIONS
    )
    importance = Importance.load(saved)
    assert len(importance.means) == 14
    assert importance.chunk_size == 256
    pocketlm.quantize(source, tmp_path / "b.gguf", "Q4_0", imatrix=saved, **OPTIONS)
    pocketlm.quantize(source, tmp_path / "c.gguf", "Q4_0", **OPTIONS)
    with (
        GGUFFile.open(tmp_path / "a.gguf") as a,
        GGUFFile.open(tmp_path / "b.gguf") as b,
        GGUFFile.open(tmp_path / "c.gguf") as c,
    ):
        name = "blk.1.attn_q.weight"
        assert a.tensor_bytes(name).tobytes() == b.tensor_bytes(name).tobytes()
        assert a.tensor_bytes(name).tobytes() != c.tensor_bytes(name).tobytes()
        assert b.metadata["quantize.imatrix.file"] == "imatrix.gguf"
        assert b.metadata["quantize.imatrix.entries_count"] == 14


def test_calibrated_keeps_the_best_and_says_so(source: Path, text: Path, tmp_path: Path) -> None:
    out = tmp_path / "q.gguf"
    found = pocketlm.quantize(source, out, "Q4_0", method="calibrated", calibration=text, **OPTIONS)
    assert set(found.held_out) == {"search", "calibrated"}
    assert found.held_out[found.method] == min(found.held_out.values())
    assert found.held_out["calibrated"] < 0.8 * found.held_out["search"]
    assert [path.name for path in tmp_path.iterdir()] == ["q.gguf"]
    facts = metadata(out)
    assert facts["pocketlm.quantize.method"] == "calibrated"
    with pytest.raises(pocketlm.RequestError, match="calibrated on this very text"):
        pocketlm.evaluate(out, text=text, context=64, **OPTIONS)


@pytest.mark.timeout(300)  # torch alone takes long to import on a busy machine
def test_distilled_comes_closer_still(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pocketlm.quantize.distilled.Schedule", lambda: Schedule(batch=2, epochs=2))
    out = tmp_path / "q.gguf"
    found = pocketlm.quantize(source, out, "Q4_0", method="distilled", calibration=text, **OPTIONS)
    assert set(found.held_out) == {"search", "calibrated", "distilled"}
    assert found.held_out[found.method] == min(found.held_out.values())
    with GGUFFile.open(out) as file:
        assert file.tensors["blk.0.attn_q.weight"].type is BlockType.Q4_0
    assert [path.name for path in tmp_path.iterdir()] == ["q.gguf"]


def test_an_interrupted_run_leaves_its_work_and_no_file(
    source: Path, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "q.gguf"
    options = OPTIONS | {"method": "calibrated", "calibration": text}

    def interrupt(progress: Progress) -> None:
        if progress.task == "calibrate layers" and progress.done >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pocketlm.quantize(source, out, "Q4_0", progress=interrupt, **options)
    assert not out.exists()
    assert len(list((tmp_path / "q.gguf.work").glob("*.blocks"))) >= 5
    resumed = pocketlm.quantize(source, out, "Q4_0", **options)
    whole = pocketlm.quantize(source, tmp_path / "w.gguf", "Q4_0", **options)
    assert out.read_bytes() == (tmp_path / "w.gguf").read_bytes()
    assert resumed.held_out == whole.held_out


def test_a_file_that_is_there_is_replaced_only_by_force(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "q.gguf"
    out.write_text("mine")
    with pytest.raises(pocketlm.RequestError, match="already"):
        pocketlm.quantize(source, out, "Q4_0", **OPTIONS)
    assert out.read_text() == "mine"
    pocketlm.quantize(source, out, "Q4_0", force=True, **OPTIONS)
    assert metadata(out)["general.file_type"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "nearest", "calibration": "builtin"}, "no calibration"),
        ({"method": "calibrated", "imatrix": Path("i.gguf")}, "alone"),
        ({"imatrix": Path("i.gguf"), "calibration": "builtin"}, "alone"),
        ({"save_imatrix": Path("i.gguf")}, "no importance matrix"),
        ({"calibration_tokens": 4096}, "no calibration text"),
        ({"method": "best"}, "no method"),
    ],
)
def test_options_that_do_not_go_together(
    source: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(pocketlm.RequestError, match=message):
        pocketlm.quantize(source, tmp_path / "q.gguf", "Q4_0", **options)
    assert not list(tmp_path.iterdir())
