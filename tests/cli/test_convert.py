"""``pocketlm convert`` as people and programs see it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.tiny_folder import llama_weights, write_llama
from pocketlm.gguf import BlockType, GGUFFile

Run = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "tiny")


def test_a_folder_becomes_a_file_that_runs(pocketlm: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.gguf"
    said = pocketlm("convert", folder, "-o", out)
    assert said.code == 0, said.err
    size = out.stat().st_size
    assert said.out == f"{out}: llama, F32, {len(llama_weights())} tensors, {size / 1000:.1f} kB\n"
    answered = pocketlm("run", out, "the", "--max-tokens", "2", "--json")
    assert answered.code == 0, answered.err
    assert answered.json()["stats"]["completion_tokens"] > 0


def test_json_type_and_name(pocketlm: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.gguf"
    said = pocketlm(
        "convert", folder, "--output", out, "--type", "bf16", "--name", "My Model", "--json"
    )
    assert said.json() == {
        "path": str(out),
        "architecture": "llama",
        "type": "BF16",
        "tensors": len(llama_weights()),
        "size": out.stat().st_size,
    }
    with GGUFFile.open(out) as file:
        assert file.metadata["general.name"] == "My Model"
        assert file.tensors["blk.0.attn_q.weight"].type is BlockType.BF16


def test_there_and_back(pocketlm: Run, folder: Path, tmp_path: Path) -> None:
    assert pocketlm("convert", folder, "-o", tmp_path / "tiny.gguf").code == 0
    back = tmp_path / "back"
    said = pocketlm("convert", tmp_path / "tiny.gguf", "-o", back, "--to", "hf", "--json")
    assert said.code == 0, said.err
    assert said.json()["type"] == "F32"
    assert (back / "model.safetensors").is_file()
    again = pocketlm("convert", back, "-o", tmp_path / "again.gguf", "--name", "tiny")
    assert again.code == 0, again.err
    with GGUFFile.open(tmp_path / "tiny.gguf") as a, GGUFFile.open(tmp_path / "again.gguf") as b:
        assert list(a.tensors) == list(b.tensors)
        for name in a.tensors:
            assert np.array_equal(a.tensor_bytes(name), b.tensor_bytes(name)), name


def test_an_imported_model_says_where_it_is_from(
    pocketlm: Run, folder: Path, tmp_path: Path
) -> None:
    assert pocketlm("import", folder, "mine").code == 0
    said = pocketlm("convert", "mine", "-o", tmp_path / "x.gguf", "--json")
    assert said.code == 0, said.err


def test_what_is_there_stays_unless_forced(pocketlm: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"precious")
    said = pocketlm("convert", folder, "-o", out)
    assert said.code == 2
    assert "--force" in said.err
    assert out.read_bytes() == b"precious"
    assert pocketlm("convert", folder, "-o", out, "--force").code == 0
    before = out.read_bytes()
    said = pocketlm("convert", out, "-o", out, "--force")
    assert said.code == 2
    assert "the output is the file that is read" in said.err
    assert out.read_bytes() == before
    said = pocketlm("convert", out, "-o", folder, "--to", "hf", "--force")
    assert said.code == 2
    assert "something at this path" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--type", "q9_9"), "q9_9"),
        (("--to", "hf"), "folder already"),
        (("--type", "q8_0", "--to", "hf"), "f32, f16 or bf16"),
    ],
)
def test_what_makes_no_sense_is_told(
    arguments: tuple[str, ...], message: str, pocketlm: Run, folder: Path, tmp_path: Path
) -> None:
    said = pocketlm("convert", folder, "-o", tmp_path / "x", *arguments)
    assert said.code == 2
    assert message in said.err
    assert not (tmp_path / "x").exists()


def test_a_place_that_is_not_there_is_told(pocketlm: Run, folder: Path, tmp_path: Path) -> None:
    said = pocketlm("convert", folder, "-o", tmp_path / "no" / "x.gguf")
    assert said.code == 2
    assert "cannot write" in said.err


def test_an_unknown_architecture_is_named(pocketlm: Run, folder: Path, tmp_path: Path) -> None:
    config = folder / "config.json"
    config.write_text(config.read_text().replace("LlamaForCausalLM", "BertForMaskedLM"))
    said = pocketlm("convert", folder, "-o", tmp_path / "x.gguf")
    assert said.code == 1
    assert "BertForMaskedLM" in said.err
    assert "Qwen3ForCausalLM" in said.err


def test_a_quantized_type_is_written_by_the_recipe(
    pocketlm: Run, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "q.gguf"
    said = pocketlm("convert", folder, "-o", out, "--type", "q8_0", "--name", "Q", "--json")
    assert said.code == 0, said.err
    assert said.json()["type"] == "Q8_0"
    with GGUFFile.open(out) as file:
        assert file.metadata["general.file_type"] == 7
        assert file.metadata["general.name"] == "Q"
        types = {name: info.type for name, info in file.tensors.items()}
    assert types["blk.0.ffn_up.weight"] is BlockType.Q8_0
    assert types["blk.0.ffn_norm.weight"] is BlockType.F32
    assert pocketlm("convert", out, "-o", tmp_path / "copy.gguf", "--name", "Q").code == 0
    assert (tmp_path / "copy.gguf").read_bytes() == out.read_bytes()
    back = pocketlm("convert", out, "-o", tmp_path / "f.gguf", "--type", "f16", "--json")
    assert back.json()["type"] == "F16"
    assert pocketlm("run", out, "the", "--max-tokens", "2").code == 0
