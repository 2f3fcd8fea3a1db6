"""The rounds of one model: every question to every engine in turn, then again.

So a noisy machine hits all engines alike. Between two answers is a pause in which the threads of
the engine before go to sleep; the first round warms up and does not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Protocol

from pocketlm.errors import PocketLMError
from pocketlm.evaluate.speed.contenders import OURS, Setup, Timing
from pocketlm.evaluate.speed.first_token import FirstToken
from pocketlm.evaluate.speed.plan import Measure, Phase, Plan, Question, phases
from pocketlm.evaluate.speed.results import Failure
from pocketlm.progress import Progress, ProgressCallback, silent

PAUSE_S = 0.3


class Asked(Protocol):
    """An engine in its process; see ``processes``."""

    @property
    def version(self) -> str: ...

    def ask(self, question: Question) -> Timing: ...


OpenEngine = Callable[[Setup], AbstractContextManager[Asked]]


class Rounds:
    """What the rounds of one model collect.

    Attributes:
        samples: by measure and engine, one for each round that counts.
        first_tokens: by engine, what the most sequences that were asked together went on with.
        failures: of peers.
        versions: of the engines that loaded the model.
        bandwidth: bytes/s that the machine read, once for each round.
    """

    def __init__(
        self,
        plan: Plan,
        setups: Sequence[Setup],
        *,
        open_engine: OpenEngine,
        start: Callable[[Setup], FirstToken],
        probe: Callable[[], float],
        pause: Callable[[float], None] = time.sleep,
        progress: ProgressCallback = silent,
    ) -> None:
        self.samples: dict[Measure, dict[str, list[float]]] = {}
        self.first_tokens: dict[str, tuple[int, ...]] = {}
        self.failures: list[Failure] = []
        self.versions: dict[str, str] = {}
        self.bandwidth: list[float] = []
        self._plan = plan
        self._setups = list(setups)
        self._open_engine, self._start, self._probe = open_engine, start, probe
        self._pause = pause
        self._progress = progress

    def run(self, name: str) -> None:
        """All of it; ``name`` is the model's in reports of progress. Raises what PocketLM does."""
        parts = list(phases(self._plan))
        total = (self._plan.rounds + 1) * (sum(len(phase.questions) for phase in parts) + 1)
        self._task, self._done, self._total = f"measure {name}", 0, total
        for phase in parts:
            self._run_phase(phase)
        for round_ in range(self._plan.rounds + 1):
            self._start_all(counts=round_ > 0)
            self._report()

    def _run_phase(self, phase: Phase) -> None:
        """Engines of the phase's size, from their start to their end."""
        with ExitStack() as stack:
            engines: dict[str, Asked] = {}
            for setup in list(self._setups):
                sized = replace(setup, context=phase.context, sequences=phase.sequences)
                try:
                    engine = stack.enter_context(self._open_engine(sized))
                except PocketLMError as error:
                    self._fail(setup.engine, None, error)
                    self._setups.remove(setup)
                else:
                    engines[setup.engine] = engine
                    self.versions[setup.engine] = engine.version
            for round_ in range(self._plan.rounds + 1):
                for question in phase.questions:
                    self._ask_all(engines, question, counts=round_ > 0)
                    self._report()
                if round_ > 0:
                    self._pause(PAUSE_S)
                    self.bandwidth.append(self._probe())

    def _ask_all(self, engines: dict[str, Asked], question: Question, *, counts: bool) -> None:
        for name, engine in list(engines.items()):
            self._pause(PAUSE_S)
            try:
                timing = engine.ask(question)
            except PocketLMError as error:
                self._fail(name, question.decode or question.prefill, error)
                del engines[name]
                continue
            if len(timing.first_tokens) >= len(self.first_tokens.get(name, ())):
                self.first_tokens[name] = timing.first_tokens
            if counts and question.prefill:
                self._add(question.prefill, name, timing.prefill_tokens / timing.prefill_s)
            if counts and question.decode:
                self._add(question.decode, name, timing.decode_tokens / timing.decode_s)

    def _start_all(self, *, counts: bool) -> None:
        for setup in list(self._setups):
            self._pause(PAUSE_S)
            try:
                found = self._start(setup)
            except PocketLMError as error:
                self._fail(setup.engine, "first_token", error)
                self._setups.remove(setup)
                continue
            if counts:
                self._add("first_token", setup.engine, found.seconds)
                self._add("peak_memory", setup.engine, found.peak_memory)

    def _add(self, measure: Measure, engine: str, value: float) -> None:
        self.samples.setdefault(measure, {}).setdefault(engine, []).append(value)

    def _fail(self, engine: str, measure: Measure | None, error: PocketLMError) -> None:
        if engine == OURS:
            raise error
        self.failures.append(Failure(engine, measure, str(error)))

    def _report(self) -> None:
        self._done += 1
        self._progress(Progress(self._task, self._done, self._total))
