"""What becomes known of one request while it is answered: for its line in the log, and its span."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field

from pocketlm.serve.generation import Ended

# Asked by the open page every second and answered from what is known: it counts against no limit of
# a key, and fills no log.
UNCOUNTED = frozenset({"/page/live"})


@dataclass(slots=True)
class Entry:
    """Attributes:
    id: of the request, as ``X-Request-Id`` has it.
    began: when it arrived, of ``time.perf_counter``.
    key: id of the API key; never its secret.
    model: that answers, as the fleet calls it.
    ttft: seconds from arrival to the first text.
    ended: how its last answer ended; ``answers`` is how many there were.
    prompt_tokens, output_tokens: of all its answers.
    refused: why it was not let in.
    """

    id: str
    began: float = field(default_factory=time.perf_counter)
    key: str | None = None
    model: str | None = None
    ttft: float | None = None
    ended: Ended | None = None
    answers: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    refused: str | None = None

    def end(self, ended: Ended) -> None:
        """Adds what an answer took."""
        self.ended = ended
        self.answers += 1
        self.prompt_tokens += ended.prompt_tokens
        self.output_tokens += ended.completion_tokens


current: ContextVar[Entry | None] = ContextVar("entry", default=None)
