"""``pocketlm quantize``: what it writes is what it says, and nothing that it reads is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convert.tiny_folder import write_llama
from engine.tiny_file import write_tiny_model
from pocketlm.gguf import BlockType, GGUFFile, TensorData, write_gguf
from pocketlm.quantize.importance import Importance

Run = Callable[..., Any]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Its rows are of 64 and 96 weights: blocks of 32 fit, blocks of 256 do not."""
    return write_tiny_model(tmp_path / "tiny.gguf")


def imatrix(path: Path, **columns: int) -> Path:
    """An importance matrix of the first layer's matrices that are named, all columns alike."""
    sums = {f"blk.0.{name}.weight": (np.ones(cols), 4) for name, cols in columns.items()}
    Importance.from_sums(sums, datasets=("a text",), chunks=2, chunk_size=2).save(path)
    return path


def test_a_quantized_file_runs(pocketlm: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "q.gguf"
    said = pocketlm("quantize", model, out, "q8_0", "--threads", "1")
    assert said.code == 0, said.err
    size = out.stat().st_size
    assert said.out.startswith(f"{out}: Q8_0, {size / 1000:.1f} kB, ")
    assert said.out.endswith(" bits per weight\n")
    answered = pocketlm("run", out, "the", "--max-tokens", "2", "--json")
    assert answered.code == 0, answered.err
    assert answered.json()["stats"]["completion_tokens"] > 0


def test_json_and_fallbacks(pocketlm: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "q.gguf"
    found = pocketlm("quantize", model, out, "Q4_K_M", "--json").json()
    with GGUFFile.open(out) as file:
        types = {name: info.type.name for name, info in file.tensors.items()}
        weights = sum(int(np.prod(info.shape)) for info in file.tensors.values())
        assert file.metadata["pocketlm.quantize.method"] == "search"
    size = out.stat().st_size
    # the output matrix has Q8_0 by its own rule where blocks of 256 do not fit
    fallbacks = {n: t for n, t in types.items() if t != "F32" and n != "token_embd.weight"}
    assert set(fallbacks.values()) == {"Q5_0", "Q8_0"}
    assert found == {
        "path": str(out),
        "file_type": "Q4_K_M",
        "size": size,
        "bits_per_weight": 8 * size / weights,
        "method": "search",
        "fallbacks": fallbacks,
        "held_out": {},
    }
    said = pocketlm("quantize", model, out, "Q4_K_M", "--force")
    assert f"{len(fallbacks)} tensors have rows" in said.out


def test_a_dry_run_says_what_will_be_written(pocketlm: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "q.gguf"
    options = ("Q4_K_M", "--tensor", "ffn_up=F16", "--embedding-type", "q5_1")
    planned = pocketlm("quantize", model, out, *options, "--dry-run", "--json").json()
    listed = pocketlm("quantize", model, out, *options, "--dry-run").out
    assert not out.exists()
    made = pocketlm("quantize", model, out, *options, "--json").json()
    assert {key: made[key] for key in ("size", "bits_per_weight")} == {
        key: planned[key] for key in ("size", "bits_per_weight")
    }
    with GGUFFile.open(out) as file:
        written = [
            (name, list(info.shape), info.type.name, info.nbytes)
            for name, info in file.tensors.items()
        ]
    rows = planned["tensors"]
    assert [(row["name"], row["shape"], row["to"], row["bytes"]) for row in rows] == written
    types = {row["name"]: row["to"] for row in rows}
    assert types["blk.1.ffn_up.weight"] == "F16"
    assert types["token_embd.weight"] == "Q5_1"
    assert {row["fallback_from"] for row in rows if row["name"] == "blk.0.attn_q.weight"} == {
        "Q4_K"
    }
    for line in listed.splitlines()[1:-1]:
        name, rest = line.split(maxsplit=1)
        assert types[name] in rest
    assert f"{len(rows)} tensors, {made['size'] / 1000:.1f} kB" in listed


def test_a_folder_is_quantized_as_its_conversion_is(pocketlm: Run, tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "tiny")
    for out, source in (("a.gguf", folder), ("b.gguf", tmp_path / "f.gguf")):
        assert pocketlm("convert", folder, "-o", tmp_path / "f.gguf", "--force").code == 0
        said = pocketlm("quantize", source, tmp_path / out, "q4_0")
        assert said.code == 0, said.err
    with GGUFFile.open(tmp_path / "a.gguf") as a, GGUFFile.open(tmp_path / "b.gguf") as b:
        assert a.tensors.keys() == b.tensors.keys()
        for name in a.tensors:
            assert np.array_equal(a.tensor_bytes(name), b.tensor_bytes(name)), name


@pytest.mark.parametrize("name", ["i.gguf", "i.dat"])
def test_an_importance_matrix_from_a_file(
    pocketlm: Run, model: Path, tmp_path: Path, name: str
) -> None:
    given = imatrix(tmp_path / name, attn_q=64, ffn_down=96)
    out = tmp_path / "q.gguf"
    said = pocketlm("quantize", model, out, "q4_0", "--imatrix", given)
    assert said.code == 0, said.err
    with GGUFFile.open(out) as file:
        stated = {k: v for k, v in file.metadata.items() if k.startswith("quantize.imatrix")}
    assert stated == {
        "quantize.imatrix.file": name,
        "quantize.imatrix.dataset": "a text",
        "quantize.imatrix.entries_count": 2,
        "quantize.imatrix.chunks_count": 2,
    }


@pytest.mark.parametrize(
    ("columns", "message"),
    [({"attn_q": 96}, "96 columns for 'blk.0.attn_q.weight'"), ({"ssm_in": 64}, "knows none")],
)
def test_an_importance_matrix_of_another_model(
    pocketlm: Run, model: Path, tmp_path: Path, columns: dict[str, int], message: str
) -> None:
    given = imatrix(tmp_path / "i.gguf", **columns)
    said = pocketlm("quantize", model, tmp_path / "q.gguf", "q4_0", "--imatrix", given)
    assert said.code == 2
    assert message in said.err
    assert not (tmp_path / "q.gguf").exists()


def test_an_importance_matrix_is_measured_and_saved(
    pocketlm: Run, model: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(" ".join(f"word {i * i}" for i in range(400)), encoding="utf-8")
    saved = tmp_path / "i.gguf"
    options = ("--calibration", text, "--save-imatrix", saved)
    said = pocketlm("quantize", model, tmp_path / "a.gguf", "q4_0", *options)
    assert said.code == 0, said.err
    assert Importance.load(saved).means.keys() >= {"blk.0.attn_q.weight", "blk.1.ffn_down.weight"}
    said = pocketlm("quantize", model, tmp_path / "b.gguf", "q4_0", "--imatrix", saved)
    assert said.code == 0, said.err
    with (
        GGUFFile.open(tmp_path / "a.gguf") as a,
        GGUFFile.open(tmp_path / "b.gguf") as b,
    ):
        for name in a.tensors:
            assert np.array_equal(a.tensor_bytes(name), b.tensor_bytes(name)), name


def test_nothing_that_is_read_is_overwritten(pocketlm: Run, model: Path, tmp_path: Path) -> None:
    given = imatrix(tmp_path / "i.gguf", attn_q=64)
    text = tmp_path / "text.txt"
    text.write_text(" ".join(f"word {i * i}" for i in range(400)), encoding="utf-8")
    out = tmp_path / "q.gguf"
    calibration = ("--calibration", text)
    before = {path: path.read_bytes() for path in (model, given, text)}
    for target, options in (
        (model, ()),
        (given, ("--imatrix", given)),
        (text, calibration),
        (out, (*calibration, "--save-imatrix", model)),
        (out, (*calibration, "--save-imatrix", text)),
        (out, (*calibration, "--save-imatrix", out)),
    ):
        said = pocketlm("quantize", model, target, "q4_0", *options)
        assert said.code == 2, (target, options)
        assert "the file that is read" in said.err or "have the same path" in said.err
    assert {path: path.read_bytes() for path in before} == before
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("q4_9",), "Did you mean Q4_"),
        (("q4_0", "--tensor", "ffn_down"), "not PATTERN=TYPE"),
        (("q4_0", "--tensor", "nothing=Q8_0"), "'nothing'"),
        (("q4_0", "--output-type", "q4_k_m"), "no block type 'q4_k_m'"),
        (("q4_0", "--method", "best"), "best"),
        (("q4_0", "--method", "nearest", "--calibration", "builtin"), "nearest"),
        (("q4_0", "--save-imatrix", "i.gguf"), "no importance matrix to save"),
        (("q4_0", "--threads", "0"), "--threads"),
    ],
)
def test_what_makes_no_sense_is_told(
    pocketlm: Run, model: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    said = pocketlm("quantize", model, tmp_path / "q.gguf", *arguments)
    assert said.code == 2
    assert message in said.err
    assert list(tmp_path.iterdir()) == [model]


def test_a_quantized_source_wants_a_word(pocketlm: Run, model: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.gguf", tmp_path / "b.gguf"
    assert pocketlm("quantize", model, first, "q8_0").code == 0
    said = pocketlm("quantize", first, second, "q4_0")
    assert said.code == 2
    assert "--allow-requantize" in said.err
    assert not second.exists()
    assert pocketlm("quantize", first, second, "q4_0", "--allow-requantize").code == 0
    assert (
        pocketlm("quantize", first, second, "f16", "--force").code == 0
    )  # decoding loses nothing more


def test_a_weight_that_is_not_finite_is_named(pocketlm: Run, tmp_path: Path) -> None:
    values = np.ones((4, 64), np.float32)
    values[3, 9] = np.inf
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.attention.head_count": 1,
    }
    tensor = TensorData("blk.0.attn_q.weight", BlockType.F32, values.shape, values)
    write_gguf(tmp_path / "m.gguf", metadata, [tensor])
    said = pocketlm("quantize", tmp_path / "m.gguf", tmp_path / "q.gguf", "q4_0")
    assert said.code == 1
    assert "'blk.0.attn_q.weight'" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def test_a_model_that_is_not_there(pocketlm: Run, tmp_path: Path) -> None:
    said = pocketlm("quantize", tmp_path / "no.gguf", tmp_path / "q.gguf", "q4_0")
    assert said.code == 1
    assert "no.gguf" in said.err
