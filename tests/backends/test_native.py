"""The native engine as a backend: blocks are rows of the whole sequence, whatever is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import pocketlm
from engine import tiny_file
from pocketlm.backends import Ints, NativeBackend, native
from pocketlm.engine import build
from pocketlm.engine.machine import Memory
from pocketlm.errors import CapacityError, NotFoundError, RequestError
from pocketlm.evaluate.divergence import Divergence, DivergenceMeter
from pocketlm.quantize.quantization import quantize

ROOT = Path(__file__).parents[2]
CONTEXT = 100
VOCAB = 260


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_file.write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture
def backend(path: Path) -> Iterator[NativeBackend]:
    with NativeBackend.open(path, context=CONTEXT, threads=1) as opened:
        yield opened


def tokens(seed: int, count: int = CONTEXT) -> Ints:
    return np.random.default_rng(seed).integers(0, VOCAB, count, dtype=np.int32)


def test_it_says_what_it_is(backend: NativeBackend) -> None:
    assert (backend.vocabulary, backend.context, backend.threads) == (VOCAB, CONTEXT, 1)
    assert backend.memory.total > backend.memory.weights > 0
    assert backend.logits(tokens(0)).shape == (CONTEXT, VOCAB)


@pytest.mark.parametrize(
    ("first", "rows"), [(0, 1), (0, 7), (50, 7), (50, None), (99, 3), (60, 40)]
)
def test_blocks_are_rows_of_the_whole(backend: NativeBackend, first: int, rows: int | None) -> None:
    whole = backend.logits(tokens(0))
    backend.logits(tokens(1))  # so that the cache has another sequence
    size = rows or backend.block_rows
    blocks = list(backend.blocks(tokens(0), first=first, rows=rows))
    assert [len(block) for block in blocks[:-1]] == [size] * (len(blocks) - 1)
    assert np.concatenate(blocks).tobytes() == whole[first:].tobytes()


def test_a_prefix_longer_than_a_step_is_computed_in_several(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NativeBackend.open(path, context=256, threads=1) as one:
        whole = one.logits(tokens(0, 256))
    monkeypatch.setattr("pocketlm.backends.native._STEP_TOKENS", 1)
    with NativeBackend.open(path, context=256, threads=1) as other:
        assert other._built is not None
        assert other._built.engine.runner.max_tokens < 130  # never below the rows of a block
        (last,) = other.blocks(tokens(0, 256), first=255)
    assert last.tobytes() == whole[255:].tobytes()


def test_what_the_cache_has_is_not_computed_again(
    backend: NativeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The choices of a question begin alike; their logits are as if each had been alone."""
    assert backend._built is not None
    computed: list[int] = []
    runner = backend._built.engine.runner
    step = runner.step
    monkeypatch.setattr(
        runner, "step", lambda batch: (computed.append(len(batch.tokens)), step(batch))[1]
    )
    one, other = tokens(0), tokens(0)
    other[80:] = tokens(1)[80:]
    backend.logits(other[:CONTEXT])
    alone = backend.logits(other)[79:]
    list(backend.blocks(one, first=79))
    computed.clear()
    found = np.concatenate(list(backend.blocks(other, first=79)))
    assert sum(computed) == CONTEXT - 79
    assert found.tobytes() == alone.tobytes()
    computed.clear()
    backend.logits(other)  # rows of the shared part are wanted, so it is computed
    assert sum(computed) == CONTEXT


