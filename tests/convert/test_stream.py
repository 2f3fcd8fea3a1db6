"""Folders and GGUF files as streams: names, values, metadata, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from pocketlm.convert import open_stream
from pocketlm.errors import ModelFileError, UnsupportedError
from pocketlm.gguf import BlockType, TensorData, write_gguf

from .tiny_folder import HEADS, HIDDEN, LAYERS, VOCABULARY, llama_weights, write_llama


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "Tiny-Llama")


def test_metadata_says_what_the_folder_says(folder: Path) -> None:
    with open_stream(folder) as stream:
        metadata = dict(stream.metadata)
    assert stream.architecture == "llama"
    tokenizer = {key: metadata.pop(key) for key in list(metadata) if key.startswith("tokenizer.")}
    assert metadata == {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": "Tiny-Llama",
        "general.size_label": "81K",
        "general.license": "apache-2.0",
        "general.tags": ["tiny", "test-model", "text-generation"],
        "general.languages": ["en", "fr"],
        "general.base_model.count": 1,
        "general.base_model.0.name": "Base-1B",
        "general.base_model.0.organization": "some-org",
        "general.base_model.0.repo_url": "https://huggingface.co/some-org/Base-1B",
        "general.dataset.count": 1,
        "general.dataset.0.name": "texts",
        "general.dataset.0.organization": "some-org",
        "general.dataset.0.repo_url": "https://huggingface.co/datasets/some-org/texts",
        "general.sampling.temp": 0.6,
        "general.sampling.top_k": 20,
        "llama.block_count": LAYERS,
        "llama.context_length": 256,
        "llama.embedding_length": HIDDEN,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.attention.key_length": 16,
        "llama.attention.value_length": 16,
        "llama.vocab_size": VOCABULARY,
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 10_000.0,
        "general.quantization_version": 2,
    }
    assert tokenizer["tokenizer.ggml.model"] == "gpt2"
    assert tokenizer["tokenizer.ggml.pre"] == "llama-bpe"
    assert tokenizer["tokenizer.ggml.add_bos_token"] is False
    tokens, types = tokenizer["tokenizer.ggml.tokens"], tokenizer["tokenizer.ggml.token_type"]
    assert isinstance(tokens, list)
    assert isinstance(types, np.ndarray)
    assert len(tokens) == len(types) == VOCABULARY
    assert (tokens[2], types[2]) == ("<|im_end|>", 3)  # control
    assert types[tokens.index("<think>")] == 4  # user-defined
    assert (tokens[-1], types[-1]) == (f"[PAD{VOCABULARY - 1}]", 5)  # unused
    assert types[tokens.index("the")] == 1


def test_tensors_come_in_ggufs_order_and_values(folder: Path) -> None:
    weights = llama_weights()
    with open_stream(folder) as stream:
        tensors = {tensor.name: tensor for tensor in stream.tensors}
        names = list(tensors)
        assert names[0] == "token_embd.weight"
        assert names[-1] == "output_norm.weight"
        assert "output.weight" not in names  # tied
        v = tensors["blk.1.attn_v.weight"]
        assert (v.type, v.shape, v.nbytes) == (BlockType.F32, (32, 64), 32 * 64 * 4)
        given = weights["model.layers.1.self_attn.v_proj.weight"]
        assert np.array_equal(v.read().view(np.float32).reshape(32, 64), given)
        q = tensors["blk.0.attn_q.weight"].read().view(np.float32).reshape(HEADS, 16, HIDDEN)
        halves = weights["model.layers.0.self_attn.q_proj.weight"].reshape(HEADS, 2, 8, HIDDEN)
        # value i of either half stands beside the other
        assert np.array_equal(q[:, 0::2], halves[:, 0])
        assert np.array_equal(q[:, 1::2], halves[:, 1])


@pytest.mark.parametrize(
    ("dtype", "type"), [(ml_dtypes.bfloat16, BlockType.BF16), (np.float16, BlockType.F16)]
)
def test_matrices_keep_their_type_and_vectors_become_float32(
    dtype: Any, type: BlockType, tmp_path: Path
) -> None:
    halves = {name: value.astype(dtype) for name, value in llama_weights().items()}
    with open_stream(write_llama(tmp_path / "m", halves)) as stream:
        for tensor in stream.tensors:
            assert tensor.type == (type if len(tensor.shape) == 2 else BlockType.F32), tensor.name
            assert len(tensor.read()) == tensor.nbytes


def test_a_gguf_file_streams_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    metadata = {"general.architecture": "anything", "general.file_type": 0, "some.key": 7}
    values = np.arange(64, dtype=np.float32)
    write_gguf(path, metadata, [TensorData("a", BlockType.F32, (2, 32), values)])
    with open_stream(path) as stream:
        assert stream.metadata == {"general.architecture": "anything", "some.key": 7}
        (tensor,) = stream.tensors
        assert (tensor.name, tensor.shape) == ("a", (2, 32))
        assert np.array_equal(tensor.read().view(np.float32), values)
        tensor.release()
        assert np.array_equal(tensor.read().view(np.float32), values)


def test_an_unknown_architecture_fails_before_any_weight_is_touched(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["MambaForCausalLM"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()  # not even looked for
    with pytest.raises(UnsupportedError) as raised, open_stream(folder):
        pass
    assert "MambaForCausalLM" in str(raised.value)
    assert "LlamaForCausalLM" in str(raised.value)
    assert "Gemma3ForCausalLM" in str(raised.value)


def test_a_missing_shard_is_named(folder: Path) -> None:
    weights = llama_weights()
    half = len(weights) // 2
    names = list(weights)
    (folder / "model.safetensors").unlink()
    save_file({n: weights[n] for n in names[:half]}, folder / "model-00001-of-00002.safetensors")
    shard_of = {
        n: f"model-0000{1 if i < half else 2}-of-00002.safetensors" for i, n in enumerate(names)
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shard_of}))
    with pytest.raises(ModelFileError, match=r"00002-of-00002"), open_stream(folder):
        pass
    save_file({n: weights[n] for n in names[half:]}, folder / "model-00002-of-00002.safetensors")
    with open_stream(folder) as stream:
        assert len(stream.tensors) == len(weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("model.layers.1.mlp.up_proj.weight"), "blk.1.ffn_up.weight' is missing"),
        (lambda w: w.update({"model.extra.weight": np.ones(3, np.float32)}), "would be ignored"),
        (
            lambda w: w.update({"model.norm.weight": np.ones(HIDDEN + 1, np.float32)}),
            r"the shape \(65,\)",
        ),
        (
            lambda w: w.update(
                {"model.layers.0.mlp.up_proj.weight": np.ones((96, HIDDEN), np.int32)}
            ),
            "holds I32",
        ),
    ],
)
def test_wrong_tensors_are_named(change: Any, message: str, tmp_path: Path) -> None:
    weights = llama_weights()
    change(weights)
    folder = write_llama(tmp_path / "m", weights)
    with pytest.raises((ModelFileError, UnsupportedError), match=message), open_stream(folder):
        pass


def test_more_tokens_than_rows_are_refused(tmp_path: Path) -> None:
    weights = llama_weights()
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:200]
    folder = write_llama(tmp_path / "m", weights, vocab_size=200)
    with pytest.raises(ModelFileError, match="the embedding 200 rows"), open_stream(folder):
        pass


def test_a_stored_copy_of_a_tied_head_is_left_out(tmp_path: Path) -> None:
    weights = llama_weights()
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].copy()
    with open_stream(write_llama(tmp_path / "m", weights)) as stream:
        assert "output.weight" not in {tensor.name for tensor in stream.tensors}
