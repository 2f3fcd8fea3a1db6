"""The order of questions and rounds, what counts, and engines that fail: with fake engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from pocketlm.errors import PocketLMError, RequestError
from pocketlm.evaluate.speed.contenders import Setup, Timing
from pocketlm.evaluate.speed.first_token import FirstToken
from pocketlm.evaluate.speed.plan import Plan, Question, phases
from pocketlm.evaluate.speed.results import Failure
from pocketlm.evaluate.speed.rounds import Rounds
from pocketlm.progress import Progress

PLAN = Plan(threads=1, prompt=8, generate=4, depth=16, batch=(2, 4), rounds=2)
ALL = ("pocketlm", "llamacpp", "ik")


@dataclass
class Stage:
    """Where fake engines play: what they did, in order, and where they fail."""

    did: list[str] = field(default_factory=list)
    no_load: str = ""
    dies: tuple[str, str] = ("", "")  # engine and measure
    speeds: dict[str, float] = field(default_factory=lambda: {n: i + 1 for i, n in enumerate(ALL)})

    @contextmanager
    def open(self, setup: Setup) -> Iterator[Fake]:
        if setup.engine == self.no_load:
            raise PocketLMError("cannot load it")
        self.did.append(f"open {setup.engine} {setup.sequences}x{setup.context}")
        try:
            yield Fake(self, setup.engine)
        finally:
            self.did.append(f"close {setup.engine}")

    def start(self, setup: Setup) -> FirstToken:
        self.did.append(f"start {setup.engine}")
        if self.dies == (setup.engine, "first_token"):
            raise PocketLMError("died")
        return FirstToken(1 / self.speeds[setup.engine], 1000)

    def probe(self) -> float:
        self.did.append("probe")
        return 1e9


@dataclass
class Fake:
    stage: Stage
    engine: str
    version: str = "1"

    def ask(self, question: Question) -> Timing:
        self.stage.did.append(f"{self.engine} {question.decode}")
        if self.stage.dies == (self.engine, question.decode):
            raise PocketLMError("died")
        speed = self.stage.speeds[self.engine]
        tokens = question.sequences * question.generate
        prompts = question.sequences * question.prompt
        firsts = tuple(range(question.sequences))
        return Timing(prompts, prompts / speed, tokens, tokens / speed, firsts)


def play(stage: Stage, plan: Plan = PLAN, report: list[Progress] | None = None) -> Rounds:
    setups = [
        Setup(engine=name, path="m.gguf", context=1, sequences=1, threads=1, kv="f16")
        for name in ALL
    ]
    found = Rounds(
        plan,
        setups,
        open_engine=stage.open,
        start=stage.start,
        probe=stage.probe,
        pause=lambda seconds: stage.did.append("pause"),
        progress=(report if report is not None else []).append,
    )
    found.run("m")
    return found


def test_engines_take_turns_question_by_question() -> None:
    stage = Stage()
    play(stage)
    asked = [one for one in stage.did if one != "pause"]
    alone = [f"{e} {q}" for q in ("decode", "decode_at_depth") for e in ALL]
    together = [f"{e} batch_{n}" for n in (2, 4) for e in ALL]
    start = [f"start {e}" for e in ALL]
    opened = [[f"open {e} {size}" for e in ALL] for size in ("1x21", "4x66")]
    closed = [f"close {e}" for e in reversed(ALL)]
    assert asked == [
        *(opened[0] + alone + 2 * [*alone, "probe"] + closed),
        *(opened[1] + together + 2 * [*together, "probe"] + closed),
        *(3 * start),
    ]


def test_a_pause_comes_before_every_question() -> None:
    stage = Stage()
    play(stage)
    for before, one in zip(stage.did, stage.did[1:], strict=False):
        if not one.startswith(("open", "close", "pause")):
            assert before == "pause", one


def test_the_first_round_does_not_count() -> None:
    stage = Stage()
    found = play(stage)
    assert set(found.samples) == {
        *("prefill", "decode", "decode_at_depth", "batch_2", "batch_4"),
        *("first_token", "peak_memory"),
    }
    for measure, engines in found.samples.items():
        assert list(engines) == list(ALL)
        for name, values in engines.items():
            speed = stage.speeds[name]
            expected = {"first_token": 1 / speed, "peak_memory": 1000}.get(measure, speed)
            assert values == pytest.approx([expected] * PLAN.rounds)
    assert found.bandwidth == [1e9] * 2 * PLAN.rounds
    assert found.versions == dict.fromkeys(ALL, "1")
    assert found.first_tokens == dict.fromkeys(ALL, (0, 1, 2, 3))
    assert found.failures == []


def test_progress_ends_with_the_run() -> None:
    report: list[Progress] = []
    play(Stage(), report=report)
    assert [one.done for one in report] == list(range(1, len(report) + 1))
    assert report[-1].done == report[-1].total


def test_a_peer_that_cannot_load_the_model_is_left_out() -> None:
    stage = Stage(no_load="ik")
    found = play(stage)
    assert found.failures == [Failure("ik", None, "cannot load it")]
    assert not any("ik" in one for one in stage.did)
    assert all(list(engines) == ["pocketlm", "llamacpp"] for engines in found.samples.values())


def test_a_peer_that_dies_has_what_it_did_before_and_comes_again() -> None:
    stage = Stage(dies=("llamacpp", "decode_at_depth"))
    found = play(stage)
    assert found.failures == [Failure("llamacpp", "decode_at_depth", "died")]
    assert set(found.samples["decode_at_depth"]) == {"pocketlm", "ik"}
    assert "llamacpp" in found.samples["batch_2"]
    assert stage.did.count("llamacpp decode") == 1


def test_a_peer_that_dies_at_its_start() -> None:
    found = play(Stage(dies=("ik", "first_token")))
    assert found.failures == [Failure("ik", "first_token", "died")]
    assert set(found.samples["first_token"]) == {"pocketlm", "llamacpp"}


def test_where_pocketlm_fails_the_run_does() -> None:
    stage = Stage(dies=("pocketlm", "decode"))
    with pytest.raises(PocketLMError, match="died"):
        play(stage)
    assert stage.did[-1].startswith("close")


def test_depth_and_batch_can_be_left_out() -> None:
    (only,) = phases(Plan(threads=1, prompt=8, generate=4, depth=0, batch=()))
    assert [q.decode for q in only.questions] == ["decode"]
    assert (only.context, only.sequences) == (13, 1)


@pytest.mark.parametrize("vocabulary", [4, 300, 1024, 50_000])
def test_prompts_fit_the_vocabulary_and_differ(vocabulary: int) -> None:
    prompts = Question(3, 600, 1).prompts(vocabulary)
    assert [len(one) for one in prompts] == [600] * 3
    assert all(0 <= token < vocabulary for prompt in prompts for token in prompt)
    assert vocabulary < 10 or prompts[0] != prompts[1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": 0},
        {"generate": 0},
        {"depth": -1},
        {"rounds": 0},
        {"threads": 0},
        {"batch": (0,)},
        {"batch": (4, 4)},
        {"prompt": True},
    ],
)
def test_plans_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(RequestError, match=next(iter(wrong))):
        Plan(**{"threads": 1} | wrong)  # type: ignore[arg-type]
