"""The log's own thread: a reader that stalls does not stall who logs."""

from __future__ import annotations

import io
import logging
from threading import Event

import pytest

from pocketlm.serve.observe import logs
from pocketlm.serve.observe.logs import InBackground


class Stalled(io.StringIO):
    """Whoever writes to it waits until somebody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.read_by_somebody = Event()

    def write(self, text: str) -> int:
        self.read_by_somebody.wait()
        return super().write(text)


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("pocketlm", logging.INFO, "", 0, text, None, None)


def test_a_stalled_reader_stalls_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_KEPT", 10)
    monkeypatch.setattr(logs, "_FLUSH_S", 0.1)
    stream = Stalled()
    handler = InBackground(logging.StreamHandler(stream))
    for i in range(50):
        handler.emit(record(f"line {i}"))
    handler.flush()
    assert stream.getvalue() == ""
    stream.read_by_somebody.set()
    monkeypatch.setattr(logs, "_FLUSH_S", 10)
    handler.flush()
    lines = stream.getvalue().splitlines()
    assert lines[0] == "line 0"
    (lost,) = [line for line in lines if "were lost" in line]
    assert len(lines) - 1 + int(lost.split()[0]) == 50


def test_flush_waits_for_the_last_line() -> None:
    stream = io.StringIO()
    handler = InBackground(logging.StreamHandler(stream))
    handler.emit(record("the end"))
    handler.flush()
    assert stream.getvalue() == "the end\n"
