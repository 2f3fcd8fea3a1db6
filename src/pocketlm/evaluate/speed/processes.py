"""An engine's process, seen from the run that asks it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from types import TracebackType
from typing import Any

from pocketlm.errors import PocketLMError
from pocketlm.evaluate.speed.contenders import Setup, Timing
from pocketlm.evaluate.speed.plan import Question

_WORKER = ("-m", "pocketlm.evaluate.speed.worker")
_END_S = 10.0


class EngineProcess:
    """One engine with a model, in a process of its own; a context manager that ends it.

    Attributes:
        version: what the engine says of itself.
        peak_memory: bytes that the process had resident at most, as of the last answer.
    """

    def __init__(self, setup: Setup) -> None:
        """Waits until the model is loaded. Raises PocketLMError with the engine's own words where
        it cannot be."""
        self.peak_memory: int | None = None
        self._complaints = tempfile.TemporaryFile(  # noqa: SIM115 - closed with the process
            "w+", encoding="utf-8", errors="replace"
        )
        self._process = subprocess.Popen(
            [sys.executable, *_WORKER, json.dumps(asdict(setup))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            encoding="utf-8",
        )
        try:
            self.version = str(self._hear()["version"])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def ask(self, question: Question) -> Timing:
        """Raises PocketLMError where the engine cannot answer or its process has died."""
        assert self._process.stdin is not None
        try:
            print(json.dumps(asdict(question)), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise self._died() from None
        found = self._hear()
        self.peak_memory = found.pop("peak_memory")
        found["first_tokens"] = tuple(found["first_tokens"])
        return Timing(**found)

    def close(self) -> None:
        """Ends the process."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.close()
            process.wait(_END_S)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
        finally:
            process.stdout.close()
            self._complaints.close()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            raise self._died()
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise PocketLMError(str(found["error"]))
        return found

    def _died(self) -> PocketLMError:
        status = self._process.wait()
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        self._complaints.seek(0)
        lines = [line.strip() for line in self._complaints if line.strip()]
        # An assertion of ggml comes first and a stack trace after it; of Python's the end counts.
        said = [line for line in lines if "ASSERT" in line][:1] or lines[-1:] or ["no message"]
        return PocketLMError(f"the process {how}: {said[0]}")
