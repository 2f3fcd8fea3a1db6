"""Files of every type that ``pocketlm quantize`` writes, loaded and run by llama.cpp.

Both engines compute from the same blocks, so their logits agree but for activations: llama.cpp
rounds them to 8 bits in blocks of 256 for K types and of 32 for others, the core in blocks of 32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pocketlm
from pocketlm.gguf import GGUFFile, TensorData, write_gguf
from pocketlm.models import open_model
from pocketlm.quantize.file_types import FILE_TYPES
from quantize.small import VOCAB, random_tokens, write_model

from .conftest import run_native
from .llamacpp import LlamaCpp

pytestmark = pytest.mark.oracle

LENGTH = 16  # the models' sliding window, which llama.cpp ignores in llama and phi3
RELATIVE = 0.06  # root mean square of the difference, relative to that of the logits


@pytest.fixture(scope="module", params=["llama", "qwen3", "gemma3", "phi3"])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that llama.cpp takes without a tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    arch = request.param
    path = folder / f"{arch}.gguf"
    with GGUFFile.open(write_model(folder / "bare.gguf", arch)) as file:
        known = {"tokenizer.ggml.model": "no_vocab", f"{arch}.vocab_size": VOCAB}
        tensors = [
            TensorData(name, info.type, info.shape, file.tensor_bytes(name))
            for name, info in file.tensors.items()
        ]
        write_gguf(path, {**file.metadata, **known}, tensors)
    return path


@pytest.mark.parametrize("type", FILE_TYPES)
def test_llama_cpp_runs_what_is_written(original: Path, tmp_path: Path, type: str) -> None:
    out = tmp_path / "q.gguf"
    pocketlm.quantize(original, out, type, threads=1)
    [tokens] = random_tokens(1, LENGTH)
    with LlamaCpp(out) as llama:
        theirs = llama.all_logits(tokens)
    spec = open_model(out)
    ours = run_native(spec, tokens)
    spec.close()
    assert theirs.shape == ours.shape == (LENGTH, VOCAB)
    difference = np.sqrt(np.mean((ours - theirs) ** 2)) / np.sqrt(np.mean(theirs**2))
    assert difference < (1e-3 if type == "F32" else RELATIVE), difference
