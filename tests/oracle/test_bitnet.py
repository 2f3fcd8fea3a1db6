"""BitNet against transformers, in every form that its checkpoints come in.

Activations are rounded to 8 bits before each product, so a value that float32 puts a hair to the
other side of a half moves one activation by a whole step, and the logits of that position and of
the ones after it by up to a few hundredths. The sequences here are short and their seeds are chosen
so that no value is so near to a half; there the agreement is that of floats.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pocketlm.convert import open_stream
from pocketlm.convert.write import write_floats
from pocketlm.errors import ModelFileError
from pocketlm.gguf import BlockType, GGUFFile
from pocketlm.models import open_model
from pocketlm.models.build import build_executor
from pocketlm.models.memory import Capacity, core_memory

from .bitnet import write_online, write_packed, write_scaled_gguf, write_ternary_gguf
from .conftest import Run, run_native
from .tiny import logits_of, random_tokens

pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("quiet_torch")]

BOUND = 2e-4
TOKENS = random_tokens(64, seed=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_online(dtype: torch.dtype, run: Run, tmp_path: Path) -> None:
    model = write_online(tmp_path, dtype)
    spec = open_model(tmp_path)
    assert np.abs(run(spec, TOKENS) - logits_of(model, TOKENS)).max() <= BOUND
    packed = spec.source.matrix("blk.0.ffn_up.weight").type
    assert packed == (BlockType.I2_S if dtype == torch.float32 else BlockType.TQ2_0)


def test_packed(run: Run, tmp_path: Path) -> None:
    model = write_packed(tmp_path, inverse=False)
    spec = open_model(tmp_path)
    assert spec.parameters == sum(p.numel() for p in model.parameters())
    assert np.abs(run(spec, TOKENS) - logits_of(model, TOKENS)).max() <= BOUND


def test_packed_with_inverse_scale(run: Run, tmp_path: Path) -> None:
    """float16 would round the inverse of the scale."""
    model = write_packed(tmp_path, inverse=True)
    spec = open_model(tmp_path)
    tokens = random_tokens(64, seed=3)
    assert np.abs(run(spec, tokens) - logits_of(model, tokens)).max() <= BOUND
    assert spec.source.matrix("blk.0.ffn_up.weight").type == BlockType.I2_S


def test_gguf_with_scales(run: Run, tmp_path: Path) -> None:
    """Float32 scales that float16 does not hold stay as they are."""
    model = write_scaled_gguf(tmp_path / "bitnet.gguf")
    spec = open_model(tmp_path / "bitnet.gguf")
    assert np.abs(run(spec, TOKENS) - logits_of(model, TOKENS)).max() <= BOUND
    assert spec.source.matrix("blk.0.ffn_up.weight").type == BlockType.I2_S


@pytest.mark.parametrize("type", [BlockType.TQ1_0, BlockType.TQ2_0, BlockType.I2_S])
def test_ternary_files_are_the_float_model(type: BlockType, run: Run, tmp_path: Path) -> None:
    """The same weights in 2 bits and in float32, and in transformers, give the same logits."""
    half = type != BlockType.I2_S  # whose scale is in float32
    model = write_ternary_gguf(tmp_path / "floats.gguf", BlockType.F32, half=half)
    write_ternary_gguf(tmp_path / "ternary.gguf", type, half=half)
    ternary = open_model(tmp_path / "ternary.gguf")
    assert ternary.source.matrix("blk.0.ffn_up.weight").type == type
    tokens = random_tokens(64, seed=10)
    logits = run(ternary, tokens)
    assert np.abs(logits - run(open_model(tmp_path / "floats.gguf"), tokens)).max() <= BOUND
    assert np.abs(logits - logits_of(model, tokens)).max() <= BOUND


def test_both_ternary_types_run_alike(tmp_path: Path) -> None:
    runs = []
    for type in (BlockType.TQ1_0, BlockType.TQ2_0):
        write_ternary_gguf(tmp_path / "m.gguf", type, half=True)
        runs.append(run_native(open_model(tmp_path / "m.gguf"), TOKENS))
    np.testing.assert_array_equal(*runs)


def test_scale_beside_the_codes_is_the_scale_after_them(tmp_path: Path) -> None:
    """To the bit: a TQ2_0 matrix with a ``.scale`` and an I2_S one run in the same form."""
    write_ternary_gguf(tmp_path / "i2_s.gguf", BlockType.I2_S, half=False)
    write_scaled_gguf(tmp_path / "scaled.gguf")
    runs = [run_native(open_model(tmp_path / f"{n}.gguf"), TOKENS) for n in ("i2_s", "scaled")]
    np.testing.assert_array_equal(*runs)


def test_i2_s_is_written_for_every_reader(tmp_path: Path) -> None:
    """As TQ2_0 and a scale, which is the same model to the bit."""
    write_ternary_gguf(tmp_path / "i2_s.gguf", BlockType.I2_S, half=False)
    with open_stream(tmp_path / "i2_s.gguf") as stream:
        write_floats(stream, tmp_path / "copy.gguf")
    with GGUFFile.open(tmp_path / "copy.gguf") as file:
        assert file.tensors["blk.1.ffn_down.weight"].type == BlockType.TQ2_0
        assert file.tensors["blk.1.ffn_down.scale"].shape == (1,)
    runs = [run_native(open_model(tmp_path / f"{n}.gguf"), TOKENS) for n in ("i2_s", "copy")]
    np.testing.assert_array_equal(*runs)


@pytest.mark.parametrize("scale", [np.nan, np.inf])
def test_a_scale_that_is_no_number(scale: float, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_ternary_gguf(path, BlockType.I2_S, half=False)
    with GGUFFile.open(path) as file:
        info = file.tensors["blk.1.ffn_down.weight"]
    with path.open("r+b") as raw:
        raw.seek(info.offset + info.nbytes - 32)
        raw.write(np.float32(scale).tobytes())
    with pytest.raises(ModelFileError, match=r"'blk\.1\.ffn_down\.weight': the scale"):
        run_native(open_model(path), TOKENS)
    with pytest.raises(ModelFileError, match=r"blk\.1\.ffn_down"), open_stream(path) as stream:
        write_floats(stream, tmp_path / "copy.gguf")
    assert [file.name for file in tmp_path.iterdir()] == ["m.gguf"]


def test_ternary_weights_take_what_is_promised(tmp_path: Path) -> None:
    """Which is 2 bits, though only reading a scale tells in what form it is held."""
    capacity = Capacity(tokens=4, sequences=1, rows=4, context=32)
    write_scaled_gguf(tmp_path / "scaled.gguf")
    write_ternary_gguf(tmp_path / "i2_s.gguf", BlockType.I2_S, half=False)
    write_ternary_gguf(tmp_path / "tq1_0.gguf", BlockType.TQ1_0, half=True)
    (tmp_path / "folder").mkdir()
    write_packed(tmp_path / "folder", inverse=True)
    promised = {}
    with open_stream(tmp_path / "i2_s.gguf") as stream:
        write_floats(stream, tmp_path / "f16.gguf", type=BlockType.F16)
    for name in ("scaled.gguf", "i2_s.gguf", "tq1_0.gguf", "f16.gguf", "folder"):
        spec = open_model(tmp_path / name)
        promised[name] = core_memory(spec, capacity).weights
        taken = build_executor(spec, threads=1).requirements(4, 1, 4, [1], "f16")["weights"]
        assert promised[name] == taken, name
    assert promised["scaled.gguf"] == promised["i2_s.gguf"] == promised["tq1_0.gguf"]
