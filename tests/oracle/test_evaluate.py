"""Evaluation against others: llama-perplexity's and Hugging Face's conventions of perplexity, and
lm-evaluation-harness's of multiple choice, each written out here once more over other engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import pocketlm
from pocketlm.evaluate.questions import Question
from pocketlm.gguf import GGUFFile
from pocketlm.text import Tokenizer

from .llamacpp import LlamaCpp
from .test_convert import MODELS, to_gguf, write_tiny
from .tiny import logits_of

pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("quiet_torch")]

Array = np.ndarray[Any, np.dtype[Any]]
Logits = Callable[[Array], Array]

CONTEXT = 48
TEXT = "Hello, world! The hedge and the ello were well, and then some. " * 6
KINDS = {"llama3": True, "gemma3-linear": True, "qwen3": False}  # whether it adds BOS


@pytest.fixture(scope="module", params=KINDS)
def tiny(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any, Any]:
    """A random model: its GGUF file, and transformers' model and tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    _, model = write_tiny(folder / "hf", request.param, MODELS[request.param])
    path = to_gguf(folder / "hf", folder / "model.gguf")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "hf")
    first = tokenizer("and")["input_ids"][0]
    assert (first == tokenizer.bos_token_id) == KINDS[request.param]
    return path, model, tokenizer


def logprobs(logits: Array, targets: Array) -> Array:
    """Natural-log probability of each row's target."""
    x = torch.from_numpy(logits).double().log_softmax(-1).numpy()
    return x[np.arange(len(targets)), targets]


def llama_perplexity(logits: Logits, tokens: Sequence[int], context: int, bos: int | None) -> float:
    """The tool's convention: [bos, text] cut side by side, BOS over each first token, and of each
    window what the rows from context // 2 on say about the tokens after them."""
    values = []
    for start in range(0, len(tokens) - context + 1, context):
        window = np.array(tokens[start : start + context])
        if bos is not None:
            window[0] = bos
        half = context // 2
        values.append(logprobs(logits(window)[half:-1], window[half + 1 :]))
    return float(np.exp(-np.concatenate(values).mean()))


def test_perplexity_as_llama_perplexity(tiny: tuple[Path, Any, Any]) -> None:
    """Over transformers' and llama.cpp's logits and tokens of the same model."""
    path, model, tokenizer = tiny
    ids = tokenizer(TEXT)["input_ids"]
    bos = tokenizer.bos_token_id if ids[0] == tokenizer.bos_token_id else None
    found = pocketlm.evaluate(path, text=TEXT, context=CONTEXT, threads=1, kv="f32").perplexity
    assert found is not None
    assert found.sequences == len(ids) // CONTEXT > 3
    expected = llama_perplexity(lambda w: logits_of(model, w), ids, CONTEXT, bos)
    assert found.perplexity == pytest.approx(expected, rel=1e-4)
    with LlamaCpp(path) as llamacpp:
        theirs = llama_perplexity(llamacpp.all_logits, llamacpp.tokenize(TEXT), CONTEXT, bos)
    assert found.perplexity == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("tiny", ["qwen3"], indirect=True)
def test_strided_perplexity_as_hugging_face(tiny: tuple[Path, Any, Any]) -> None:
    """The guide's loop: labels of what an earlier window had are masked with -100.

    The guide puts no BOS before later windows, so the model is one without.
    """
    path, model, tokenizer = tiny
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    stride, length = 20, ids.shape[1]
    total, count, before = 0.0, 0, 0
    for begin in range(0, length, stride):
        end = min(begin + CONTEXT, length)
        labels = ids[:, begin:end].clone()
        labels[:, : -(end - before)] = -100
        scored = int((labels[:, 1:] != -100).sum())
        with torch.no_grad():
            loss = model(ids[:, begin:end], labels=labels).loss
        total, count, before = total + float(loss) * scored, count + scored, end
        if end == length:
            break
    found = pocketlm.evaluate(
        path, text=TEXT, context=CONTEXT, stride=stride, threads=1, kv="f32"
    ).perplexity
    assert found is not None
    assert found.tokens == count == length - 1
    assert found.nll == pytest.approx(total / count, rel=1e-5)


def questions() -> list[Question]:
    words = ["the", "hello and then", "a well", "ünder", "Hello, the ello", "some x", "and", "he"]
    rng = np.random.default_rng(11)
    found = []
    for i in range(24):
        chosen = tuple(words[k] for k in rng.permutation(len(words))[: 2 + i % 3])
        end = ["?", " is ", ":\n", ""][i % 4]
        found.append(Question(f"The {words[i % 8]} number {i}{end}", chosen, i % len(chosen), ""))
    return found


def harness(model: Any, tokenizer: Any, asked: list[Question]) -> dict[str, float]:
    """lm-evaluation-harness 0.4.13, multiple_choice on a causal model with the default delimiter:
    means of acc, acc_norm and acc_bytes and their standard errors."""
    hits = []
    for question in asked:
        sums = []
        for choice in question.choices:
            context, continuation = question.prompt, " " + choice
            spaces = len(context) - len(context.rstrip())
            if spaces:
                continuation = context[-spaces:] + continuation
                context = context[:-spaces]
            whole = tokenizer.encode(context + continuation)
            head = tokenizer.encode(context)
            rest = whole[len(head) :]
            tokens = np.array(head + rest)
            logits = logits_of(model, tokens[:-1])[len(head) - 1 :]
            sums.append(logprobs(logits, tokens[len(head) :]).sum())
        lengths = np.array([float(len(c)) for c in question.choices])
        sizes = np.array([float(len(c.encode())) for c in question.choices])
        best = [np.argmax(s) for s in (np.array(sums), sums / lengths, sums / sizes)]
        hits.append([float(b == question.answer) for b in best])
    values = np.array(hits)
    errors = values.std(0, ddof=1) / np.sqrt(len(values))
    names = ("acc", "acc_norm", "acc_bytes")
    return {
        **dict(zip(names, values.mean(0), strict=True)),
        **{f"{n}_stderr": e for n, e in zip(names, errors, strict=True)},
    }


def test_multiple_choice_as_lm_evaluation_harness(tiny: tuple[Path, Any, Any]) -> None:
    path, model, tokenizer = tiny
    expected = harness(model, tokenizer, questions())
    found = pocketlm.evaluate(path, task=questions(), threads=1, kv="f32").task
    assert found is not None
    assert 0 < found.acc < 1
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-12), name


@pytest.mark.real
@pytest.mark.timeout(300)
def test_perplexity_of_a_real_file_agrees_with_llamacpp(
    real_model: Callable[[str], Path],
) -> None:
    """Both engines round activations to 8 bits, each in its way: far within the error bar."""
    path = real_model("smollm2:135m")
    root = Path(__file__).parents[2]
    text = (root / "docs/explanation/architecture.md").read_text(encoding="utf-8")[:3000]
    with GGUFFile.open(path) as file:
        ids = Tokenizer.from_gguf(file.metadata, "llama").encode(text)
    with LlamaCpp(path) as llamacpp:
        assert llamacpp.tokenize(text) == ids
        cut = ids[: 4 * 128]
        theirs = llama_perplexity(llamacpp.all_logits, cut, 128, None)
    ours = pocketlm.evaluate(path, text=text, context=128, threads=2, max_tokens=4 * 128).perplexity
    assert ours is not None
    assert ours.standard_error is not None
    assert abs(ours.perplexity - theirs) < 0.2 * ours.standard_error
