"""Multiple choice by log-likelihood, with the definitions of lm-evaluation-harness.

A choice's score is the sum of the log-probabilities of its tokens after the prompt; the model is
not asked to write anything. Definitions kept: the choice is joined to the prompt with one space;
prompt + choice are tokenized together, and the choice's tokens are those beyond as many as the
prompt alone has; white space at the prompt's end counts as the choice's. Three readings of the
scores: ``acc`` takes the highest sum, ``acc_norm`` the highest sum per character of the choice,
``acc_bytes`` per byte of UTF-8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pocketlm.backends import Backend, Floats
from pocketlm.evaluate.questions import Question
from pocketlm.evaluate.rows import logprobs
from pocketlm.progress import Progress, ProgressCallback, silent
from pocketlm.text import Tokenizer

MEASURES = ("acc", "acc_norm", "acc_bytes")


@dataclass(frozen=True)
class Choice:
    """One choice as the model reads it: the prompt's tokens and its own."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    characters: int
    bytes: int


@dataclass(frozen=True)
class TaskScore:
    """Standard errors are those of a mean of independent questions, sd / sqrt(n); None for one.

    Attributes:
        acc, acc_norm, acc_bytes: shares of questions answered rightly, see the module.
        questions: how many.
        truncated: choices whose prompt lost its beginning, as it did not fit the context.
    """

    acc: float
    acc_stderr: float | None
    acc_norm: float
    acc_norm_stderr: float | None
    acc_bytes: float
    acc_bytes_stderr: float | None
    questions: int
    truncated: int


@dataclass(frozen=True)
class Flips:
    """Questions on which a model and its reference differ, by ``acc``.

    Equal accuracy can hide many of them (Dutta et al., "Accuracy is Not All You Need", 2024).

    Attributes:
        answer_changed: another choice was the best.
        right_to_wrong, wrong_to_right: of these, where it mattered.
        questions: of how many.
    """

    answer_changed: int
    right_to_wrong: int
    wrong_to_right: int
    questions: int


@dataclass(frozen=True)
class Answers:
    """What a model chose, (questions, 3): indices of choices by acc, acc_norm and acc_bytes."""

    chosen: NDArray[np.int64]
    right: NDArray[np.int64]  # (questions,)
    truncated: int

    def score(self) -> TaskScore:
        correct = (self.chosen == self.right[:, None]).astype(np.float64)
        count = len(correct)
        means = correct.mean(axis=0)
        errors = correct.std(axis=0, ddof=1) / math.sqrt(count) if count > 1 else None
        fields: dict[str, float | None] = {}
        for i, name in enumerate(MEASURES):
            fields[name] = float(means[i])
            fields[f"{name}_stderr"] = None if errors is None else float(errors[i])
        return TaskScore(**fields, questions=count, truncated=self.truncated)  # type: ignore[arg-type]

    def flips_from(self, reference: Answers) -> Flips:
        own, other = self.chosen[:, 0], reference.chosen[:, 0]
        return Flips(
            answer_changed=int((own != other).sum()),
            right_to_wrong=int(((other == self.right) & (own != self.right)).sum()),
            wrong_to_right=int(((other != self.right) & (own == self.right)).sum()),
            questions=len(own),
        )


def encode_choices(tokenizer: Tokenizer, question: Question) -> list[Choice]:
    """A question's choices as tokens, with BOS before them where the model adds one."""
    prompt = question.prompt.rstrip()
    gap = question.prompt[len(prompt) :]
    bos = (tokenizer.bos_id,) if tokenizer.adds_bos and tokenizer.bos_id is not None else ()
    before = (*bos, *tokenizer.encode(prompt))
    found = []
    for text in question.choices:
        joined = gap + " " + text
        whole = (*bos, *tokenizer.encode(prompt + joined))
        # At least one token is the choice's, even if it should have merged with the prompt's last.
        split = min(len(before), len(whole) - 1)
        found.append(Choice(before[:split], whole[split:], len(text), len(text.encode("utf-8"))))
    return found


def answer(
    backend: Backend,
    encoded: Sequence[Sequence[Choice]],
    right: Sequence[int],
    *,
    task: str = "questions",
    progress: ProgressCallback = silent,
) -> Answers:
    """Scores every choice of every question; progress is in questions, under the name ``task``.

    A prompt that does not fit the context with its choice loses its oldest tokens.
    """
    chosen = np.empty((len(encoded), len(MEASURES)), np.int64)
    truncated = 0
    progress(Progress(task, 0, len(encoded)))
    for i, choices in enumerate(encoded):
        sums = _scores(backend, choices)
        characters = np.array([choice.characters for choice in choices])
        sizes = np.array([choice.bytes for choice in choices])
        chosen[i] = [scores.argmax() for scores in (sums, sums / characters, sums / sizes)]
        truncated += sum(_read(choice) > backend.context for choice in choices)
        progress(Progress(task, i + 1, len(encoded)))
    return Answers(chosen, np.array(right, np.int64), truncated)


def longest(encoded: Sequence[Sequence[Choice]]) -> int:
    """Positions of the context that the longest choice needs."""
    return max(_read(choice) for choices in encoded for choice in choices)


def _read(choice: Choice) -> int:
    return len(choice.prompt) + len(choice.tokens) - 1  # nothing follows the last token


def _scores(backend: Backend, choices: Sequence[Choice]) -> NDArray[np.float64]:
    """Log-probabilities of the choices' tokens after their prompt, (choices,)."""
    sums = np.zeros(len(choices))
    shared: dict[tuple[int, ...], Floats] = {}  # by prompt: the row that choices of one token ask
    for i, choice in enumerate(choices):
        tokens = np.array(choice.prompt + choice.tokens, np.int32)[-(backend.context + 1) :]
        at = max(0, len(tokens) - len(choice.tokens) - 1)
        if len(choice.tokens) == 1:
            if choice.prompt not in shared:
                (shared[choice.prompt],) = backend.blocks(tokens[:-1], first=at)
            sums[i] = logprobs(shared[choice.prompt], tokens[-1:])[0]
            continue
        for block in backend.blocks(tokens[:-1], first=at):
            sums[i] += logprobs(block, tokens[at + 1 : at + 1 + len(block)]).sum()
            at += len(block)
    return sums
