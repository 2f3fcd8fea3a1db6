"""One evaluation, from names and files to numbers: what ``pocketlm eval`` and Python call.

Everything that can be refused is refused before any weights are packed: options, files, a text that
is too short, vocabularies that differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pocketlm.backends import NativeBackend
from pocketlm.backends.native import engine_options
from pocketlm.engine.build import choose_context, require_memory
from pocketlm.engine.machine import available_memory
from pocketlm.engine.options import KvType
from pocketlm.engine.prompts import open_tokenizer
from pocketlm.errors import CapacityError, RequestError
from pocketlm.evaluate.divergence import Divergence, divergence, require_same_vocabulary
from pocketlm.evaluate.perplexity import Perplexity, perplexity
from pocketlm.evaluate.questions import Question, read_questions
from pocketlm.evaluate.tasks import (
    Answers,
    Choice,
    Flips,
    TaskScore,
    answer,
    encode_choices,
    longest,
)
from pocketlm.evaluate.texts import CALIBRATION_KEY, read_utf8, text_hash
from pocketlm.evaluate.windows import Window, plan
from pocketlm.models import ModelSpec, open_model
from pocketlm.progress import ProgressCallback, silent
from pocketlm.store import Store
from pocketlm.text import Tokenizer

DEFAULT_CONTEXT = 512
Encoded = Sequence[Sequence[Choice]]


@dataclass(frozen=True)
class Evaluation:
    """What was measured; parts that were not asked for are None.

    Attributes:
        model, reference: their names, as the store or the caller calls them.
        context, stride: of the windows that the text was read in.
        perplexity: of the model on the text.
        bits_per_byte: of the bytes of the tokens that the perplexity counts. Unlike it, models of
            different vocabularies can be compared by it.
        divergence: of the model from the reference on the text.
        task, reference_task: scores of the model and of the reference.
        flips: questions on which they differ.
    """

    model: str
    reference: str | None
    context: int
    stride: int | None
    perplexity: Perplexity | None = None
    divergence: Divergence | None = None
    task: TaskScore | None = None
    reference_task: TaskScore | None = None
    flips: Flips | None = None
    bits_per_byte: float | None = None


@dataclass(frozen=True)
class _Subject:
    """A model that is opened but not yet packed."""

    name: str
    spec: ModelSpec
    tokenizer: Tokenizer


def evaluate(
    ref: str | Path,
    *,
    text: str | Path | None = None,
    reference: str | Path | None = None,
    task: str | Path | Sequence[Question] | None = None,
    context: int | None = None,
    stride: int | None = None,
    max_tokens: int | None = None,
    threads: int | None = None,
    kv: KvType = "f16",
    progress: ProgressCallback = silent,
) -> Evaluation:
    """Perplexity on a text, divergence from a reference, accuracy on multiple-choice questions.

    Args:
        ref: the model, as ``pocketlm.load`` takes it.
        text: a text, or the path of a UTF-8 file (one newline at its end is dropped).
        reference: the model to compare with, usually the same before it was quantized.
        task: the path of a JSONL file of questions (``questions``), or questions.
        context: tokens of a window of the text; None is 512, or the model's own where it is less.
        stride: None counts the second half of consecutive windows, a number overlaps them: see
            ``windows``.
        max_tokens: reads no more of the text.
        threads, kv: as ``pocketlm.load``; both models get the same.

    Raises RequestError for a text that is too short or that calibrated the model, a bad question or
    models that cannot be compared, NotFoundError for a model or file that is not there,
    CapacityError where the models do not fit into memory.
    """
    if text is None and task is None:
        raise RequestError("there is nothing to measure: give a text or a task")
    if max_tokens is not None and max_tokens < 1:
        raise RequestError(f"max_tokens is {max_tokens}, expected at least 1")
    words = None if text is None else _words(text)
    questions = read_questions(Path(task)) if isinstance(task, str | Path) else list(task or ())
    with ExitStack() as stack:
        subjects = [_open(name, stack) for name in (ref, reference) if name is not None]
        if context is None:
            context = min(DEFAULT_CONTEXT, *(s.spec.config.context for s in subjects))
        windows = _windows(words, subjects, context, stride, max_tokens)
        encoded = [[encode_choices(s.tokenizer, q) for q in questions] for s in subjects]
        needed = [_positions(s, windows, e) for s, e in zip(subjects, encoded, strict=True)]
        backends = _pack(subjects, needed, threads, kv, progress, stack)
        own, diverged = _read_text(backends, windows, progress)
        answers = _ask(questions, subjects, backends, encoded, progress) if questions else []
    scores = [each.score() for each in answers]
    return Evaluation(
        model=subjects[0].name,
        reference=subjects[1].name if len(subjects) > 1 else None,
        context=context,
        stride=stride,
        perplexity=own,
        divergence=diverged,
        task=scores[0] if scores else None,
        reference_task=scores[1] if len(scores) > 1 else None,
        flips=answers[0].flips_from(answers[1]) if len(answers) > 1 else None,
        bits_per_byte=None if own is None else _bits_per_byte(own, windows, subjects[0].tokenizer),
    )


def _bits_per_byte(
    found: Perplexity, windows: Sequence[Window], tokenizer: Tokenizer
) -> float | None:
    """The loss in bits over the bytes that the counted tokens stand for."""
    counted = (token for window in windows for token in window.tokens[window.first + 1 :])
    size = sum(len(tokenizer.token_bytes(int(token))) for token in counted)
    return found.nll * found.tokens / math.log(2) / size if size else None


def _read_text(
    backends: Sequence[NativeBackend], windows: Sequence[Window], progress: ProgressCallback
) -> tuple[Perplexity | None, Divergence | None]:
    if not windows:
        return None, None
    if len(backends) == 1:
        return perplexity(backends[0], windows, progress=progress), None
    found = divergence(backends[1], backends[0], windows, progress=progress)
    return found.own_perplexity(), found


def _ask(
    questions: Sequence[Question],
    subjects: Sequence[_Subject],
    backends: Sequence[NativeBackend],
    encoded: Sequence[Encoded],
    progress: ProgressCallback,
) -> list[Answers]:
    right = [question.answer for question in questions]
    return [
        answer(backend, choices, right, task=f"questions to {subject.name}", progress=progress)
        for subject, backend, choices in zip(subjects, backends, encoded, strict=True)
    ]


def _words(text: str | Path) -> str:
    return read_utf8(text).removesuffix("\n") if isinstance(text, Path) else text


def _open(ref: str | Path, stack: ExitStack) -> _Subject:
    if isinstance(ref, str):
        model = Store().resolve(ref)
        path, name = model.path, model.name
    elif isinstance(ref, Path):
        path, name = ref, ""
    else:
        raise RequestError(f"a model is named by a string or a Path, found {ref!r}")
    spec = open_model(path)
    stack.callback(spec.close)
    return _Subject(name or spec.name, spec, open_tokenizer(spec))


def _refuse_calibration_text(words: str, subjects: Sequence[_Subject]) -> None:
    """A model looks better than it is on the text that it was fitted to."""
    for subject in subjects:
        source = subject.spec.tokenizer_source
        known = source.get(CALIBRATION_KEY) if isinstance(source, Mapping) else None
        if isinstance(known, list) and text_hash(words) in known:
            raise RequestError(
                f"{subject.name} was calibrated on this very text, so it cannot be measured on it",
                hint="Measure it on a text that it has not seen.",
            )


def _windows(
    words: str | None,
    subjects: Sequence[_Subject],
    context: int,
    stride: int | None,
    max_tokens: int | None,
) -> list[Window]:
    """Of the text, if there is one.

    Raises RequestError where two models' vocabularies differ or read it differently.
    """
    if words is None:
        return []
    _refuse_calibration_text(words, subjects)
    sizes = [subject.spec.config.vocab for subject in subjects]
    require_same_vocabulary(sizes[-1], sizes[0])
    found = []
    for subject in subjects:
        choose_context(context, subject.spec.config.context)
        tokenizer = subject.tokenizer
        found.append((_bos(tokenizer), tokenizer.encode(words)))
    if len(found) > 1 and found[0] != found[1]:
        raise RequestError(
            f"{subjects[0].name} and {subjects[1].name} make different tokens of this text: "
            "their logits cannot be compared",
            hint="A reference is the same model before it was quantized.",
        )
    bos, tokens = found[0]
    return plan(tokens[:max_tokens], context, bos=bos, stride=stride)


def _bos(tokenizer: Tokenizer) -> int | None:
    return tokenizer.bos_id if tokenizer.adds_bos else None


def _positions(subject: _Subject, windows: Sequence[Window], choices: Encoded) -> int:
    """The context that is needed; questions that exceed the model's own are cut to it."""
    of_text = max((len(window.tokens) for window in windows), default=1)
    of_task = min(longest(choices), subject.spec.config.context) if choices else 1
    return max(of_text, of_task)


def _pack(
    subjects: Sequence[_Subject],
    positions: Sequence[int],
    threads: int | None,
    kv: KvType,
    progress: ProgressCallback,
    stack: ExitStack,
) -> list[NativeBackend]:
    """All are in memory at once, so memory is asked for all before the first is packed."""
    needed = 0
    for subject, context in zip(subjects, positions, strict=True):
        options = engine_options(subject.spec, context=context, threads=threads, kv=kv)
        plan = require_memory(subject.spec, options)
        needed += plan.total - plan.tokenizer  # the tokenizer is here already
    memory = available_memory()
    if len(subjects) > 1 and needed > memory.available:
        raise CapacityError(
            f"the model and its reference need {needed / 2**30:.2f} GiB together, but "
            f"{memory.available / 2**30:.2f} GiB are left of {memory.limit}",
            hint="Choose a smaller reference or a smaller context.",
        )
    backends = []
    for subject, context in zip(subjects, positions, strict=True):
        backend = NativeBackend(
            subject.spec, context=context, threads=threads, kv=kv, progress=progress
        )
        backends.append(stack.enter_context(backend))
        subject.spec.close()
    return backends
