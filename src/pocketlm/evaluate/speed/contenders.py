"""The engines as they are timed: each answers prompts greedily and says how long it took.

PocketLM is timed as a user gets it, scheduler and sampler included, only that no prompt is
remembered, no token is guessed and no end of turn ends an answer. A peer is asked through its
C API, and its likeliest token is found by NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np

from pocketlm.errors import RequestError
from pocketlm.evaluate.speed.plan import Question

OURS = "pocketlm"
PEERS = ("llamacpp", "llamacpp-nofa", "ik")
"""``llamacpp-nofa`` is llama.cpp without flash attention: slower to prefill, faster to decode."""

_CHUNK = 512  # tokens of a prompt that a peer gets at once


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How an engine is to be set up; it crosses to its process as JSON."""

    engine: str
    path: str
    context: int
    sequences: int
    threads: int
    kv: str


@dataclass(frozen=True)
class Timing:
    """Seconds, and the tokens that were computed in them.

    Attributes:
        first_tokens: what each sequence went on with, to see whether engines agree.
    """

    prefill_tokens: int
    prefill_s: float
    decode_tokens: int
    decode_s: float
    first_tokens: tuple[int, ...]


class Contender(Protocol):
    """An engine with a model."""

    @property
    def version(self) -> str:
        """Its version and the instruction set that it computes with."""

    def answer(self, question: Question) -> Timing:
        """Computes all prompts, then the tokens that follow, in all sequences together."""


def open_contender(setup: Setup) -> Contender:
    """Loads the model. Raises what the engine raises where it is not here or cannot load it."""
    if setup.engine == OURS:
        return Ours(setup)
    if setup.engine in PEERS:
        return Peer(setup)
    known = ", ".join((OURS, *PEERS))
    raise RequestError(f"there is no engine '{setup.engine}', expected one of {known}")


class Ours:
    """The native engine."""

    def __init__(self, setup: Setup) -> None:
        from pocketlm import __version__, _native
        from pocketlm.engine.build import build_engine
        from pocketlm.engine.options import EngineOptions
        from pocketlm.models import open_model

        options = EngineOptions(
            context=setup.context,
            threads=setup.threads,
            kv=setup.kv,  # type: ignore[arg-type]  # checked there
            sequences=setup.sequences,
            mixed_step=None,  # all prompts first, as the others have it
            output_rows=setup.sequences,
            prefix_cache=False,
            speculate="off",
        )
        spec = open_model(Path(setup.path))
        try:
            self._engine = build_engine(spec, frozenset(), options).engine
        finally:
            spec.close()
        self.version = f"{__version__}, {_native.isa()}"

    def answer(self, question: Question) -> Timing:
        from pocketlm.engine.sampling import SamplingParams

        engine = self._engine
        params = SamplingParams(temperature=0, max_tokens=question.generate + 1, ignore_eos=True)
        prompts = question.prompts(engine.runner.vocab)
        begin = perf_counter()
        waiting = requests = [engine.add(prompt, params) for prompt in prompts]
        decoded = 0
        while waiting:
            drawn = len(engine.step())
            before = len(waiting)
            waiting = [r for r in waiting if r.timing.first_token is None]
            decoded += drawn - (before - len(waiting))
        prefilled, early = perf_counter(), decoded
        while engine.busy:
            decoded += len(engine.step())
        end = perf_counter()
        return Timing(
            question.sequences * question.prompt,
            prefilled - begin,
            decoded - early,
            end - prefilled,
            tuple(request.tokens[question.prompt] for request in requests),
        )


class Peer:
    """llama.cpp or its fork."""

    def __init__(self, setup: Setup) -> None:
        from pocketlm.backends.ik import IkLlamaCpp
        from pocketlm.backends.llama_api import LlamaApi
        from pocketlm.backends.llamacpp import LlamaCpp

        options: dict[str, Any] = {
            "context": setup.context,
            "threads": setup.threads,
            "sequences": setup.sequences,
            "kv": setup.kv,
        }
        self._model: LlamaApi
        if setup.engine == "ik":
            self._model = IkLlamaCpp(Path(setup.path), **options)
        else:
            flash = setup.engine == "llamacpp"
            self._model = LlamaCpp(Path(setup.path), **options, flash_attention=flash)
        self.version = f"{self._model.version}, {self._model.system_info}"

    def answer(self, question: Question) -> Timing:
        model = self._model
        ids = question.prompts(model.vocabulary)
        prompts = [np.array(one, np.int32) for one in ids]
        model.clear()
        tokens = np.empty(len(prompts), np.int32)
        begin = perf_counter()
        for sequence, prompt in enumerate(prompts):
            for start in range(0, len(prompt), _CHUNK):
                model.decode(prompt[start : start + _CHUNK], start, sequence=sequence)
            tokens[sequence] = model.logits(-1).argmax()
        first = tuple(tokens.tolist())
        prefilled = perf_counter()
        for step in range(question.generate):
            model.decode_each(tokens, question.prompt + step)
            for sequence in range(len(prompts)):
                tokens[sequence] = model.logits(sequence).argmax()
        end = perf_counter()
        total, decoded = (len(prompts) * n for n in (question.prompt, question.generate))
        return Timing(total, prefilled - begin, decoded, end - prefilled, first)


def require_peers(names: Sequence[str]) -> None:
    """Raises RequestError for a name that is no peer or is given twice, UnsupportedError for a peer
    that is not installed."""
    from pocketlm.backends import ik, llamacpp

    if len(set(names)) != len(names):
        raise RequestError(f"an engine is named twice: {', '.join(names)}")
    for name in names:
        if name not in PEERS:
            raise RequestError(
                f"there is no engine '{name}' to measure against, expected {', '.join(PEERS)}"
            )
        (ik if name == "ik" else llamacpp).library_path()
