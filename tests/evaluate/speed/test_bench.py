"""A small run in real processes, and what is made of samples."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

import pocketlm
from engine.tiny_file import write_tiny_model
from pocketlm import _native
from pocketlm.advise.speed_tables import markdown_text
from pocketlm.errors import PocketLMError, RequestError, UnsupportedError
from pocketlm.evaluate.speed import bench
from pocketlm.evaluate.speed.contenders import Setup, open_contender, require_peers
from pocketlm.evaluate.speed.plan import Question
from pocketlm.evaluate.speed.processes import EngineProcess
from pocketlm.evaluate.speed.results import Failure, Row, Samples


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.gguf")


def setup(path: Path, engine: str = "pocketlm", sequences: int = 1) -> Setup:
    return Setup(
        engine=engine, path=str(path), context=64, sequences=sequences, threads=1, kv="f16"
    )


def test_a_run(model: Path) -> None:
    found = pocketlm.bench(model, prompt=8, generate=4, depth=16, batch=[2], rounds=1, threads=1)
    assert list(found.engines) == ["pocketlm"]
    assert found.engines["pocketlm"] == f"{pocketlm.__version__}, {_native.isa()}"
    assert len(found.read_bandwidth.values) == 2
    (one,) = found.models
    assert (one.model, one.type, one.file) == (str(model), "F32", model.stat().st_size)
    assert one.failures == one.agreements == ()
    labels = [row.label for row in one.rows]
    assert labels == [
        *("prefill 8", "decode 4", "decode 4 at 16", "decode 1 × 2", "first token", "peak memory")
    ]
    for row in one.rows:
        assert row.engines["pocketlm"].median > 0
        assert row.ratio is row.better is None
    for traffic in one.traffic:
        speed = next(r for r in one.rows if r.measure == traffic.measure).engines["pocketlm"]
        read = (traffic.weights + traffic.kv) * speed.median
        assert traffic.reached == pytest.approx(read / found.read_bandwidth.median)


@pytest.mark.parametrize("sequences", [1, 3])
def test_our_timing_counts_all_tokens(model: Path, sequences: int) -> None:
    contender = open_contender(setup(model, sequences=sequences))
    timing = contender.answer(Question(sequences, 8, 5))
    assert len(timing.first_tokens) == sequences
    assert timing.prefill_tokens == 8 * sequences
    assert timing.decode_tokens == 5 * sequences
    assert timing.prefill_s > 0
    assert timing.decode_s > 0


def test_a_process_says_what_went_wrong(tmp_path: Path, model: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"no model")
    with pytest.raises(PocketLMError, match=r"broken\.gguf"):
        EngineProcess(setup(broken))
    with EngineProcess(setup(model)) as process:
        with pytest.raises(PocketLMError, match="context"):
            process.ask(Question(1, 100, 1))
        with pytest.raises(PocketLMError, match="the process ended with status 0"):
            process.ask(Question(1, 1, 1))


def test_a_process_that_is_killed_is_told_from_one_that_ends(model: Path) -> None:
    with EngineProcess(setup(model)) as process:
        assert process.ask(Question(1, 8, 1)).decode_tokens == 1
        assert process.peak_memory is not None
        process._process.kill()
        process._process.wait()
        wanted = "signal 9" if sys.platform != "win32" else "status"
        with pytest.raises(PocketLMError, match=wanted):
            process.ask(Question(1, 8, 1))


def test_unknown_peers_are_refused() -> None:
    with pytest.raises(RequestError, match="'llama'"):
        require_peers(["llama"])


@pytest.mark.parametrize(("peer", "module"), [("llamacpp", "xllamacpp"), ("ik", "ik_llama_cpp")])
def test_a_peer_that_is_not_installed_is_named_with_the_command(
    peer: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == module else find(name)
    )
    with pytest.raises(UnsupportedError, match=rf"pip install 'pocketlm\[{peer}\]'"):
        require_peers([peer])


def test_samples() -> None:
    found = Samples((3.0, 1.0, 2.0, 10.0))
    assert (found.median, found.least, found.most) == (2.5, 1.0, 10.0)


def test_ratios_are_against_the_better_peer() -> None:
    more = {"pocketlm": Samples((30.0,)), "llamacpp": Samples((10.0,)), "ik": Samples((20.0,))}
    row = Row("decode", "decode", "tokens/s", more)
    assert (row.better, row.ratio) == ("ik", 1.5)
    less = {"pocketlm": Samples((2.0,)), "llamacpp": Samples((1.0,)), "ik": Samples((4.0,))}
    row = Row("first_token", "first token", "s", less)
    assert (row.better, row.ratio) == ("llamacpp", 0.5)
    row = Row("decode", "decode", "tokens/s", {"ik": Samples((4.0,))})
    assert (row.better, row.ratio) == ("ik", None)


def test_read_bandwidth_reads() -> None:
    rates = _native.read_bandwidth(2, 4 << 20, 3)
    assert len(rates) == 3
    assert all(1e8 < rate < math.inf for rate in rates)
    with pytest.raises(ValueError, match="1 MiB"):
        _native.read_bandwidth(1, 0, 1)
    with pytest.raises(ValueError, match="pass"):
        _native.read_bandwidth(1, 1 << 20, 0)


@pytest.mark.oracle
@pytest.mark.parametrize(("peer", "module"), [("llamacpp", "xllamacpp"), ("ik", "ik_llama_cpp")])
def test_a_peer_answers_as_we_do(peer: str, module: str, model: Path) -> None:
    pytest.importorskip(module)
    question = Question(3, 20, 4)
    timings = []
    for engine in ("pocketlm", peer):
        with EngineProcess(setup(model, engine, sequences=3)) as process:
            timings.append(process.ask(question))
    ours, theirs = timings
    assert theirs.prefill_tokens == ours.prefill_tokens == 60
    assert theirs.decode_tokens == ours.decode_tokens == 12
    assert theirs.first_tokens == ours.first_tokens


def test_a_peer_that_loads_no_model_has_a_column_that_says_so(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_engine(setup: Setup) -> EngineProcess:
        if setup.engine == "ik":
            raise PocketLMError("no, thanks")
        return EngineProcess(setup)

    monkeypatch.setattr(bench, "EngineProcess", open_engine)
    monkeypatch.setattr(bench, "require_peers", lambda names: None)
    found = bench.bench(
        model, against=["ik"], prompt=4, generate=1, depth=0, batch=[], rounds=1, threads=1
    )
    assert list(found.engines) == ["pocketlm", "ik"]
    assert found.engines["ik"] == ""
    assert found.models[0].failures == (Failure("ik", None, "no, thanks"),)
    text = markdown_text(found)
    assert "| measure | in | PocketLM | ik_llama.cpp | ratio |" in text
    assert text.count(" | – | – |") == len(found.models[0].rows)
    assert "- ik_llama.cpp: loaded no model\n" in text
    assert "- ik_llama.cpp, loading: no, thanks\n" in text
