"""The way back: shards and their index, types, what is refused, and nothing left half."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pocketlm.convert import open_stream
from pocketlm.convert.to_folder import write_folder
from pocketlm.convert.write import write_floats
from pocketlm.errors import CapacityError, ModelFileError, RequestError, UnsupportedError
from pocketlm.gguf import BlockType, GGUFFile, TensorData, write_gguf
from pocketlm.models import open_model
from pocketlm.progress import Progress

from .tiny_folder import CARD, llama_weights, write_llama


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    out = tmp_path / "tiny.gguf"
    with open_stream(write_llama(tmp_path / "m")) as stream:
        write_floats(stream, out)
    return out


def test_weights_come_back_as_they_were(gguf: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    written = write_folder(gguf, tmp_path / "back", progress=seen.append)
    assert (written.type, written.architecture) == (BlockType.F32, "llama")
    assert seen[-1].done == seen[-1].total == written.nbytes
    found, given = load_file(tmp_path / "back" / "model.safetensors"), llama_weights()
    assert found.keys() == given.keys()
    for name, values in given.items():
        assert np.array_equal(found[name], values), name


def test_shards_have_an_index(gguf: Path, tmp_path: Path) -> None:
    back = tmp_path / "back"
    write_folder(gguf, back, shard_bytes=60_000)
    files = sorted(path.name for path in back.glob("*.safetensors"))
    index = json.loads((back / "model.safetensors.index.json").read_text())
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    given = llama_weights()
    assert index["weight_map"].keys() == given.keys()
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in given.values())
    for name in files:
        tensors = load_file(back / name)
        size = sum(value.nbytes for value in tensors.values())
        assert size <= 60_000 or len(tensors) == 1
        assert all(index["weight_map"][tensor] == name for tensor in tensors)
    spec = open_model(back)
    assert np.array_equal(
        spec.source.matrix("blk.1.ffn_up.weight").data.view(np.float32).reshape(96, 64),
        given["model.layers.1.mlp.up_proj.weight"],
    )


@pytest.mark.parametrize(("type", "dtype"), [(BlockType.F16, "F16"), (BlockType.BF16, "BF16")])
def test_the_type_is_every_tensors(type: BlockType, dtype: str, gguf: Path, tmp_path: Path) -> None:
    write_folder(gguf, tmp_path / "back", type=type)
    header = (tmp_path / "back" / "model.safetensors").read_bytes()[8:20_000]
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert header.count(f'"dtype":"{dtype}"'.encode()) == len(llama_weights())
    assert config["torch_dtype"] == {"F16": "float16", "BF16": "bfloat16"}[dtype]


def test_the_small_files_say_what_the_file_says(gguf: Path, tmp_path: Path) -> None:
    back = write_folder(gguf, tmp_path / "back").path
    config = json.loads((back / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["rms_norm_eps"], config["eos_token_id"]) == (1e-5, [2, 0])
    generation = json.loads((back / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [2, 0]
    assert (generation["top_k"], generation["do_sample"]) == (20, True)
    assert generation["temperature"] == pytest.approx(0.6)
    card = (back / "README.md").read_text()
    assert 'license: "apache-2.0"' in card
    assert '- "test-model"' in card
    assert "license: apache-2.0" in CARD
    with open_stream(back) as again, open_stream(gguf) as first:
        names = [key for key in first.metadata if key.startswith(("general.l", "general.t"))]
        assert {key: again.metadata[key] for key in names} == {
            key: first.metadata[key] for key in names
        }


def test_quantized_weights_are_decoded(gguf: Path, tmp_path: Path) -> None:
    from pocketlm import _native

    with GGUFFile.open(gguf) as file:
        tensors = []
        for name, info in file.tensors.items():
            data, type = file.tensor_bytes(name), info.type
            if name == "blk.0.attn_q.weight":
                q8 = BlockType.Q8_0
                data = _native.quantize(
                    int(type), np.array(data), *info.shape, int(q8), "nearest", None, 1
                )
                type = q8
            tensors.append(TensorData(name, type, info.shape, np.array(data)))
        write_gguf(tmp_path / "q.gguf", file.metadata, tensors)
    back = write_folder(tmp_path / "q.gguf", tmp_path / "back").path
    name = "model.layers.0.self_attn.q_proj.weight"
    found, given = load_file(back / "model.safetensors")[name], llama_weights()[name]
    error = np.abs(found - given).max()
    assert 0 < error <= np.abs(given).max() / 127


def test_what_is_there_is_not_touched(gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "back").mkdir()
    with pytest.raises(RequestError, match="something at this path"):
        write_folder(gguf, tmp_path / "back")
    with pytest.raises(RequestError, match="folder already"):
        write_folder(tmp_path / "m", tmp_path / "new")
    assert not list((tmp_path / "back").iterdir())


def test_an_error_leaves_no_folder(gguf: Path, tmp_path: Path) -> None:
    with GGUFFile.open(gguf) as file:
        tensors = []
        for name, info in file.tensors.items():
            data = np.array(file.tensor_bytes(name))
            if name == "blk.1.ffn_up.weight":
                data.view(np.float32)[7] = np.nan
            tensors.append(TensorData(name, info.type, info.shape, data))
        write_gguf(tmp_path / "bad.gguf", file.metadata, tensors)
    before = set(tmp_path.iterdir())
    with pytest.raises(ModelFileError, match=r"'blk.1.ffn_up.weight' holds a weight"):
        write_folder(tmp_path / "bad.gguf", tmp_path / "back")
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("left", [0, 3_000, 60_000])
def test_a_full_disk_leaves_no_folder(
    left: int, gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(tmp_path.iterdir())
    real = os.write

    def write(descriptor: int, data: bytes | memoryview) -> int:
        nonlocal left
        if left <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = real(descriptor, data[:left])
        left -= count
        return count

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(CapacityError, match="disk is full"):
        write_folder(gguf, tmp_path / "back")
    assert set(tmp_path.iterdir()) == before


def test_rope_factors_of_no_formula_are_refused(gguf: Path, tmp_path: Path) -> None:
    factors = np.array([1, 2, 1, 3, 1, 2, 1, 8], dtype=np.float32)
    with GGUFFile.open(gguf) as file:
        tensors = [
            TensorData(name, info.type, info.shape, np.array(file.tensor_bytes(name)))
            for name, info in file.tensors.items()
        ]
        tensors.append(TensorData("rope_freqs.weight", BlockType.F32, (8,), factors))
        write_gguf(tmp_path / "odd.gguf", file.metadata, tensors)
    with pytest.raises(UnsupportedError, match=r"rope_freqs.weight"):
        write_folder(tmp_path / "odd.gguf", tmp_path / "back")
