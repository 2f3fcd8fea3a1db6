"""A model that ``run`` and ``chat`` are given and that is not in the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.tiny_file import write_tiny_model
from pocketlm.cli.fetching import load
from pocketlm.errors import NotFoundError
from pocketlm.progress import Progress, ProgressCallback
from pocketlm.store import Store, StoredModel


def test_a_missing_model_is_pulled_with_a_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf")

    def pull(self: Store, ref: str, progress: ProgressCallback) -> StoredModel:
        progress(Progress("download tiny", 1, 1))
        return self.import_path(path, ref)

    monkeypatch.setattr(Store, "pull", pull)
    with load("smollm2:135m", threads=1) as model:
        assert model.name == "smollm2:135m"
    captured = capsys.readouterr()
    assert "smollm2:135m is not in the store, so it is pulled now" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("ref", ["smollm2:135m", "./absent.gguf", "smolm2"])
def test_what_cannot_be_pulled_is_an_error(
    ref: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if ref == "smollm2:135m":
        monkeypatch.setenv("POCKETLM_OFFLINE", "1")
    monkeypatch.setattr(Store, "pull", lambda *a: pytest.fail("it was pulled"))
    with pytest.raises(NotFoundError):
        load(ref)
    assert capsys.readouterr().err == ""


def test_a_path_is_loaded_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with load(str(write_tiny_model(tmp_path / "tiny.gguf")), threads=1) as model:
        assert model.name == "tiny"
    assert capsys.readouterr().err == ""
