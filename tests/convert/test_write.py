"""Writing GGUF files of floats: types, bad weights, full disks, and how much memory it takes."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from pocketlm.convert import open_stream
from pocketlm.convert.write import write_floats
from pocketlm.errors import CapacityError, ModelFileError
from pocketlm.gguf import BlockType, GGUFFile
from pocketlm.progress import Progress

from .tiny_folder import llama_weights, write_llama

DTYPES = {BlockType.F32: np.float32, BlockType.F16: np.float16, BlockType.BF16: ml_dtypes.bfloat16}


@pytest.mark.parametrize("type", DTYPES)
def test_every_matrix_gets_the_type(type: BlockType, tmp_path: Path) -> None:
    folder, out = write_llama(tmp_path / "m"), tmp_path / "out.gguf"
    seen: list[Progress] = []
    with open_stream(folder) as stream:
        written = write_floats(stream, out, type=type, progress=seen.append)
    weights = llama_weights()
    with GGUFFile.open(out) as file:
        for name, info in file.tensors.items():
            assert info.type == (type if len(info.shape) == 2 else BlockType.F32), name
        given = weights["model.layers.0.mlp.down_proj.weight"].astype(DTYPES[type])
        assert bytes(file.tensor_bytes("blk.0.ffn_down.weight")) == given.tobytes()
        ids = {BlockType.F32: 0, BlockType.F16: 1, BlockType.BF16: 32}
        assert file.metadata["general.file_type"] == ids[type]
        assert written.nbytes == sum(info.nbytes for info in file.tensors.values())
    assert (written.type, written.tensors) == (type, len(weights))
    assert seen[-1].done == seen[-1].total == written.nbytes


def test_without_a_type_the_bytes_pass_as_they_are(tmp_path: Path) -> None:
    halves = {name: v.astype(ml_dtypes.bfloat16) for name, v in llama_weights().items()}
    folder = write_llama(tmp_path / "m", halves)
    with open_stream(folder) as stream:
        write_floats(stream, tmp_path / "a.gguf")
    with open_stream(tmp_path / "a.gguf") as stream:
        write_floats(stream, tmp_path / "b.gguf")
    with GGUFFile.open(tmp_path / "a.gguf") as file:
        given = halves["model.layers.1.mlp.up_proj.weight"]
        assert bytes(file.tensor_bytes("blk.1.ffn_up.weight")) == given.tobytes()
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("model.layers.1.mlp.up_proj.weight", "blk.1.ffn_up.weight"),
        ("model.layers.0.self_attn.k_proj.weight", "blk.0.attn_k.weight"),
        ("model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight"),
    ],
)
@pytest.mark.parametrize("type", [None, BlockType.BF16])
def test_a_weight_that_is_no_number_names_its_tensor(
    bad: float, name: str, ours: str, type: BlockType | None, tmp_path: Path
) -> None:
    weights = llama_weights()
    weights[name].reshape(-1)[-1] = bad
    folder, out = write_llama(tmp_path / "m", weights), tmp_path / "out" / "x.gguf"
    out.parent.mkdir()
    with (
        open_stream(folder) as stream,
        pytest.raises(ModelFileError, match=f"'{ours}' holds a (weight|value) that is not"),
    ):
        write_floats(stream, out, type=type)
    assert not list(out.parent.iterdir())


def test_a_weight_too_large_for_float16_names_its_tensor(tmp_path: Path) -> None:
    weights = llama_weights()
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = 70_000
    folder, out = write_llama(tmp_path / "m", weights), tmp_path / "x.gguf"
    with open_stream(folder) as stream:
        with pytest.raises(ModelFileError, match=r"'blk.1.ffn_up.weight' holds 70000.*bf16"):
            write_floats(stream, out, type=BlockType.F16)
        assert not out.exists()
        write_floats(stream, out, type=BlockType.BF16)


def test_a_full_disk_leaves_nothing_and_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = write_llama(tmp_path / "m"), tmp_path / "out" / "x.gguf"
    out.parent.mkdir()
    out.write_bytes(b"before")
    real, left = os.write, 40_000

    def write(descriptor: int, data: Any) -> int:
        nonlocal left
        if left <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = real(descriptor, data[:left])
        left -= count
        return count

    monkeypatch.setattr(os, "write", write)
    with open_stream(folder) as stream, pytest.raises(CapacityError, match="disk is full"):
        write_floats(stream, out)
    assert [path.name for path in out.parent.iterdir()] == ["x.gguf"]
    assert out.read_bytes() == b"before"


def test_a_disk_that_is_too_small_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = write_llama(tmp_path / "m"), tmp_path / "x.gguf"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
    seen: list[Progress] = []
    with open_stream(folder) as stream, pytest.raises(CapacityError, match="has 100,000 left"):
        write_floats(stream, out, progress=seen.append)
    assert not seen
    assert not out.exists()


# Runs in a process of its own: how much its memory grows at most, in bytes, while it converts.
MEASURE = """
import sys
from pathlib import Path
from pocketlm.convert import open_stream
from pocketlm.convert.to_folder import write_folder
from pocketlm.convert.write import write_floats
from pocketlm.gguf import BlockType

def now(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024

source, out, way = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
if way == "gguf":
    with open_stream(source) as stream:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        base = now("VmRSS")
        write_floats(stream, out, type=BlockType.BF16)
else:
    write_folder(source.parent / "small.gguf", out.parent / "small")
    Path("/proc/self/clear_refs").write_text("5")
    base = now("VmRSS")
    write_folder(source, out, type=BlockType.BF16)
print(now("VmHWM") - base)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_below_two_tensors(tmp_path: Path) -> None:
    """A matrix has 8 MB, the model 110 MB; margin: a piece of a million weights."""
    rng = np.random.default_rng(0)
    hidden, ffn, layers = 512, 4096, 4
    weights = {"model.embed_tokens.weight": rng.standard_normal((300, hidden)).astype(np.float32)}
    for i in range(layers):
        layer = f"model.layers.{i}."
        for name, shape in (
            ("self_attn.q_proj", (hidden, hidden)),
            ("self_attn.k_proj", (hidden, hidden)),
            ("self_attn.v_proj", (hidden, hidden)),
            ("self_attn.o_proj", (hidden, hidden)),
            ("mlp.gate_proj", (ffn, hidden)),
            ("mlp.up_proj", (ffn, hidden)),
            ("mlp.down_proj", (hidden, ffn)),
        ):
            weights[f"{layer}{name}.weight"] = rng.standard_normal(shape).astype(np.float32)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{layer}{name}.weight"] = np.ones(hidden, dtype=np.float32)
    weights["model.norm.weight"] = np.ones(hidden, dtype=np.float32)
    shape = {"hidden_size": hidden, "intermediate_size": ffn, "num_hidden_layers": layers}
    folder = write_llama(tmp_path / "m", weights, **shape, num_key_value_heads=4)
    biggest = ffn * hidden * 4
    with open_stream(folder) as stream:
        write_floats(stream, tmp_path / "m.gguf")
    with open_stream(write_llama(tmp_path / "s")) as stream:
        write_floats(stream, tmp_path / "small.gguf")
    for source, out, way in (
        (folder, tmp_path / "out.gguf", "gguf"),
        (tmp_path / "m.gguf", tmp_path / "out", "hf"),
    ):
        said = subprocess.run(
            [sys.executable, "-c", MEASURE, source, out, way],
            capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        assert int(said.stdout) < 2 * biggest + 4_000_000, way