def test_pages_of_windows_go_round(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is left in them of sequences before, the next one's logits are its own."""
    windowed = tiny_file.write_tiny_model(path.with_name("windowed.gguf"), window=40)
    with NativeBackend.open(windowed, context=256, threads=1) as whole:
        wanted = {}
        for shared in (0, 20, 130, 180, 250):
            ids = np.concatenate([tokens(0, shared), tokens(shared, 256 - shared)])
            wanted[shared] = ids, whole.logits(ids)
    monkeypatch.setattr(native, "_STEP_TOKENS", 32)
    monkeypatch.setattr(native, "_ROWS", 16)
    rng = np.random.default_rng(7)
    with NativeBackend.open(windowed, context=256, threads=1) as backend:
        assert backend._built is not None
        assert list(backend._built.engine.runner.pages) == [4]
        for _ in range(60):
            ids, logits = wanted[int(rng.choice(list(wanted)))]
            length = int(rng.integers(1, 257))
            first = int(rng.integers(0, length))
            found = np.concatenate(list(backend.blocks(ids[:length], first=first)))
            assert found.tobytes() == logits[first:length].tobytes()


def test_a_sequence_left_early_does_not_spoil_the_next(backend: NativeBackend) -> None:
    whole = backend.logits(tokens(0))
    left = backend.blocks(tokens(1), rows=10)
    next(left)
    assert np.concatenate(list(backend.blocks(tokens(0), first=50))).tobytes() == (
        whole[50:].tobytes()
    )
    with pytest.raises(RequestError, match="another sequence was begun"):
        next(left)


def test_what_makes_no_sense_is_refused_before_anything_is_computed(
    backend: NativeBackend,
) -> None:
    with pytest.raises(CapacityError, match="101 tokens, but the context has 100"):
        backend.blocks(tokens(0, 101))
    with pytest.raises(RequestError, match="token id 260"):
        backend.blocks(np.array([0, VOCAB], np.int32))
    with pytest.raises(RequestError, match="no tokens"):
        backend.blocks(tokens(0, 0))
    for first in (-1, CONTEXT):
        with pytest.raises(RequestError, match="first row"):
            backend.blocks(tokens(0), first=first)
    for rows in (0, backend.block_rows + 1):
        with pytest.raises(RequestError, match="rows is"):
            backend.blocks(tokens(0), rows=rows)


def test_a_closed_backend_says_so(path: Path) -> None:
    backend = NativeBackend.open(path, context=10, threads=1)
    backend.close()
    backend.close()
    with pytest.raises(RequestError, match="closed"):
        backend.logits(tokens(0, 3))


def test_memory_is_asked_for_in_advance(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "available_memory", lambda: Memory(1000, "RAM"))
    with pytest.raises(CapacityError, match="GiB are left of RAM"):
        NativeBackend.open(path, context=10, threads=1)


def test_what_cannot_be_opened_is_said(path: Path) -> None:
    with pytest.raises(NotFoundError):
        NativeBackend.open(path.with_name("none.gguf"), context=10)
    with pytest.raises(RequestError, match="the model was made for 256"):
        NativeBackend.open(path, context=257)


def divergence_of_q8(path: Path, ids: Ints) -> Divergence:
    """Of the same model with its cache in f16, over one window."""
    found = []
    for kv in ("f16", "q8"):
        with NativeBackend.open(path, context=len(ids), threads=1, kv=kv) as backend:
            found.append(backend.logits(ids[:-1]))
    meter = DivergenceMeter()
    meter.add(found[0], found[1], ids[1:])
    meter.end_sequence()
    return meter.result()


def test_a_cache_in_8_bits_changes_little(path: Path) -> None:
    found = divergence_of_q8(path, tokens(0))
    assert 0 < found.mean < 1e-3


@pytest.mark.real
def test_a_cache_in_8_bits_changes_little_of_a_real_model(
    real_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """Its keys have channels that are far larger than others: not rotated, this would be 1.3e-3.

    With float weights: 8-bit activations answer any change, however small, with other roundings.
    """
    path = tmp_path / "f16.gguf"
    quantize(real_model("smollm2:135m"), path, "F16", allow_requantize=True)
    text = (ROOT / "docs" / "explanation" / "exactness.md").read_text(encoding="utf-8")
    with pocketlm.load(path, threads=1) as model:
        ids = np.array(model.tokenizer.encode(text)[:400], np.int32)
    assert 0 < divergence_of_q8(path, ids).mean < 1e-3
