"""How numbers and progress are written."""

from __future__ import annotations

import io
import sys

import pytest

from pocketlm.cli import output
from pocketlm.progress import Progress


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (98_362_432, "98.4 MB"),
        (999_960_000, "1.0 GB"),
        (16_060_522_496, "16.1 GB"),
        (2 * 10**15, "2000.0 TB"),
    ],
)
def test_bytes_are_written_in_decimal_units(count: int, text: str) -> None:
    assert output.size_text(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(134_515_008, "134.5M"), (999_960_000, "1.0B"), (8_030_261_248, "8.0B")],
)
def test_parameters_are_written_as_models_are_called(count: int, text: str) -> None:
    assert output.count_text(count) == text


def test_what_a_file_says_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.write_table(("NAME", "LICENCE"), [("a", "\x1b[31mred\x07"), ("b", "größe ✓")])
    assert capsys.readouterr().out == ("NAME  LICENCE\na     \\x1b[31mred\\x07\nb     größe ✓\n")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(output, "time", clock)
    return clock


def test_quick_work_is_silent_in_a_log(clock: Clock) -> None:
    stream = io.StringIO()
    report = output.PlainLines(stream)
    for done in range(0, 101, 10):
        report(Progress("download m.gguf", done, 100))
    assert stream.getvalue() == ""


def test_slow_work_gets_a_line_now_and_then_and_a_last_one(clock: Clock) -> None:
    stream = io.StringIO()
    report = output.PlainLines(stream)
    for second in range(13):
        clock.now = 100.0 + second
        report(Progress("download m.gguf", second * 1_000_000, 12_000_000))
    assert stream.getvalue().splitlines() == [
        "pocketlm: download m.gguf: 8% of 12.0 MB, 11 s left",
        "pocketlm: download m.gguf: 50% of 12.0 MB",
        "pocketlm: download m.gguf: 92% of 12.0 MB",
        "pocketlm: download m.gguf: 100% of 12.0 MB",
    ]


def test_what_was_done_before_does_not_shorten_the_time_left(clock: Clock) -> None:
    stream = io.StringIO()
    report = output.PlainLines(stream)
    report(Progress("read", 500, 1000))
    clock.now += 2
    report(Progress("read", 504, 1000))
    assert stream.getvalue() == "pocketlm: read: 50%, 4 min left\n"


def test_a_second_task_of_the_same_name_begins_anew(clock: Clock) -> None:
    stream = io.StringIO()
    report = output.PlainLines(stream)
    for done in (0, 500, 1000, 0):  # two models are packed
        report(Progress("pack weights", done, 1000))
        clock.now += 10
    report(Progress("pack weights", 100, 1000))
    assert stream.getvalue().splitlines()[-1] == "pocketlm: pack weights: 10%, 90 s left"


def test_waiting_is_said_at_once(clock: Clock) -> None:
    stream = io.StringIO()
    output.PlainLines(stream)(Progress("wait for another process", 0))
    assert stream.getvalue() == "pocketlm: wait for another process\n"


def test_amounts_that_are_no_bytes_are_not_written_as_such(clock: Clock) -> None:
    stream = io.StringIO()
    report = output.PlainLines(stream)
    report(Progress("pack weights", 0, 134_515_008))
    clock.now += 2
    report(Progress("pack weights", 67_257_504, 134_515_008))
    assert stream.getvalue() == "pocketlm: pack weights: 50%\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_and_names_are_never_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with output.progress() as report:
        report(Progress("download [red]m.gguf", 500_000, 1_000_000))
        report(Progress("download [red]m.gguf", 1_000_000, 1_000_000))
    assert "download [red]m.gguf" in terminal.getvalue()
    assert "1.0 MB of 1.0 MB" in terminal.getvalue()


def test_a_log_imports_no_terminal_library(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress() as report:
        assert isinstance(report, output.PlainLines)
