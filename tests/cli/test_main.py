"""The command itself: help, exit codes, interrupts, closed pipes, and how little it imports."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pocketlm as package
from engine.tiny_file import write_tiny_model
from pocketlm import errors
from pocketlm.cli import main as command


def verb_that_raises(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail() -> None:
        raise error

    module = types.ModuleType("verb_of_a_test")
    module.fail = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(command.VERBS, "fail", (module.__name__, "fail"))


def test_the_version(pocketlm: Callable[..., Any]) -> None:
    said = pocketlm("--version")
    assert (said.code, said.out) == (0, f"pocketlm {package.__version__}\n")


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_every_verb(pocketlm: Callable[..., Any], option: str) -> None:
    said = pocketlm(option)
    assert said.code == 0
    lines = [line for line in said.out.partition("Commands:")[2].splitlines() if line]
    assert [line.split()[0] for line in lines] == list(command.VERBS)
    assert not [line for line in lines if line.endswith("...")], "too long for 80 columns"


@pytest.mark.parametrize("verb", command.VERBS)
def test_every_verb_has_help_and_json(pocketlm: Callable[..., Any], verb: str) -> None:
    said = pocketlm(verb, "--help")
    assert said.code == 0
    assert said.out.startswith(f"Usage: pocketlm {verb} ")
    if verb != "chat":  # a conversation has no one answer to be written as JSON
        assert "--json" in said.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pul"], "There is no verb 'pul'. Did you mean 'pull'?"),
        (["zzz"], "There is no verb 'zzz'. See 'pocketlm --help'."),
        (["pull"], "Missing argument"),
        (["show", "m", "--nope"], "No such option"),
        (["rm"], "nothing to remove was named"),
        (["show", "a b"], "'a b' is not a ref"),
        (["pull", "./m.gguf"], "there is nothing to pull"),
        (["verify", "hf:only-one-part"], "is not of the form ORG/REPO"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    pocketlm: Callable[..., Any], arguments: list[str], message: str
) -> None:
    said = pocketlm(*arguments)
    assert said.code == 2
    assert said.out == ""
    assert message in said.err


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.SourceError, 1),
        (errors.IntegrityError, 1),
        (errors.ModelFileError, 1),
        (errors.UnsupportedError, 1),
        (errors.RequestError, 2),
        (errors.NotFoundError, 1),
        (errors.CapacityError, 1),
        (errors.Cancelled, 130),
    ],
)
def test_an_error_is_one_message_and_the_code_of_its_class(
    pocketlm: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    kind: type[errors.PocketLMError],
    code: int,
) -> None:
    verb_that_raises(monkeypatch, kind("it broke", hint="Mend it."))
    said = pocketlm("fail")
    assert (said.code, said.out, said.err) == (code, "", "pocketlm: it broke. Mend it.\n")


def test_what_others_wrote_cannot_steer_the_terminal(
    pocketlm: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    verb_that_raises(monkeypatch, errors.SourceError("it said \x1b]0;owned\x07 in größe\nend"))
    assert pocketlm("fail").err == "pocketlm: it said \\x1b]0;owned\\x07 in größe\nend\n"


def test_an_interrupt_is_exit_code_130(
    pocketlm: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    verb_that_raises(monkeypatch, KeyboardInterrupt())
    assert pocketlm("fail").code == 130


def test_what_the_system_refuses_is_a_message(
    pocketlm: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    verb_that_raises(monkeypatch, PermissionError(errno.EACCES, "Permission denied", "/store"))
    said = pocketlm("fail")
    assert said.code == 1
    assert said.err == "pocketlm: [Errno 13] Permission denied: '/store'\n"


def test_our_own_bugs_are_not_hidden(
    pocketlm: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    verb_that_raises(monkeypatch, AssertionError("a bug"))
    with pytest.raises(AssertionError, match="a bug"):
        pocketlm("fail")


def test_help_imports_none_of_the_floors() -> None:
    """What takes long to import is left to the verbs that need it."""
    code = (
        "import sys; from pocketlm.cli.main import main; main(['--help']);"
        "print(' '.join(sys.modules), file=sys.stderr)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(said.stderr.split())
    heavy = {"numpy", "pydantic", "httpx", "huggingface_hub", "tokenizers", "jinja2", "rich"}
    floors = {f"pocketlm.{name}" for name in ("store", "catalog", "gguf", "engine", "text", "api")}
    assert not loaded & (heavy | floors)


def test_a_reader_that_leaves_is_no_error() -> None:
    arguments = [sys.executable, "-m", "pocketlm", "catalog", "--json"]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_ctrl_c_while_stdin_is_read_ends_quietly() -> None:
    code = "from pocketlm.cli.main import main; import sys; sys.exit(main(['run', './m.gguf']))"
    with subprocess.Popen(
        [sys.executable, "-c", "import time; print('up', flush=True); " + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):  # it waits for its prompt
            process.wait(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert "Traceback" not in process.stderr.read()


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", code],
        input=b"\xff",
        capture_output=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_what_the_terminal_cannot_show_is_replaced() -> None:
    code = "from pocketlm.cli.main import main; main(['--version']); print('a\u00fc\U0001f600')"
    said = run_python(code, PYTHONIOENCODING="ascii")
    assert (said.stdout.split()[-1], said.stderr) == (b"a??", b"")


def test_closed_streams_are_empty_ones() -> None:
    code = (
        "import sys; sys.stdin = sys.stdout = sys.stderr = None;"
        "from pocketlm.cli.main import main; sys.exit(main(['run', './m.gguf']))"
    )
    said = run_python(code)
    assert (said.returncode, said.stdout, said.stderr) == (2, b"", b"")


@pytest.mark.parametrize("verb", ["run", "chat"])
def test_a_prompt_that_is_no_text_is_refused(tmp_path: Path, verb: str) -> None:
    model = write_tiny_model(tmp_path / "tiny.gguf")
    arguments = [verb, str(model)]
    code = f"from pocketlm.cli.main import main; import sys; sys.exit(main({arguments!r}))"
    said = run_python(code, PYTHONIOENCODING="utf-8:strict")
    assert said.returncode == (2 if verb == "run" else 0)
    assert said.stderr.startswith(b"pocketlm: the text has a lone surrogate at character 0")


_SLOW_VERB = """
import sys, time, types
from pathlib import Path
from pocketlm.cli.main import VERBS, main
from pocketlm.files import atomic_file

def slow() -> None:
    with atomic_file(Path("out")) as write:
        write(b"half")
        print("begun", flush=True)
        time.sleep(60)

sys.modules["slow_verb"] = types.ModuleType("slow_verb")
sys.modules["slow_verb"].slow = slow
VERBS["slow"] = ("slow_verb", "slow")
sys.exit(main(["slow"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows terminates without asking")
def test_a_terminated_verb_leaves_no_half_file(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _SLOW_VERB], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    assert not list(tmp_path.iterdir())
