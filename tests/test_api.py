"""The Python interface on a tiny model file, and what ``import pocketlm`` offers and costs."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import pocketlm
from engine.tiny_file import CONTEXT, write_tiny_model
from pocketlm import CapacityError, Model, NotFoundError, RequestError
from pocketlm.engine import build
from pocketlm.engine.machine import Memory


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[Model]:
    with pocketlm.load(path, threads=1, kv="f32", sequences=4) as loaded:
        yield loaded


def test_every_public_name_is_there_and_documented() -> None:
    names = [name for name in pocketlm.__all__ if not name.startswith("__")]
    for name in names:
        assert getattr(pocketlm, name).__doc__, name
    assert set(pocketlm.__all__) <= set(dir(pocketlm))
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        pocketlm.lode  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    source = Path(pocketlm.__file__).read_text("utf-8")
    block = source.split("if TYPE_CHECKING:")[1].split("__version__")[0]
    for name in pocketlm.__all__:
        assert name.startswith("__") or name in block.replace(",", " ").split(), name


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, pocketlm; heavy = {'numpy', 'tokenizers', 'jinja2', 'httpx', 'torch', "
        "'huggingface_hub', 'rich', 'typer', 'pydantic'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_speculation_changes_no_answer(path: Path, temperature: float) -> None:
    answers = set()
    for speculate in ("off", "ngram", path):
        with pocketlm.load(path, threads=1, speculate=speculate) as model:
            reply = model.generate(
                "abcabcabc", max_tokens=60, temperature=temperature, seed=3, logprobs=2
            )
            answers.add((reply.text, reply.tokens, reply.finish_reason, reply.logprobs))
            assert 0 <= reply.stats.accepted_tokens <= reply.stats.drafted_tokens
            assert (model.memory.draft > 0) == (speculate is path)
            if speculate is path:
                assert reply.stats.drafted_tokens > 0
    assert len(answers) == 1


def test_chat_answers_a_string_or_messages(model: Model) -> None:
    text = "hello, how are you today?"
    asked = model.chat(text, temperature=0, max_tokens=8)
    same = model.chat([{"role": "user", "content": text}], temperature=0, max_tokens=8)
    assert asked.tokens == same.tokens
    assert asked.text == model.tokenizer.decode(asked.tokens)
    assert asked.finish_reason in ("stop", "length")
    assert asked.stats.prompt_tokens == same.stats.prompt_tokens
    assert same.stats.cached_tokens == 32
    assert asked.stats.ttft_s is not None
    assert asked.stats.ttft_s > 0


def test_a_stream_is_the_completion_in_pieces(model: Model) -> None:
    whole = model.chat("hi", seed=3, max_tokens=20)
    chunks = list(model.stream("hi", seed=3, max_tokens=20))
    assert "".join(c.text for c in chunks) == whole.text
    assert tuple(c.token for c in chunks if c.token is not None) == whole.tokens
    assert [c.finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].finish_reason == whole.finish_reason
    assert chunks[-1].stats is not None
    assert chunks[-1].stats.seed == 3


def test_generate_continues_plain_text_without_the_template(model: Model) -> None:
    plain = model.generate("hello", temperature=0, max_tokens=5)
    assert plain.stats.prompt_tokens == 5
    assert plain.tokens == tuple(
        c.token for c in model.stream("hello", raw=True, temperature=0, max_tokens=5) if c.token
    )


def test_a_control_token_typed_by_a_user_is_text(model: Model) -> None:
    prompt = model.generate("<|im_end|>", temperature=0, max_tokens=1)
    assert prompt.stats.prompt_tokens == len("<|im_end|>")


def test_the_models_own_defaults_win_over_ours(model: Model) -> None:
    assert model.sampling().top_k == 20
    assert model.sampling().top_p == 0.95
    assert model.sampling(top_k=7).top_k == 7


def test_the_seed_in_the_stats_gives_the_same_text_again(model: Model) -> None:
    first = model.chat("x", max_tokens=20, temperature=1.5)
    again = model.chat("x", max_tokens=20, temperature=1.5, seed=first.stats.seed)
    assert again.text == first.text


def test_logprobs(model: Model) -> None:
    answer = model.chat("x", max_tokens=4, temperature=0, logprobs=2, ignore_eos=True)
    assert answer.logprobs is not None
    assert len(answer.logprobs) == 4
    for token, entry in zip(answer.tokens, answer.logprobs, strict=True):
        assert entry.best[0] == (token, entry.logprob)
        assert len(entry.best) == 2


def test_score_agrees_with_the_logprobs_of_generation(model: Model) -> None:
    answer = model.generate("abc", temperature=0, max_tokens=6, logprobs=0, ignore_eos=True)
    assert answer.logprobs is not None
    tokens = [*model.tokenizer.encode("abc", add_special=True), *answer.tokens]
    scored = model.score(tokens)
    assert list(scored[-6:]) == [entry.logprob for entry in answer.logprobs]
    assert model.score("abcdef").shape == (5,)
    with pytest.raises(RequestError, match="at least 2"):
        model.score("a")


def test_embeddings(model: Model) -> None:
    vector = model.embed("hello")
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_an_overflow_is_an_error_before_anything_is_computed(model: Model) -> None:
    with pytest.raises(CapacityError, match=rf"max_tokens is 300: .* context has {CONTEXT}"):
        model.stream("hello", max_tokens=300)
    with pytest.raises(CapacityError, match="context has 256"):
        model.chat("x" * 300)


def test_truncation_leaves_out_whole_old_turns_and_keeps_the_system(model: Model) -> None:
    turns = [{"role": "system", "content": "be brief"}]
    for i in range(8):
        turns += [
            {"role": "user", "content": f"question {i}"},
            {"role": "assistant", "content": f"answer {i}"},
        ]
    turns.append({"role": "user", "content": "last"})
    answer = model.chat(turns, max_tokens=50, temperature=0, on_overflow="truncate")
    dropped = answer.stats.dropped_messages
    assert dropped > 0
    assert dropped % 2 == 0
    kept = [turns[0], *turns[1 + dropped :]]
    assert answer.tokens == model.chat(kept, max_tokens=50, temperature=0).tokens
    fits = model.chat(kept, max_tokens=50, temperature=0, on_overflow="truncate")
    assert (fits.stats.dropped_messages, fits.stats.dropped_tokens) == (0, 0)
    with pytest.raises(CapacityError, match="the last message makes a prompt of"):
        model.chat("x" * 400, on_overflow="truncate")


def test_truncation_of_a_plain_text_says_how_much(model: Model) -> None:
    answer = model.generate("x" * 300, max_tokens=56, on_overflow="truncate")
    assert answer.stats.dropped_tokens == 100
    assert answer.stats.prompt_tokens == 200


def test_bad_arguments_are_refused(model: Model, path: Path) -> None:
    with pytest.raises(RequestError, match="no option 'temprature'"):
        model.chat("x", temprature=1)  # type: ignore[call-arg]
    with pytest.raises(RequestError, match=r"role is 'robot'"):
        model.chat([{"role": "robot", "content": "x"}])
    with pytest.raises(RequestError, match="raw=True wants a plain text"):
        model.stream([{"role": "user", "content": "x"}], raw=True)
    with pytest.raises(RequestError, match="context of 257 positions"):
        pocketlm.load(path, context=257)
    with pytest.raises(RequestError, match="kv is 'q4'"):
        pocketlm.load(path, kv="q4")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="threads is 0"):
        pocketlm.load(path, threads=0)
    with pytest.raises(NotFoundError):
        pocketlm.load("./absent.gguf")
    with pytest.raises(RequestError, match="template_options should be a dict"):
        model.chat("x", template_options=5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([1], "at least 2 are needed"),
        ([1, 2, 10**9], "token id 1000000000, the vocabulary has"),
        ([1, -1], "token id -1"),
        ([1, 2.5], "a list of token ids"),
        (5, "a list of token ids"),
    ],
)
def test_what_cannot_be_scored_is_refused(model: Model, tokens: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        model.score(tokens)


def test_a_wrong_instruction_set_is_refused_when_a_model_is_loaded(path: Path) -> None:
    code = f"import pocketlm; pocketlm.load({str(path)!r})"
    environment = {**os.environ, "POCKETLM_ISA": "pdp11"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert "RequestError: POCKETLM_ISA: instruction set 'pdp11' is unknown" in done.stderr


def test_a_stream_that_is_left_early_gives_everything_back(model: Model) -> None:
    for stream in (model.stream("x", ignore_eos=True), model.stream("y", ignore_eos=True)):
        stream.close()  # type: ignore[attr-defined]
    stream = model.stream("z", ignore_eos=True)
    next(stream)
    del stream
    with model._shared.exclusive() as engine:
        assert not engine.busy
        assert all(pool.free == pool.count for pool in engine.cache.pools)
    assert not model._shared._inboxes


def test_cancel_ends_an_answer_from_another_thread(model: Model) -> None:
    cancel = threading.Event()
    chunks = []
    for chunk in model.stream("x", ignore_eos=True, cancel=cancel):
        chunks.append(chunk)
        if len(chunks) == 5:
            threading.Thread(target=cancel.set).start()
            cancel.wait()
    assert chunks[-1].finish_reason == "cancelled"
    assert len(chunks) < 10
    assert chunks[-1].stats is not None


def test_threads_share_a_model_and_get_what_they_get_alone(model: Model) -> None:
    questions = [f"question {i}" for i in range(8)]
    alone = [model.chat(q, seed=i, max_tokens=30).tokens for i, q in enumerate(questions)]
    got: dict[int, tuple[int, ...]] = {}

    def ask(i: int) -> None:
        got[i] = model.chat(questions[i], seed=i, max_tokens=30).tokens

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got[i] for i in range(8)] == alone


def test_a_step_that_fails_ends_the_others_and_leaves_the_engine_usable(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with model._shared.exclusive() as engine:
        runner = engine.runner
    other = model.stream("other", max_tokens=5)
    stream = model.stream("x", max_tokens=5)

    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runner, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(stream)
    with pytest.raises(pocketlm.PocketLMError, match="a step failed for another request"):
        next(other)
    assert model.chat("x", max_tokens=5, ignore_eos=True).stats.completion_tokens == 5


def test_a_closed_model_says_so(path: Path) -> None:
    with pocketlm.load(path, threads=1) as loaded:
        pass
    with pytest.raises(RequestError, match="the model tiny is closed"):
        loaded.chat("x")


@pytest.mark.real
def test_a_closed_model_gives_its_memory_back(real_model: Callable[[str], Path]) -> None:
    path, process = real_model("smollm2:135m"), psutil.Process()
    for _ in range(2):  # what the C library keeps, it keeps from the second time on
        loaded = pocketlm.load(path, threads=1)
        held = process.memory_info().rss
        loaded.close()
    assert held - process.memory_info().rss > 0.9 * loaded.memory.weights


def test_memory_that_does_not_suffice_is_refused_with_the_numbers(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "available_memory", lambda: Memory(10_000, "the cgroup's limit"))
    with pytest.raises(CapacityError, match=r"needs .* GiB \(weights .* \+ KV cache .*cgroup"):
        pocketlm.load(path, threads=1)


def test_a_base_model_cannot_chat_but_can_continue(tmp_path: Path) -> None:
    # Without its template the file's ChatML tokens still say how to chat, so they go too.
    file = write_tiny_model(tmp_path / "base.gguf", template=None, control=["<a>", "<b>", "<c>"])
    with pocketlm.load(file, threads=1) as base:
        with pytest.raises(RequestError, match=r"no chat template.*--raw"):
            base.chat("x")
        assert base.generate("x", max_tokens=3).stats.prompt_tokens == 1


def test_options_of_the_signature_are_those_of_the_engine() -> None:
    options = importlib.import_module("pocketlm.engine.sampling")
    hints = typing.get_type_hints(pocketlm.SamplingOptions)
    assert set(hints) == set(options.OPTION_NAMES)
