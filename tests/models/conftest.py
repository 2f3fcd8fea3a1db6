"""Opening synthetic files through ``open_model``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pocketlm.models import ModelSpec, open_model
from pocketlm.models import spec as spec_module

from .synthetic import SyntheticFile

Open = Callable[[SyntheticFile], ModelSpec]


@pytest.fixture
def open_synthetic(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Open:
    """``open_model`` on a SyntheticFile."""

    def opened(file: SyntheticFile) -> ModelSpec:
        class Opener:
            @staticmethod
            def open(path: Path) -> SyntheticFile:
                return file

        monkeypatch.setattr(spec_module, "GGUFFile", Opener)
        path = tmp_path / "synthetic.gguf"
        path.touch()
        return open_model(path)

    return opened
