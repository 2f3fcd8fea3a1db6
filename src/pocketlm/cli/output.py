"""What the verbs share when they write: JSON and tables to stdout, progress to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from pocketlm.progress import Progress, ProgressCallback

if TYPE_CHECKING:
    import rich.progress

    from pocketlm.store import StoredModel

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]

# Tasks whose amounts are bytes; of the others only the share is shown.
_IN_BYTES = ("download ", "unpack ", "copy ", "hash ", "check ", "convert ", "quantize ")
_FIRST_LINE_S = 1.0
_NEXT_LINE_S = 5.0
_SOON_S = 10.0


def write_json(value: object) -> None:
    """One JSON value to stdout, for programs and people."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def harmless(text: str) -> str:
    """``text`` with control characters escaped: what a server or a file says must not steer the
    terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def write_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows under a head line, in columns as wide as they need; nothing where there are no rows."""
    if not rows:
        return
    lines = [head, *([harmless(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def record(model: StoredModel) -> dict[str, Any]:
    """A model as JSON: its name, its path and what its manifest says."""
    found: dict[str, Any] = {"name": model.name, "path": str(model.path)}
    if model.manifest is not None:
        found |= model.manifest.model_dump(mode="json", exclude={"name"})
        found["size"] = model.manifest.size
    return found


def size_text(count: int) -> str:
    """Bytes in decimal units, as disks and downloads are sold: ``98.4 MB``."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.95:
            break
        value, unit = value / 1000, larger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def count_text(count: int) -> str:
    """Parameters as models are called by: ``134.5M``, ``8.0B``."""
    if count >= 999_950_000:
        return f"{count / 1e9:.1f}B"
    return f"{count / 1e6:.1f}M"


@contextmanager
def progress() -> Iterator[ProgressCallback]:
    """A callback that shows progress on stderr: bars on a terminal, a few lines elsewhere."""
    if not sys.stderr.isatty():
        yield PlainLines(sys.stderr)
        return
    bars = _Bars()
    try:
        yield bars
    finally:
        bars.close()


class PlainLines:
    """Progress for logs: nothing for what is quick, a line every few seconds for what is not."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._task: str | None = None
        self._began = (0.0, 0)  # when the task did, and what was done already
        self._done = 0
        self._next = 0.0
        self._wrote = False

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.task != self._task or progress.done < self._done:  # another of its name
            self._task, self._next, self._wrote = progress.task, now + _FIRST_LINE_S, False
            self._began = (now, progress.done)
            if progress.total is None and progress.done == 0:  # waiting: said at once
                self._write(progress, now)
        elif now >= self._next or (self._wrote and progress.done == progress.total):
            self._write(progress, now)
        self._done = progress.done

    def _write(self, progress: Progress, now: float) -> None:
        self._next, self._wrote = now + _NEXT_LINE_S, True
        line = harmless(_line(progress)) + self._left(progress, now)
        print(f"pocketlm: {line}", file=self._stream, flush=True)

    def _left(self, progress: Progress, now: float) -> str:
        """``, 40 s left`` at the mean speed so far; "" for what is soon done or not known."""
        began, before = self._began
        done = progress.done - before
        if progress.total is None or done <= 0:
            return ""
        seconds = (progress.total - progress.done) * (now - began) / done
        if seconds < _SOON_S:
            return ""
        return f", {seconds:.0f} s left" if seconds < 120 else f", {seconds / 60:.0f} min left"


def _line(progress: Progress) -> str:
    in_bytes = progress.task.startswith(_IN_BYTES)
    if progress.total:
        of = f" of {size_text(progress.total)}" if in_bytes else ""
        return f"{progress.task}: {100 * progress.done / progress.total:.0f}%{of}"
    return f"{progress.task}: {size_text(progress.done)}" if in_bytes else progress.task


class _Bars:
    """Progress for people: one bar for the task at hand, gone when it is done."""

    def __init__(self) -> None:
        self._live: rich.progress.Progress | None = None
        self._task: str | None = None
        self._bar: rich.progress.TaskID | None = None

    def __call__(self, progress: Progress) -> None:
        live = self._live or self._open()
        if progress.task != self._task or self._bar is None:
            if self._bar is not None:
                live.remove_task(self._bar)
            self._task = progress.task
            self._bar = live.add_task(harmless(progress.task), total=progress.total, amount="")
        in_bytes = progress.task.startswith(_IN_BYTES)
        total = f" of {size_text(progress.total)}" if progress.total else ""
        amount = f"{size_text(progress.done)}{total}" if in_bytes else ""
        live.update(self._bar, completed=progress.done, total=progress.total, amount=amount)

    def _open(self) -> rich.progress.Progress:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        self._live = Progress(
            # Names of files come from servers: they are text, never markup.
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[amount]}", markup=False),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._live.start()
        return self._live

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
