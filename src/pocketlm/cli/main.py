"""The ``pocketlm`` command: finds the verb's file, and turns errors into messages and exit codes.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 143 terminated; ``errors.py`` says
which class has which. A verb's file is imported when the verb is used, so that the command starts
at once.
"""

from __future__ import annotations

import difflib
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from pocketlm.errors import PocketLMError

# verb: (module, function), in the order of --help
VERBS: dict[str, tuple[str, str]] = {
    "pull": ("pocketlm.cli.pull", "pull"),
    "push": ("pocketlm.cli.push", "push"),
    "list": ("pocketlm.cli.list", "list_models"),
    "show": ("pocketlm.cli.show", "show"),
    "cp": ("pocketlm.cli.cp", "cp"),
    "rm": ("pocketlm.cli.rm", "rm"),
    "import": ("pocketlm.cli.import_", "import_model"),
    "create": ("pocketlm.cli.create", "create"),
    "verify": ("pocketlm.cli.verify", "verify"),
    "run": ("pocketlm.cli.run", "run"),
    "chat": ("pocketlm.cli.chat", "chat"),
    "serve": ("pocketlm.cli.serve", "serve"),
    "ps": ("pocketlm.cli.ps", "ps"),
    "stop": ("pocketlm.cli.stop", "stop"),
    "key": ("pocketlm.cli.key", "key"),
    "convert": ("pocketlm.cli.convert", "convert"),
    "quantize": ("pocketlm.cli.quantize", "quantize"),
    "footprint": ("pocketlm.cli.footprint", "footprint"),
    "eval": ("pocketlm.cli.eval", "evaluate"),
    "bench": ("pocketlm.cli.bench", "bench"),
    "catalog": ("pocketlm.cli.catalog", "catalog"),
    "search": ("pocketlm.cli.search", "search"),
    "compare": ("pocketlm.cli.compare", "compare"),
    "device": ("pocketlm.cli.device", "device"),
    "recommend": ("pocketlm.cli.recommend", "recommend"),
    "plan": ("pocketlm.cli.plan", "plan"),
}
_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


class _Verbs(TyperGroup):
    """The verbs of the table, each made a command when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            close = difflib.get_close_matches(cmd_name, VERBS, n=1)
            meant = f"Did you mean '{close[0]}'?" if close else "See 'pocketlm --help'."
            ctx.fail(f"There is no verb '{cmd_name}'. {meant}")
        module, function = VERBS[cmd_name]
        verb = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=_SETTINGS)
        verb.command(cmd_name)(getattr(importlib.import_module(module), function))
        return get_command(verb)


app = typer.Typer(
    cls=_Verbs,
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings=_SETTINGS,
)


def _version(wanted: bool) -> None:
    if wanted:
        from pocketlm import __version__

        print(f"pocketlm {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Small language models on your own machine: get, keep, run and check them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    _prepare_streams()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        return _run(arguments)
    except PocketLMError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return _pipe_closed()
    except OSError as error:
        # The operating system said no: a folder that may not be written, a disk that fails.
        return _complain(str(error), 1)


def _terminate(number: int, frame: object) -> None:
    """Ends the program as an exception does, so that half-written files are removed."""
    raise SystemExit(128 + number)


def _prepare_streams() -> None:
    """Makes the standard streams fit for any text, and there.

    Models write every script, whatever the terminal's encoding has: the rest is shown as "?". Bytes
    on stdin that are no text come through, so that whoever reads them can say so. A stream that the
    caller closed is an empty one.
    """
    for name, mode, errors in (
        ("stdin", "r", "surrogateescape"),
        ("stdout", "w", "replace"),
        ("stderr", "w", "backslashreplace"),
    ):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        get_command(app).main(args=arguments, prog_name="pocketlm")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    sys.stdout.flush()
    return code


def _complain(message: str, code: int) -> int:
    from pocketlm.cli.output import harmless

    try:
        sys.stdout.flush()
        print(f"pocketlm: {harmless(message)}", file=sys.stderr)
    except BrokenPipeError:
        _pipe_closed()
    return code


def _pipe_closed() -> int:
    """Whoever read our output has gone, as ``| head`` does: nothing more to say, to nobody.

    The descriptor is pointed elsewhere since Python flushes stdout once more when it exits.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
    return 1
