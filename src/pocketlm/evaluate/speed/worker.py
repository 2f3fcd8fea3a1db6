"""One engine in a process of its own: questions come as lines of JSON, timings go as such.

    python -m pocketlm.evaluate.speed.worker SETUP

Its first line says the engine's version, or the error that keeps it from loading the model. What
libraries print goes to stderr. The process ends when its stdin does.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import Any, TextIO

from pocketlm.engine.machine import peak_memory
from pocketlm.errors import PocketLMError
from pocketlm.evaluate.speed.contenders import Setup, open_contender
from pocketlm.evaluate.speed.plan import Question


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        contender = open_contender(Setup(**json.loads(sys.argv[1])))
        _say(answers, {"version": contender.version})
        for line in sys.stdin:
            timing = contender.answer(Question(**json.loads(line)))
            _say(answers, asdict(timing) | {"peak_memory": peak_memory()})
    except PocketLMError as error:
        _say(answers, {"error": str(error)})


def _say(answers: TextIO, what: dict[str, Any]) -> None:
    print(json.dumps(what), file=answers, flush=True)


if __name__ == "__main__":
    main()
