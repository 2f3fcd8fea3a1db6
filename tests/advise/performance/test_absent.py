"""Models of the hub, planned from their headers: what their files are planned as."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from convert.tiny_folder import llama_config, write_llama
from engine.tiny_file import write_tiny_model
from pocketlm.advise.performance import PlannedModel, planned, residence
from pocketlm.catalog import find
from pocketlm.errors import CapacityError, ModelFileError, PocketLMError, UnsupportedError
from store.local_server import LocalServer, hub_repo
from store.tiny_models import safetensors

TYPES = ("F16", "Q8_0", "Q4_K_M", "Q4_0")


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of a model whose config.json has these changes."""

    def write(**changes: Any) -> Path:
        (tmp_path / "given").mkdir()
        return write_llama(tmp_path / "given", **changes)

    return write


def put(hub: LocalServer, folder: Path) -> None:
    hub_repo(hub, "o/r", {path.name: path.read_bytes() for path in folder.iterdir()})


def assert_same(remote: PlannedModel, there: PlannedModel, texts: int) -> None:
    """All but the texts of the tokenizer, which differ by that many bytes at most."""
    assert (remote.here, remote.where, there.here) == (False, "hub", True)
    assert remote.parameters == there.parameters
    assert remote.own_type == there.own_type
    assert remote.fingerprint == there.fingerprint
    for type in TYPES:
        ours, theirs = remote.file(type), there.file(type)
        assert ours.types == theirs.types
        assert (ours.own, ours.requantized) == (theirs.own, theirs.requantized)
        assert ours.size == pytest.approx(theirs.size, abs=texts)
        sizes = [
            residence(model, file, context=64, kv="f16", threads=2)
            for model, file in ((remote, ours), (there, theirs))
        ]
        assert (sizes[0].weights, sizes[0].kv) == (sizes[1].weights, sizes[1].kv)


def test_a_gguf_is_planned_to_the_byte(local_hub: LocalServer, tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf")
    hub_repo(local_hub, "o/r", {"tiny.gguf": path.read_bytes()})
    remote = planned("hf:o/r")
    assert_same(remote, planned(path), 0)
    assert remote.file().own
    assert remote.file().size == remote.size == path.stat().st_size


def test_a_folder_is_planned_as_its_files(
    local_hub: LocalServer, folder: Callable[..., Path]
) -> None:
    given = folder()
    put(local_hub, given)
    remote, there = planned("hf:o/r"), planned(given)
    assert_same(remote, there, 20_000)
    assert remote.file().size == sum(
        path.stat().st_size for path in given.iterdir() if path.name != "README.md"
    )


def test_tensors_that_rope_needs_count(local_hub: LocalServer, folder: Callable[..., Path]) -> None:
    rope = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    given = folder(rope_scaling=rope)
    put(local_hub, given)
    remote = planned("hf:o/r")
    assert_same(remote, planned(given), 20_000)
    assert "rope_freqs.weight" in remote.file("Q4_0").types


@pytest.mark.parametrize("name", ["smollm2:135m", "gemma3:270m"])
def test_a_real_file_is_planned_to_the_byte(
    name: str, local_hub: LocalServer, real_model: Callable[[str], Path]
) -> None:
    path = real_model(name)
    hub_repo(local_hub, "o/r", {"m.gguf": path.read_bytes()})
    assert_same(planned("hf:o/r"), planned(path), 0)
    assert len([one for one in local_hub.requests if "/resolve/" in one.path]) <= 5


@pytest.mark.parametrize(
    ("changes", "error", "why"),
    [
        ({"architectures": ["FooForCausalLM"]}, UnsupportedError, "FooForCausalLM"),
        ({"architectures": None}, ModelFileError, "'architectures' names no model class"),
        ({"num_hidden_layers": 10**9}, ModelFileError, "'num_hidden_layers' is 1000000000"),
        ({"num_hidden_layers": 1000}, ModelFileError, "is missing"),
        ({"hidden_size": "wide"}, ModelFileError, "'hidden_size' is 'wide'"),
        ({"vocab_size": 10**18}, ModelFileError, "vocab_size"),
        ({"quantization_config": {"quant_method": "gptq"}}, UnsupportedError, "'gptq'"),
    ],
)
def test_what_cannot_be_planned_says_why(
    changes: dict[str, object],
    error: type[Exception],
    why: str,
    local_hub: LocalServer,
    folder: Callable[..., Path],
) -> None:
    put(local_hub, folder(**changes))
    with pytest.raises(error, match=why):
        planned("hf:o/r")


def test_headers_are_held_against_the_size_of_the_file(local_hub: LocalServer) -> None:
    data = safetensors({"model.embed_tokens.weight": ("BF16", [4, 4])}).replace(b"4, 4", b"4, 9")
    config = json.dumps(llama_config()).encode()
    hub_repo(local_hub, "o/r", {"config.json": config, "model.safetensors": data})
    with pytest.raises(ModelFileError, match="bytes of data cannot be"):
        planned("hf:o/r")


def test_shapes_that_no_memory_has_are_refused_at_once() -> None:
    entry = find("qwen3", "0.6b")
    assert entry is not None
    shape = entry.shape
    assert shape is not None

    def claiming(**sizes: int) -> PlannedModel:
        return planned(entry.model_copy(update={"shape": shape.model_copy(update=sizes)}))

    with pytest.raises(CapacityError, match="too many to plan with"):
        claiming(layers=1024, hidden=1 << 20, ffn=1 << 20)
    with pytest.raises(CapacityError, match="vocabulary of 16,777,216"):
        claiming(vocab=1 << 24)
    # what the catalog's schema keeps out already
    for sizes in ({"layers": 10**9}, {"vocab": 10**18}, {"head_dim": 10**12}, {"hidden": 10**15}):
        with pytest.raises(PocketLMError):
            claiming(**sizes)
