"""The server's log: one line for each record on stderr, JSON with ``--log-json``.

Control characters are escaped, whoever they come from, so that nobody can forge a line or steer a
terminal. What is logged is the caller's care: no prompt, no answer, no key ever is.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from pocketlm.serve.observe.requests import plain

_NAME = "pocketlm"


def log_to(stream: TextIO = sys.stderr, *, as_json: bool = False) -> None:
    """Sends the records of PocketLM and of uvicorn to ``stream``, and nothing of others."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if as_json else PlainLines())
    for name, level in ((_NAME, logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


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
