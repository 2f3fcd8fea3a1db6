"""Perplexity and divergence of models that NumPy can compute whole."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from pocketlm.errors import ModelFileError, RequestError
from pocketlm.evaluate.divergence import DivergenceMeter, divergence
from pocketlm.evaluate.perplexity import perplexity
from pocketlm.evaluate.windows import plan
from pocketlm.progress import Progress

from .bigram import Bigram, log_softmax

VOCAB = 37
TOKENS = np.random.default_rng(3).integers(0, VOCAB, 200, dtype=np.int32)


def test_perplexity_of_the_tokens_that_count() -> None:
    model = Bigram(VOCAB, 0)
    found = perplexity(model, plan(TOKENS, 20, bos=None))
    parts = [-model.logprobs(w)[10:] for w in TOKENS.reshape(10, 20)]
    values = np.concatenate(parts)
    assert found.tokens == 90
    assert found.sequences == 10
    assert found.nll == pytest.approx(values.mean(), rel=1e-6)
    assert found.perplexity == pytest.approx(math.exp(values.mean()), rel=1e-6)
    sums = np.array([part.sum() for part in parts])
    error = sums.std(ddof=1) * math.sqrt(10) / 90
    assert found.nll_standard_error == pytest.approx(error, rel=1e-6)
    assert found.standard_error == pytest.approx(error * found.perplexity, rel=1e-6)
    assert set(model.rows_given) == {5, 4}  # what does not count is not asked for


def test_strided_perplexity_is_of_every_token() -> None:
    model = Bigram(VOCAB, 0)
    found = perplexity(model, plan(TOKENS, 20, bos=None, stride=7))
    assert found.tokens == 199
    assert found.nll == pytest.approx(-model.logprobs(TOKENS).mean(), rel=1e-6)


def test_divergence_by_its_definition() -> None:
    reference, candidate = Bigram(VOCAB, 0, block_rows=4), Bigram(VOCAB, 1, block_rows=7)
    windows = plan(TOKENS, 20, bos=None)
    found = divergence(reference, candidate, windows)
    last = np.concatenate([w.tokens[w.first : -1] for w in windows])
    following = np.concatenate([w.tokens[w.first + 1 :] for w in windows])
    p, q = log_softmax(reference.table)[last], log_softmax(candidate.table)[last]
    kl = (np.exp(p) * (p - q)).sum(1)
    rows = np.arange(len(last))
    delta = np.exp(q[rows, following]) - np.exp(p[rows, following])
    ratio = (p - q)[rows, following]
    want = {
        "mean": kl.mean(),
        "standard_error": kl.reshape(10, 9).mean(1).std(ddof=1) / math.sqrt(10),
        "median": np.median(kl),
        "p99": np.quantile(kl, 0.99),
        "max": kl.max(),
        "top1": (p.argmax(1) == q.argmax(1)).mean(),
        "mean_delta_p": delta.mean(),
        "rms_delta_p": math.sqrt((delta**2).mean()),
        "perplexity": math.exp(-q[rows, following].mean()),
        "reference_perplexity": math.exp(-p[rows, following].mean()),
        "log_perplexity_ratio": ratio.mean(),
        "log_perplexity_ratio_standard_error": ratio.reshape(10, 9).mean(1).std(ddof=1)
        / math.sqrt(10),
        "tokens": 90,
        "sequences": 10,
    }
    for name, value in want.items():
        assert getattr(found, name) == pytest.approx(value, rel=2e-6), name
    assert max(reference.rows_given + candidate.rows_given) == 4  # in step, by the smaller blocks


def test_the_perplexities_are_those_of_each_alone() -> None:
    windows = plan(TOKENS, 20, bos=None)
    found = divergence(Bigram(VOCAB, 0), Bigram(VOCAB, 1), windows)
    alone = perplexity(Bigram(VOCAB, 1), windows)
    assert dataclasses.astuple(found.own_perplexity()) == pytest.approx(
        dataclasses.astuple(alone), rel=1e-12
    )
    assert found.reference_perplexity == perplexity(Bigram(VOCAB, 0), windows).perplexity


def test_a_model_does_not_diverge_from_itself() -> None:
    found = divergence(Bigram(VOCAB, 0), Bigram(VOCAB, 0), plan(TOKENS, 20, bos=None))
    assert (found.mean, found.max, found.rms_delta_p, found.log_perplexity_ratio) == (0, 0, 0, 0)
    assert (found.standard_error, found.top1) == (0, 1)


def test_one_window_has_no_standard_error() -> None:
    found = divergence(Bigram(VOCAB, 0), Bigram(VOCAB, 1), plan(TOKENS[:20], 20, bos=None))
    assert found.mean > 0
    for field in dataclasses.fields(found):
        assert (getattr(found, field.name) is None) == field.name.endswith("standard_error")


def test_sequences_are_what_the_caller_ends() -> None:
    """The same rows in other blocks are the same; in other sequences they have another error."""
    rng = np.random.default_rng(7)
    p, q = rng.standard_normal((2, 12, VOCAB)).astype(np.float32)
    targets = np.arange(12, dtype=np.int32)

    def measured(block: int, sequence: int) -> tuple[float, float | None, int]:
        meter = DivergenceMeter()
        for start in range(0, 12, block):
            part = slice(start, start + block)
            meter.add(p[part], q[part], targets[part])
            if (start + block) % sequence == 0:
                meter.end_sequence()
        found = meter.result()
        return found.mean, found.standard_error, found.sequences

    assert measured(1, 4) == measured(2, 4) == measured(4, 4)
    assert measured(1, 4)[2] == 3
    assert measured(1, 2)[1] != measured(1, 4)[1]


def test_models_of_different_vocabularies_are_refused() -> None:
    with pytest.raises(RequestError, match=r"37 tokens .* 38"):
        divergence(Bigram(VOCAB, 0), Bigram(VOCAB + 1, 0), plan(TOKENS, 20, bos=None))
    with pytest.raises(RequestError, match="nothing to compare"):
        DivergenceMeter().result()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_without_finite_logits_is_said_to_be_broken(value: float) -> None:
    broken, windows = Bigram(VOCAB, 0), plan(TOKENS, 20, bos=None)
    broken.table[3, 5] = value
    with pytest.raises(ModelFileError, match=r"no number: the logit of token 5 is"):
        perplexity(broken, windows)
    with pytest.raises(ModelFileError, match=r"no number: the logit of token 5 is"):
        divergence(Bigram(VOCAB, 0), broken, windows)


def test_progress_is_in_tokens_read() -> None:
    windows = plan(TOKENS[:60], 20, bos=None)
    said: list[Progress] = []
    perplexity(Bigram(VOCAB, 0), windows, progress=said.append)
    assert said == [Progress("perplexity", done, 60) for done in (0, 20, 40, 60)]
    said.clear()
    divergence(Bigram(VOCAB, 0), Bigram(VOCAB, 1), windows, progress=said.append)
    assert said == [Progress("divergence", done, 60) for done in (0, 20, 40, 60)]
