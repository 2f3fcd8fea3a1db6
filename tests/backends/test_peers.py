"""llama.cpp and ik_llama.cpp through their C API: their logits are ours, however they are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.tiny_file import write_tiny_model
from pocketlm.backends import NativeBackend
from pocketlm.backends.ik import IkLlamaCpp
from pocketlm.backends.llama_api import require_layout
from pocketlm.backends.llamacpp import LlamaCpp
from pocketlm.errors import RequestError, UnsupportedError

pytestmark = pytest.mark.oracle

MODULES = {LlamaCpp: "xllamacpp", IkLlamaCpp: "ik_llama_cpp"}


@pytest.fixture(params=MODULES, ids=lambda peer: peer.name)
def peer(request: pytest.FixtureRequest) -> Any:
    pytest.importorskip(MODULES[request.param])
    return request.param


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("peers") / "tiny.gguf")


TOKENS = np.arange(40, 60, dtype=np.int32)


def test_logits_are_ours(peer: Any, model: Path) -> None:
    with NativeBackend.open(model, context=64, threads=1) as backend:
        ours = backend.logits(TOKENS)
    with peer(model, context=64, threads=1) as theirs:
        assert theirs.vocabulary == ours.shape[1]
        theirs.decode(TOKENS, 0, all_logits=True)
        found = np.stack([theirs.logits(i) for i in range(len(TOKENS))])
        np.testing.assert_allclose(found, ours, rtol=0, atol=0.02)
        theirs.clear()
        theirs.decode(TOKENS[:12], 0)
        theirs.decode(TOKENS[12:], 12)
        np.testing.assert_allclose(theirs.logits(-1), ours[-1], rtol=0, atol=0.02)


def test_sequences_do_not_see_each_other(peer: Any, model: Path) -> None:
    with peer(model, context=64, threads=1) as alone:
        expected = []
        for first in (0, 5):
            alone.clear()
            alone.decode(TOKENS[first : first + 10], 0)
            alone.decode(TOKENS[:1], 10)
            expected.append(alone.logits(-1).copy())
    with peer(model, context=64, threads=1, sequences=2) as both:
        for sequence, first in enumerate((0, 5)):
            both.decode(TOKENS[first : first + 10], 0, sequence=sequence)
        both.decode_each(TOKENS[[0, 0]], 10)
        for sequence in range(2):
            np.testing.assert_allclose(both.logits(sequence), expected[sequence], rtol=0, atol=0.02)
    assert np.abs(expected[0] - expected[1]).max() > 0.1


def test_what_cannot_be_loaded(peer: Any, tmp_path: Path) -> None:
    path = tmp_path / "no.gguf"
    path.write_bytes(b"no model")
    with pytest.raises(UnsupportedError, match=peer.name):
        peer(path, context=64, threads=1)


def test_batches_that_do_not_fit(peer: Any, model: Path) -> None:
    with peer(model, context=64, threads=1) as theirs:
        for count in (0, 600):
            with pytest.raises(RequestError, match=f"a batch of {count} tokens"):
                theirs.decode(np.zeros(count, np.int32), 0)


def test_versions(peer: Any, model: Path) -> None:
    with peer(model, context=64, threads=1) as theirs:
        assert MODULES[peer].replace("_", "-") in theirs.version
        assert theirs.system_info
        assert "=" not in theirs.system_info


def test_another_layout_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="lays out its parameters"):
        require_layout("llama.cpp", [512, 0], [512, 2048])
