"""``compare --try``: answers as they come, in columns on a terminal, in blocks anywhere else."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from pocketlm.advise.comparison.records import Comparison, Subject
    from pocketlm.advise.comparison.trying import Answer, Speaker, Tried

_COLUMN = 26  # the narrowest column that is readable
_PER_SECOND = 12


def ask(
    found: Comparison,
    prompt: str,
    options: Mapping[str, Any],
    *,
    kv: str,
    threads: int | None,
    shown: bool,
) -> list[Tried]:
    """Every model's answer; written as it comes where ``shown``, else only returned.

    Models that are not here and do not run elsewhere are left out, with a note.
    """
    from pocketlm.advise.comparison.trying import try_all
    from pocketlm.cli.answering import stop_on_interrupt
    from pocketlm.cli.output import harmless

    speakers: list[Speaker] = []
    for subject in found.subjects:
        if subject.where in ("catalog", "hub"):
            print(
                harmless(f"pocketlm: {subject.name} is not here: 'pocketlm pull {subject.ref}'"),
                file=sys.stderr,
            )
            continue
        speakers.append(_speaker(subject, prompt, options, kv=kv, threads=threads))
    names = [speaker.name for speaker in speakers]
    with stop_on_interrupt() as cancel, _view(names, shown=shown) as view:
        return try_all(speakers, on_text=view.text, on_end=view.end, cancel=cancel)


def _speaker(
    subject: Subject, prompt: str, options: Mapping[str, Any], *, kv: str, threads: int | None
) -> Speaker:
    from pocketlm.advise.comparison.trying import Speaker
    from pocketlm.store.remote_refs import parse_remote

    @contextmanager
    def here() -> Iterator[Answer]:
        import pocketlm

        given: dict[str, Any] = {} if threads is None else {"threads": threads}
        with pocketlm.load(subject.ref, kv=kv, **given) as model:  # type: ignore[arg-type]
            yield lambda cancel: _local(model, prompt, options, cancel)

    @contextmanager
    def elsewhere() -> Iterator[Answer]:
        from pocketlm.backends.remote import RemoteModel

        with RemoteModel(subject.ref) as model:
            yield lambda cancel: _remote(model, prompt, options, cancel)

    if subject.where != "remote":
        return Speaker(subject.name, False, here)
    # A server on this machine would compute on the cores that are timed.
    return Speaker(subject.name, not parse_remote(subject.ref).on_this_machine, elsewhere)


def _local(
    model: Any, prompt: str, options: Mapping[str, Any], cancel: threading.Event
) -> Iterator[Any]:
    """Sampling as a remote model has it: top-k and min-p, which it has not, are off."""
    from pocketlm.advise.comparison.trying import Cost

    # A base model has no template: it goes on with the prompt.
    chunks = model.stream(
        prompt,
        raw=model.template is None,
        cancel=cancel,
        on_overflow="stop",
        top_k=0,
        min_p=0.0,
        **options,
    )
    for chunk in chunks:
        if chunk.text:
            yield chunk.text
        if chunk.stats is not None:
            stats = chunk.stats
            yield Cost(
                stats.completion_tokens, stats.ttft_s, stats.decode_tps, chunk.finish_reason or ""
            )


def _remote(
    model: Any, prompt: str, options: Mapping[str, Any], cancel: threading.Event
) -> Iterator[Any]:
    from pocketlm.advise.comparison.trying import Cost

    for piece in model.stream(prompt, cancel=cancel, patience_s=30.0, **options):
        if piece.text:
            yield piece.text
        if piece.stats is not None:
            stats = piece.stats
            yield Cost(
                stats.completion_tokens, stats.ttft_s, stats.decode_tps, piece.finish_reason or ""
            )


@contextmanager
def _view(names: list[str], *, shown: bool) -> Iterator[_View]:
    if not shown:
        yield _View()
    elif sys.stdout.isatty() and len(names) * _COLUMN <= _width():
        with _Columns(names) as columns:
            yield columns
    else:
        yield _Blocks(names)


def _width() -> int:
    from shutil import get_terminal_size

    return get_terminal_size((80, 24)).columns


class _View:
    """Nothing is shown."""

    def text(self, index: int, piece: str) -> None:
        pass

    def end(self, index: int, tried: Tried) -> None:
        pass


class _Blocks(_View):
    """One block after the other, in the order of the models; of the one in turn as it comes."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._turn = 0
        self._texts = [""] * len(names)
        self._wrote = [0] * len(names)
        self._ended: dict[int, Tried] = {}
        self._head()

    def text(self, index: int, piece: str) -> None:
        self._texts[index] += piece
        if index == self._turn:
            self._flush()

    def end(self, index: int, tried: Tried) -> None:
        self._ended[index] = tried
        while self._turn in self._ended:
            self._flush()
            self._tail(self._ended[self._turn])
            self._turn += 1
            self._head()
            if self._turn < len(self._names):
                self._flush()

    def _head(self) -> None:
        from pocketlm.cli.output import harmless

        if self._turn < len(self._names):
            print(f"{chr(10) if self._turn else ''}--- {harmless(self._names[self._turn])}")

    def _flush(self) -> None:
        from pocketlm.cli.remote import for_terminal

        new = self._texts[self._turn][self._wrote[self._turn] :]
        self._wrote[self._turn] += len(new)
        sys.stdout.write(for_terminal(new))
        sys.stdout.flush()

    def _tail(self, tried: Tried) -> None:
        from pocketlm.cli.output import harmless

        if tried.text and not tried.text.endswith("\n"):
            print()
        print(f"[{harmless(tried.cost)}]")


class _Columns(_View):
    """A column for each model, drawn anew as text comes; at the end all of it stays."""

    def __init__(self, names: list[str], console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._names = names
        self._texts = [""] * len(names)
        self._costs = ["waits"] * len(names)
        self._console = console or Console(highlight=False)
        self._live = Live(
            console=self._console, refresh_per_second=_PER_SECOND, transient=True, auto_refresh=True
        )

    def __enter__(self) -> _Columns:
        self._live.start()
        self._live.update(self._drawn())
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()
        self._console.print(self._drawn())  # whole, also where it is longer than the screen

    def text(self, index: int, piece: str) -> None:
        self._texts[index] += piece
        self._costs[index] = "answers"
        self._live.update(self._drawn())

    def end(self, index: int, tried: Tried) -> None:
        self._costs[index] = tried.cost
        self._live.update(self._drawn())

    def _drawn(self) -> RenderableType:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        from pocketlm.cli.output import harmless

        table = Table(box=SIMPLE_HEAD, expand=True, show_footer=True, pad_edge=False)
        for name, cost in zip(self._names, self._costs, strict=True):
            table.add_column(
                Text(harmless(name)), footer=Text(harmless(cost)), ratio=1, overflow="fold"
            )
        table.add_row(*(Text(harmless(text.replace("\t", "    "))) for text in self._texts))
        return table
