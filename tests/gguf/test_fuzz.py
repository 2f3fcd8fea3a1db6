"""A short run of the fuzzer, and proof that it would notice: planted bugs are found."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pocketlm.gguf import reader, tensors
from pocketlm.gguf.cursor import Cursor

PROGRAM = Path(__file__).parents[2] / "fuzz" / "gguf_fuzz.py"


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gguf_fuzz", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def first_finding(fuzz: ModuleType, check: Callable[[bytes], Any], cases: int = 3000) -> Exception:
    seeds = fuzz.Seeds()
    for index in range(cases):
        try:
            check(fuzz.make_case(7, index, seeds))
        except Exception as error:
            return error
    raise AssertionError(f"{cases} cases found nothing")


def test_ten_thousand_files() -> None:
    command = [sys.executable, str(PROGRAM), "--count", "10000", "--seed", "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10,000 files, seed 20" in done.stdout
    assert "no findings" in done.stdout


def test_cases_can_be_made_again(fuzz: ModuleType) -> None:
    made = [fuzz.make_case(3, index, fuzz.Seeds()) for index in (5, 6)]
    seeds = fuzz.Seeds()
    assert [fuzz.make_case(3, index, seeds) for index in (5, 6)] == made
    assert made[0] != made[1]


def test_every_sound_file_is_accepted(fuzz: ModuleType) -> None:
    for data in fuzz.Seeds().files:
        assert fuzz.check_case(data) == "accepted"
        fuzz.check_memory(data)


def test_finds_a_missing_check_of_bounds(fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cursor, "need", lambda self, nbytes, what: None)
    assert type(first_finding(fuzz, fuzz.check_case)).__name__ == "error"  # struct.error


def test_finds_a_missing_check_of_overlaps(
    fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "_check_overlaps", lambda cursor, infos: None)
    assert "overlaps" in str(first_finding(fuzz, fuzz.check_case))


def test_finds_a_value_read_as_another_type(
    fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = reader.read_metadata

    def plain(cursor: Cursor, count: int) -> dict[str, Any]:
        return {k: int(v) if isinstance(v, int) else v for k, v in real(cursor, count).items()}

    monkeypatch.setattr(reader, "read_metadata", plain)
    assert "not written back" in str(first_finding(fuzz, fuzz.check_case))


def test_finds_memory_taken_on_trust(fuzz: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Cursor.count

    def trusting(self: Cursor, what: str, *, each: int, limit: int) -> int:
        at = self.offset
        bytearray(min(self.u64(what), 1 << 24))
        self.offset = at
        return real(self, what, each=each, limit=limit)

    monkeypatch.setattr(Cursor, "count", trusting)
    assert "of memory for a file of" in str(first_finding(fuzz, fuzz.check_memory))


def test_a_finding_is_saved_and_a_crash_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    run = "import sys, pathlib; sys.argv[1:] = ['--count', '50']; import gguf_fuzz as f; "
    run += f"f.FINDINGS = pathlib.Path({str(tmp_path)!r}); "
    for bug, wanted in [
        ("f.GGUFFile.parse = lambda data: 1 // 0", "case 0: ZeroDivisionError"),
        ("import os; f.GGUFFile.parse = lambda data: os.abort()", "--only 0"),
    ]:
        broken.write_text(run + bug + "; sys.exit(f.main())")
        done = subprocess.run(
            [sys.executable, str(broken)],
            capture_output=True,
            text=True,
            check=False,
            env={"PYTHONPATH": ":".join([str(PROGRAM.parent), *sys.path]), "PATH": ""},
        )
        assert done.returncode == 1
        assert wanted in done.stdout
    assert (tmp_path / "gguf-1-0.gguf").exists()
