"""From files to numbers on a tiny model, through ``pocketlm.evaluate``."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pocketlm
from engine import tiny_file
from pocketlm.engine.machine import Memory
from pocketlm.evaluate.questions import Question
from pocketlm.evaluate.texts import CALIBRATION_KEY, text_hash
from pocketlm.gguf import GGUFFile, TensorData, write_gguf
from pocketlm.progress import Progress

TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom. " * 5
OPTIONS: dict[str, Any] = {"context": 32, "threads": 1}
QUESTIONS = [
    Question(f"What is {i}?", ("this", "that", "a third thing"), i % 3, "") for i in range(7)
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_file.write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with noise on its weights."""
    folder = tmp_path_factory.mktemp("noisy")
    tensors = tiny_file._tensors

    def noisy(vocab: int) -> list[Any]:
        found = tensors(vocab)
        rng = np.random.default_rng(1)
        for tensor in found:
            tensor.data[...] += 0.05 * rng.standard_normal(tensor.data.shape).astype(np.float32)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_file, "_tensors", noisy)
        return tiny_file.write_tiny_model(folder / "noisy.gguf")


def test_perplexity_is_what_score_says(path: Path) -> None:
    found = pocketlm.evaluate(path, text=TEXT, **OPTIONS)
    assert found.perplexity is not None
    with pocketlm.load(path, threads=1) as model:
        ids = model.tokenizer.encode(TEXT)
        whole = [ids[i : i + 32] for i in range(0, len(ids) - 31, 32)]
        parts = [model.score(window)[16:] for window in whole]
    assert found.perplexity.tokens == sum(map(len, parts)) == 15 * len(whole)
    assert found.perplexity.nll == pytest.approx(-np.mean(parts), rel=1e-12)
    assert (found.model, found.reference, found.divergence, found.task) == (
        "tiny",
        None,
        None,
        None,
    )


