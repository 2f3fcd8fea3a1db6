"""What is remembered of bench, and what it does to predictions: with made-up histories."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pocketlm.advise.device import Device, find_device
from pocketlm.advise.performance import PlannedModel, planned, predict
from pocketlm.advise.performance.history import (
    Case,
    Point,
    Run,
    correction,
    history_file,
    remember,
    remembered,
)
from pocketlm.advise.performance.prediction import case_of, formula_of
from pocketlm.advise.performance.remembering import remember_speed, run_of
from pocketlm.evaluate.speed.limits import Machine
from pocketlm.evaluate.speed.plan import Plan
from pocketlm.evaluate.speed.results import ModelSpeed, Row, Samples, Speed
from pocketlm.settings import Settings

CASE = Case("Some CPU", 4, "neon", 4, "f16", "a" * 32, "Q4_0", 90_000_000)
POINTS = (Point("prefill", 512, 120.0, 100.0), Point("decode", 576, 20.0, 25.0))


def run(case: Case = CASE, points: Sequence[Point] = POINTS, **changes: object) -> Run:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    return replace(Run(when, "1.0", "some:model", case, tuple(points)), **changes)  # type: ignore[arg-type]


def other(letter: str, **changes: object) -> Case:
    return replace(CASE, shapes=letter * 32, **changes)  # type: ignore[arg-type]


def flat(value: float) -> Callable[[int], float]:
    return lambda at: value


def test_runs_come_back_in_their_order(tmp_path: Path) -> None:
    assert remembered(tmp_path) == ()
    first, second, third = (run(model=f"model {i}") for i in range(3))
    remember([first], tmp_path)
    assert remembered(tmp_path) == (first,)
    remember([second, third], tmp_path)
    assert remembered(tmp_path) == (first, second, third)


def test_a_damaged_line_is_named_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remember([run()], tmp_path)
    path = history_file(tmp_path)
    good = path.read_bytes()
    path.write_bytes(b'{"when": 1}\n' + good + good[:50] + b"\n\xff\xfe\n" + good[:-9])
    with caplog.at_level(logging.WARNING):
        assert remembered(tmp_path) == (run(),)
        remembered(tmp_path)
    (said,) = caplog.messages
    assert said.startswith(f"{path}: line 1 is damaged and is skipped: ")
    assert said.endswith("and 3 more lines")
    # the line that was cut short does not swallow the next one
    remember([run(model="later")], tmp_path)
    assert remembered(tmp_path) == (run(), run(model="later"))


def test_the_oldest_go(tmp_path: Path) -> None:
    remember([run(model=str(i)) for i in range(1000)], tmp_path)
    assert len(remembered(tmp_path)) == 1000
    remember([run(model="last")], tmp_path)
    kept = remembered(tmp_path)
    assert (len(kept), kept[0].model, kept[-1].model) == (750, "251", "last")
    assert [one.name for one in history_file(tmp_path).parent.iterdir()] == ["history.jsonl"]


def test_processes_that_end_together_lose_nothing(tmp_path: Path) -> None:
    def end(number: int) -> None:
        for i in range(20):
            remember([run(model=f"{number} {i}")], tmp_path)

    threads = [threading.Thread(target=end, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len({one.model for one in remembered(tmp_path)}) == 80


def test_a_history_that_is_no_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    history_file(tmp_path).mkdir(parents=True)
    assert remembered(tmp_path) == ()
    assert str(history_file(tmp_path)) in caplog.text


def test_without_measurements_the_formula_stands() -> None:
    for runs in (
        [],
        [run(other("b", isa="avx2"))],
        [run(other("b", cpu="Another CPU"))],
        [run(other("b", threads=2))],
        [run(other("b", type="Q8_0"))],
        [run(replace(CASE, cores=8))],
    ):
        found = correction(CASE, runs)
        assert found.value("decode", 576, flat(25.0)) == 25.0
        assert found.basis == "formula"


def test_what_was_measured_of_the_model_itself_is_said() -> None:
    runs = [run(points=[Point("decode", 576, speed, 25.0)]) for speed in (20.0, 22.0, 90.0)]
    found = correction(CASE, [*runs, run(other("b"))])
    assert found.value("decode", 576, flat(1.0)) == 22.0
    assert found.basis == "measured here 3 times"
    assert correction(CASE, runs[:1]).basis == "measured here"

    def slower_when_deep(at: int) -> float:
        return 10_000 / (1000 + at)

    deep = found.value("decode", 4000, slower_when_deep)
    assert deep == pytest.approx(22.0 * 1576 / 5000)
    # a measure that these runs do not have
    assert found.value("prefill", 512, flat(7.0)) > 7.0


def test_the_nearest_depth_that_was_measured_counts() -> None:
    points = [Point("decode", 576, 20.0, 25.0), Point("decode", 2112, 10.0, 25.0)]
    found = correction(CASE, [run(points=points)])
    assert found.value("decode", 512, flat(1.0)) == 20.0
    assert found.value("decode", 4096, flat(1.0)) == 10.0


def test_only_the_latest_runs_of_a_model_count() -> None:
    old = [run(points=[Point("decode", 576, 5.0, 25.0)])] * 20
    new = [run(points=[Point("decode", 576, 20.0, 25.0)])] * 9
    assert correction(CASE, [*old, *new]).value("decode", 576, flat(1.0)) == 20.0


def test_other_models_of_the_type_are_believed_the_more_the_more_they_are() -> None:
    ratios = []
    for count in (1, 2, 8):
        runs = [run(other(letter)) for letter in "bcdefghi"[:count] for _ in range(3)]
        found = correction(CASE, runs)
        ratios.append(found.value("decode", 576, flat(1.0)))
        assert found.basis == f"corrected by {3 * count} measurements"
    # each says 0.8; a model counts once however often it was measured
    assert ratios == pytest.approx([0.8 ** (1 / 3), 0.8 ** (2 / 4), 0.8 ** (8 / 10)])
    one = [run(other("b"), points=[Point("decode", 576, 1e6, 1.0)])]
    assert correction(CASE, one).value("decode", 576, flat(1.0)) == pytest.approx(4 ** (1 / 3))


@pytest.fixture(scope="module")
def device() -> Device:
    return find_device("raspberry-pi-5-8gb")


def measured_speed(ref: str, tmp: float = 1.0) -> Speed:
    rows = tuple(
        Row(measure, measure, unit, {"pocketlm": Samples((value,))})  # type: ignore[arg-type]
        for measure, unit, value in (
            ("prefill", "tokens/s", 30.0),
            ("decode", "tokens/s", 12.0),
            ("decode_at_depth", "tokens/s", 8.0),
            ("first_token", "s", 5.0),
            ("peak_memory", "bytes", 5e8),
        )
    )
    bandwidth = Samples((9e9,))
    one = ModelSpeed(ref, "Q4_0", 1, rows, (), (), (), bandwidth)
    machine = Machine("Some CPU", 4, "neon", "Linux")
    return Speed(machine, Plan(threads=4), {"pocketlm": "1"}, bandwidth, (one,))


def test_a_bench_of_a_model_is_its_prediction_afterwards(device: Device) -> None:
    model = planned("qwen3:0.6b")
    found = measured_speed("qwen3:0.6b")
    before = predict(model, "BF16", device, context=4096, prompt=576)
    remember([run_of(found, found.models[0], device)], Settings.from_environment().home)
    after = predict(model, "BF16", device, context=2112, prompt=576)
    assert before.basis == "formula"
    assert after.basis == "measured here"
    assert after.decode == pytest.approx(12.0)
    assert after.decode_at_context == pytest.approx(8.0)
    assert predict(model, "BF16", device, context=4096).prefill == pytest.approx(30.0)
    assert after.peak <= before.peak
    # the first token was measured with a prompt of five tokens
    assert after.first_token == pytest.approx(5.0 + 576 / after.prefill, rel=0.1)
    # its own error corrects another model in this type, and only in this type
    larger = planned("qwen3:1.7b")
    assert predict(larger, "BF16", device, context=512).basis == "corrected by 1 measurement"
    assert predict(larger, "Q4_0", device, context=512).basis == "formula"
    assert predict(model, "BF16", device, context=512, kv="q8").basis == "formula"


def test_the_ratio_is_to_the_bandwidth_of_the_run(device: Device) -> None:
    found = measured_speed("qwen3:0.6b")
    assert device.rates is not None
    twice = replace(device.rates, read_bandwidth=2 * device.rates.read_bandwidth)
    one, two = (
        run_of(found, found.models[0], given) for given in (device, replace(device, rates=twice))
    )
    decode = [next(p for p in r.points if p.measure == "decode").predicted for r in (one, two)]
    assert decode[0] == decode[1]
    model: PlannedModel = planned("qwen3:0.6b")
    file = model.file()
    assert one.case == case_of(model, file, device, kv="f16", threads=4)
    formula = formula_of(model, file, device, kv="f16", threads=4)
    assert decode[0] != formula.decode(576)


def test_a_run_too_short_to_tell_is_not_remembered() -> None:
    found = measured_speed("qwen3:0.6b")
    remember_speed(replace(found, plan=Plan(threads=4, prompt=8, generate=4)))
    assert remembered(Settings.from_environment().home) == ()


def test_a_home_that_cannot_be_written_is_told(
    device: Device, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "pocketlm.advise.performance.remembering"
    monkeypatch.setattr(f"{module}.this_device", lambda: device)
    home = Settings.from_environment().home
    home.mkdir(parents=True)
    (home / "bench").write_text("a file")
    remember_speed(measured_speed("qwen3:0.6b"))
    assert "not remembered" in caplog.text
    (home / "bench").unlink()
    remember_speed(measured_speed("qwen3:0.6b"))
    assert len(remembered(home)) == 1
