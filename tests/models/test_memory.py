"""What models are said to take in memory, against what processes take."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pocketlm import _native
from pocketlm.errors import ModelFileError
from pocketlm.gguf import BlockType, write_gguf
from pocketlm.models import open_model
from pocketlm.models.build import build_executor
from pocketlm.models.memory import (
    Capacity,
    core_memory,
    decode_reads,
    kv_pages,
    pages_held,
    tokenizer_memory,
)
from pocketlm.models.program import Attention
from pocketlm.text.vocabulary import byte_alphabet

from .test_build import write_random

ONE = Capacity(tokens=1, sequences=1, rows=1, context=1)

# Resident bytes that a tokenizer adds to a process which has built a small one, and the peak.
MEASURE = """
import json, sys
from pocketlm._native import return_freed_memory
from pocketlm.gguf import GGUFFile
from pocketlm.text import Tokenizer

def resident(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))

def build(path):
    with GGUFFile.open(path) as file:
        tokenizer = Tokenizer.from_gguf(file.metadata, "llama")
    del file
    return_freed_memory()
    return tokenizer

small = build(sys.argv[1])
before = resident("VmRSS")
large = build(sys.argv[2])
print(json.dumps({"kept": resident("VmRSS") - before, "building": resident("VmHWM") - before}))
"""


def vocabulary(count: int) -> tuple[list[str], list[str]]:
    """Tokens as merging pairs makes them, and the merges."""
    draw = random.Random(count)
    tokens = list(byte_alphabet())
    known, merges = set(tokens), []
    while len(tokens) < count:
        left, right = (tokens[int(len(tokens) * draw.random() ** power)] for power in (2, 3))
        joined = left + right
        if len(joined) < 15 and joined not in known:
            known.add(joined)
            tokens.append(joined)
            merges.append(f"{left} {right}")
    return tokens, merges


def write_tokenizer(path: Path, kind: str, count: int) -> Path:
    tokens, merges = vocabulary(count)
    metadata = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.ones(count, np.int32),
    }
    if kind == "gpt2":
        metadata |= {"tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.merges": merges}
    else:
        metadata["tokenizer.ggml.scores"] = -np.arange(count, dtype=np.float32)
    write_gguf(path, metadata, [])
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux alone says it so")
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_tokenizer_takes_what_is_said(kind: str, tmp_path: Path) -> None:
    small, large = (write_tokenizer(tmp_path / f"{n}.gguf", kind, n) for n in (1000, 60_000))
    command = [sys.executable, "-c", MEASURE, str(small), str(large)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    spec = open_model(write_random(tmp_path / "m.gguf"))
    tokens, merges = vocabulary(60_000)
    source: dict[str, object] = {"tokenizer.ggml.tokens": tokens}
    if kind == "gpt2":
        source["tokenizer.ggml.merges"] = merges
    predicted = tokenizer_memory(replace(spec, tokenizer_source=source))
    assert predicted.kept == pytest.approx(measured["kept"], rel=0.25, abs=2e6)
    assert 0.8 * measured["building"] < predicted.building < 1.6 * measured["building"]


def test_a_folders_tokenizer_is_sized_by_its_file(tmp_path: Path) -> None:
    spec = open_model(write_random(tmp_path / "m.gguf"))
    config = replace(spec.config, vocab=50_000)
    folder = replace(spec, config=config, tokenizer_source=tmp_path)
    without = tokenizer_memory(folder)  # which is refused when it is loaded
    assert without.kept == without.building
    (tmp_path / "tokenizer.json").write_bytes(bytes(3_000_000))
    found = tokenizer_memory(folder)
    assert (found.kept, found.building) == (without.kept + 6_000_000, 78_000_000)


def test_other_types_than_the_files_are_summed_by_name(tmp_path: Path) -> None:
    spec = open_model(write_random(tmp_path / "m.gguf"))
    own = core_memory(spec, ONE)
    name = "blk.0.ffn_up.weight"
    rows, cols = spec.program.shapes()[name]
    half = core_memory(spec, ONE, {name: BlockType.F16, "of no op": BlockType.Q8_0})
    assert own.weights - half.weights == 2 * rows * cols
    assert (half.kv, half.workspace > 0) == (own.kv, True)
    with pytest.raises(ModelFileError, match=name):
        core_memory(spec, ONE, {name: BlockType.Q4_K})


def test_the_sum_needs_no_weights(tmp_path: Path) -> None:
    path = write_random(tmp_path / "m.gguf")
    spec = open_model(path)
    built = build_executor(open_model(path), threads=3)
    spec.close()  # nothing can be read any more
    capacity = Capacity(tokens=7, sequences=2, rows=5, context=65, threads=3)
    pages = kv_pages(built.windows, capacity)
    assert vars(core_memory(spec, capacity)) == built.requirements(7, 2, 5, pages, "f16")


def test_layers_that_see_everything_keep_the_whole_context_and_the_others_their_window() -> None:
    capacity = Capacity(tokens=512, sequences=1, rows=1, context=4096)
    assert kv_pages([0, 512], capacity) == [128, 33]
    assert kv_pages([512, 0], replace(capacity, context=32_768)) == [33, 1024]
    assert kv_pages([0, 512], replace(capacity, context=1000)) == [32, 32]
    assert kv_pages([0, 1], replace(capacity, tokens=1)) == [128, 1]


def test_sequences_may_share_fewer_positions_than_all_can_have() -> None:
    capacity = Capacity(tokens=512, sequences=4, rows=4, context=4096, pool=5000)
    assert kv_pages([0, 512], capacity) == [157, (4 * 509 + 512) // 32 + 8]
    assert kv_pages([0, 4096], capacity) == [157, 157]
    assert kv_pages([0], replace(capacity, pool=1 << 30)) == [512]


@pytest.mark.parametrize("window", [1, 2, 32, 33, 40, 512])
def test_pages_for_many_sequences_are_enough_for_any_step(window: int) -> None:
    for sequences in (1, 2, 7):
        for tokens in (sequences, 40, 512):
            capacity = Capacity(tokens=tokens, sequences=sequences, rows=1, context=100_000)
            (pages,) = kv_pages([window], capacity)
            for each in {1, tokens // sequences}:
                last = tokens - (sequences - 1) * each
                new = [each] * (sequences - 1) + [last]
                assert sum(pages_held(window, 100_000, n, 32) for n in new) <= pages


def test_what_a_decoded_token_reads(tmp_path: Path) -> None:
    """Every matrix once, and the keys and values that each layer still sees."""
    spec = open_model(write_random(tmp_path / "m.gguf"))
    shapes = spec.program.shapes()
    assert "output.weight" not in shapes  # the embedding is, whole, the output matrix
    read = [shape for shape in shapes.values() if len(shape) == 2]
    weights = sum(_native.Weight.plan(0, rows, cols).nbytes for rows, cols in read)
    ops = list(spec.program.ops)
    layers = [i for i, op in enumerate(ops) if isinstance(op, Attention)]
    for i, window in zip(layers, (16, 0), strict=True):
        ops[i] = replace(ops[i], window=window)
    spec = replace(spec, program=replace(spec.program, ops=tuple(ops)))
    for positions, seen in ((10, 10 + 10), (1000, 16 + 1000)):
        found = decode_reads(spec, positions, "f32")
        assert found.weights == weights
        head = ops[layers[0]].kv_heads * ops[layers[0]].head_dim
        assert found.kv == 2 * 4 * head * seen
        assert decode_reads(spec, positions).kv == found.kv // 2
    spec.close()
