"""What a long quantization has finished, kept on disk so that an interrupted run can go on.

One file for each matrix and one for what is known about it. A folder belongs to one task, named by
a fingerprint of everything that the results depend on; another task's folder is emptied first.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketlm.files import atomic_file

Bytes = npt.NDArray[np.uint8]


def fingerprint(facts: Mapping[str, object]) -> str:
    """SHA-256 of JSON facts."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class WorkFolder:
    """Finished matrices by name.

    Args:
        path: the folder; made if it is not there.
        task: fingerprint of the task; what another task left is removed.
    """

    def __init__(self, path: Path, task: str) -> None:
        self.path = path
        mark = path / "task"
        if not mark.is_file() or mark.read_text(encoding="utf-8") != task:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
            _write(mark, task.encode())

    def load(self, name: str) -> tuple[Bytes, dict[str, Any]] | None:
        """The blocks, mapped, and the facts; None when the matrix is not finished."""
        facts = self.path / f"{name}.json"  # written last
        if not facts.is_file():
            return None
        blocks = np.memmap(self.path / f"{name}.blocks", np.uint8, mode="r")
        return blocks, json.loads(facts.read_text(encoding="utf-8"))

    def save(
        self, name: str, blocks: Bytes, facts: Mapping[str, object]
    ) -> tuple[Bytes, dict[str, Any]]:
        """Keeps a finished matrix and returns it as ``load`` does.

        Raises what ``atomic_file`` raises: CapacityError for a full disk.
        """
        _write(self.path / f"{name}.blocks", blocks.data)
        _write(self.path / f"{name}.json", json.dumps(facts).encode())
        found = self.load(name)
        assert found is not None
        return found

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def _write(path: Path, data: bytes | memoryview) -> None:
    with atomic_file(path) as write:
        write(data)
