"""The store in the hands of an ordinary user: tests that run as root see no file modes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models

USER = 65534  # nobody

SCRIPT = """
import os, sys
from pathlib import Path
from pocketlm.store import Store
import pocketlm.gguf, pocketlm.store.describe
if os.getuid() == 0:
    os.setgroups([])
    os.setgid({user})
    os.setuid({user})
folder = Path(sys.argv[1])
store = Store(folder / "home")
one = store.import_path(folder / "m.gguf", "one", copy=True)
store.copy("one", "two")
assert store.verify().ok
store.import_path(folder / "m.gguf", "three", copy=True)
assert store.remove("one").freed == 0
assert store.remove("two").freed == 0
assert store.remove("three").freed > 0
"""


@pytest.mark.skipif(os.name == "nt", reason="modes of files are POSIX")
def test_a_user_who_is_not_root_can_fill_and_empty_a_store(tmp_path: Path) -> None:
    folder = tmp_path / "users"
    folder.mkdir()
    (folder / "m.gguf").write_bytes(tiny_models.gguf())
    if os.getuid() == 0:
        os.chown(folder, USER, USER)
        for parent in tmp_path.parents:
            if parent.stat().st_mode & 0o005 != 0o005 and "pytest" in parent.name:
                parent.chmod(0o755)
        tmp_path.chmod(0o755)
    said = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(user=USER), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
