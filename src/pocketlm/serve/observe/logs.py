"""The server's log: one line for each record on stderr, JSON with ``--log-json``.

Control characters are escaped, whoever they come from, so that nobody can forge a line or steer a
terminal. What is logged is the caller's care: no prompt, no answer, no key ever is. A thread of
their own writes the lines: a terminal or a pipe whose reader stalls must not stall the server.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime
from queue import Full, Queue
from threading import Thread
from typing import TextIO

from pocketlm.serve.observe.requests import plain

_NAME = "pocketlm"
_KEPT = 10_000  # records that wait to be written
_FLUSH_S = 1.0


def log_to(stream: TextIO = sys.stderr, *, as_json: bool = False) -> None:
    """Sends the records of PocketLM and of uvicorn to ``stream``, and nothing of others."""
    writer = logging.StreamHandler(stream)
    writer.setFormatter(JsonLines() if as_json else PlainLines())
    handler = InBackground(writer)
    for name, level in ((_NAME, logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


class InBackground(logging.Handler):
    """Hands records to a thread that writes them.

    Those that find no room are counted, and the log says how many once it goes on.
    """

    def __init__(self, writer: logging.Handler) -> None:
        super().__init__()
        self._writer = writer
        self._records: Queue[logging.LogRecord] = Queue(_KEPT)
        self._lost = 0
        Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._records.put_nowait(record)
        except Full:
            self._lost += 1

    def flush(self) -> None:
        """Waits until all is written, at most a second."""
        end = time.monotonic() + _FLUSH_S
        while self._records.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.005)

    def _write(self) -> None:
        while True:
            self._writer.handle(self._records.get())
            if self._lost:
                lost, self._lost = self._lost, 0
                text = f"{lost:,} lines of the log were lost: nobody read it"
                record = logging.LogRecord(_NAME, logging.WARNING, "", 0, text, None, None)
                self._writer.handle(record)
            self._records.task_done()


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, event, and the fields of a request."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= getattr(record, "request", {})
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)  # ASCII: whatever else a text holds is escaped


class PlainLines(logging.Formatter):
    """``2026-01-02 03:04:05 warning text``; a trace follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "request", None)
        text = record.getMessage() if fields is None else plain(fields)
        line = f"{_time(record):%Y-%m-%d %H:%M:%S} {record.levelname.lower()} {_escaped(text)}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line = "\n  ".join((line, *map(_escaped, trace)))
        return line


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