def test_a_file_is_read_as_the_text_is(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text(TEXT + "\n", encoding="utf-8", newline="")
    options = {**OPTIONS, "context": 5, "stride": 3}
    assert pocketlm.evaluate(path, text=file, **options) == pocketlm.evaluate(
        path, text=TEXT, **options
    )


def test_a_text_that_calibrated_the_model_is_refused(path: Path, tmp_path: Path) -> None:
    with GGUFFile.open(path) as file:
        metadata = {**file.metadata, CALIBRATION_KEY: [text_hash(TEXT)]}
        tensors = [
            TensorData(info.name, info.type, info.shape, file.tensor_bytes(info.name))
            for info in file.tensors.values()
        ]
        write_gguf(tmp_path / "calibrated.gguf", metadata, tensors)
    with pytest.raises(pocketlm.RequestError, match="calibrated on this very text"):
        pocketlm.evaluate(tmp_path / "calibrated.gguf", text=TEXT + "\n", **OPTIONS)
    assert pocketlm.evaluate(tmp_path / "calibrated.gguf", text=TEXT + "More.", **OPTIONS)


def test_max_tokens_cuts_the_text(path: Path) -> None:
    few = pocketlm.evaluate(path, text=TEXT, max_tokens=70, **OPTIONS)
    assert few.perplexity is not None
    assert few.perplexity.sequences == 2
    strided = pocketlm.evaluate(path, text=TEXT, max_tokens=70, stride=8, **OPTIONS)
    assert strided.perplexity is not None
    assert strided.perplexity.tokens == 69


def test_against_itself_and_against_another(path: Path, other: Path) -> None:
    same = pocketlm.evaluate(path, text=TEXT, reference=path, task=QUESTIONS, **OPTIONS)
    assert same.divergence is not None
    assert same.flips is not None
    assert same.divergence.mean == 0
    assert same.flips.answer_changed == 0
    found = pocketlm.evaluate(other, text=TEXT, reference=path, task=QUESTIONS, **OPTIONS)
    assert found.divergence is not None
    assert found.perplexity is not None
    assert found.divergence.mean > 0
    alone = pocketlm.evaluate(other, text=TEXT, **OPTIONS)
    assert alone.perplexity is not None
    assert found.perplexity.nll == pytest.approx(alone.perplexity.nll, rel=1e-12)
    ratio = math.log(found.perplexity.perplexity / found.divergence.reference_perplexity)
    assert found.divergence.log_perplexity_ratio == pytest.approx(ratio, rel=1e-9)
    assert found.reference_task == same.task
    alone = pocketlm.evaluate(other, task=QUESTIONS, threads=1)
    assert alone.task == found.task


def test_a_task_from_a_file(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "task.jsonl"
    lines = [{"question": q.prompt, "choices": q.choices, "answer": q.answer} for q in QUESTIONS]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    found = pocketlm.evaluate(path, task=file, threads=1)
    assert found.task is not None
    assert found.task == pocketlm.evaluate(path, task=QUESTIONS, threads=1).task
    assert found.task.questions == 7
    assert found.perplexity is None


def test_models_of_other_vocabularies_can_answer_the_same_questions(
    path: Path, tmp_path: Path
) -> None:
    larger = _other_words(tmp_path, more=1)
    found = pocketlm.evaluate(path, reference=larger, task=QUESTIONS, threads=1)
    assert found.flips is not None
    with pytest.raises(pocketlm.RequestError, match=r"261 tokens in its vocabulary .* 260"):
        pocketlm.evaluate(path, reference=larger, text=TEXT, **OPTIONS)


def test_questions_longer_than_the_model_s_context_are_cut(path: Path) -> None:
    long = Question("x" * 300, ("a", "b"), 0, "")
    found = pocketlm.evaluate(path, task=[long, *QUESTIONS], threads=1)
    assert found.task is not None
    assert found.task.truncated == 2


def test_what_cannot_be_measured_is_refused_before_weights_are_packed(
    path: Path, tmp_path: Path
) -> None:
    said: list[Progress] = []

    def fails(message: str, error: type[Exception] = pocketlm.RequestError, **more: Any) -> None:
        options = {"text": TEXT, "progress": said.append, **OPTIONS, **more}
        with pytest.raises(error, match=message):
            pocketlm.evaluate(path, **options)

    fails("nothing to measure", text=None)
    fails("has 3 tokens.* needs 32", text="abc")
    fails("has 9 tokens.* needs 32", max_tokens=9)
    fails("max_tokens is 0", max_tokens=0)
    fails("stride is 32", stride=32)
    fails("context is 3", context=3)
    fails("the model was made for 256", context=257)
    fails("no such file", pocketlm.NotFoundError, text=tmp_path / "none.txt")
    fails("no questions", task=_empty(tmp_path))
    fails("no questions", task=str(_empty(tmp_path)))
    fails("a model is named by", reference=5)
    fails("different tokens", reference=_other_words(tmp_path))
    assert said == []


def test_memory_for_both_models_is_asked_for_before_either_is_packed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pocketlm.load(path, context=32, threads=1) as model:
        one = model.memory.total - model.memory.tokenizer
    monkeypatch.setattr(
        "pocketlm.evaluate.evaluation.available_memory", lambda: Memory(3 * one // 2, "RAM")
    )
    said: list[Progress] = []
    assert pocketlm.evaluate(path, text=TEXT, **OPTIONS).perplexity is not None
    with pytest.raises(pocketlm.CapacityError, match="model and its reference need"):
        pocketlm.evaluate(path, text=TEXT, reference=path, progress=said.append, **OPTIONS)
    assert said == []


def _empty(folder: Path) -> Path:
    path = folder / "empty.jsonl"
    path.write_bytes(b"")
    return path


def _other_words(folder: Path, more: int = 0) -> Path:
    """A model whose merged token is another, with ``more`` tokens."""
    from pocketlm.gguf import GGUFFile, TensorData, write_gguf

    source = tiny_file.write_tiny_model(folder / "source.gguf")
    with GGUFFile.open(source) as file:
        metadata = dict(file.metadata)
        tokens = [*metadata["tokenizer.ggml.tokens"], *(f"<{i}>" for i in range(more))]
        tokens[256] = "es"
        types = np.append(metadata["tokenizer.ggml.token_type"], [3] * more).astype(np.int32)
        metadata |= {
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.merges": ["e s"],
            "tokenizer.ggml.token_type": types,
        }
        tensors = []
        for name, info in file.tensors.items():
            values = np.array(file.tensor(name))
            if name == "token_embd.weight":
                values = np.concatenate([values, values[:more]])
            tensors.append(TensorData(name, info.type, values.shape, values))
        write_gguf(folder / "words.gguf", metadata, tensors)
    return folder / "words.gguf"


@pytest.mark.parametrize(
    "program",
    [
        "import pocketlm; pocketlm.evaluate('x')",
        "import pocketlm.evaluate.windows, pocketlm; pocketlm.evaluate('x')",
        "from pocketlm import evaluate; evaluate('x')",
        "import pocketlm\npocketlm.evaluate\nimport pocketlm.evaluate.windows as w; w.plan\n"
        "pocketlm.evaluate('x')",
    ],
)
def test_it_can_be_called_whatever_was_imported_before(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "RequestError: there is nothing to measure" in done.stderr


def test_its_signature_can_be_read() -> None:
    import inspect

    assert "reference" in inspect.signature(pocketlm.evaluate).parameters
