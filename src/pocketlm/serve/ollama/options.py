"""``options``: Ollama's names and types, and what becomes of each.

| options                                                            | here                      |
|--------------------------------------------------------------------|---------------------------|
| those of ``store.setup.OPTION_NAMES``                              | sampling, under our names |
| num_ctx                                                            | a limit for this request  |
| how a model is run: num_gpu, num_batch, num_thread, use_mmap …     | ignored, and said to be   |

An option that is not given is the model's own, else the engine's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pocketlm.errors import RequestError
from pocketlm.store.parameters import (
    INTEGERS,
    NUMBERS,
    OPTION_NAMES,
    SWITCHES,
    sampling_options,
)

_USED = {*OPTION_NAMES, "num_ctx"}
_MOST_STOPS = 64


@dataclass(frozen=True)
class Options:
    """Attributes:
    sampling: by the names of ``engine.sampling``.
    context: the most positions that prompt and answer may take.
    ignored: names that were given and have no effect here.
    unknown: names that are not Ollama's either.
    """

    sampling: Mapping[str, Any]
    context: int | None
    ignored: tuple[str, ...]
    unknown: tuple[str, ...]


def read_options(given: Mapping[str, Any] | None) -> Options:
    """Raises RequestError for a value of the wrong type."""
    options = {name: value for name, value in (given or {}).items() if value is not None}
    for name, value in options.items():
        _check(name, value)
    context = options.get("num_ctx")
    known = INTEGERS | NUMBERS | SWITCHES | {"stop"}
    return Options(
        sampling_options(options),
        context if context is not None and context > 0 else None,
        tuple(name for name in options if name in known - _USED),
        tuple(name for name in options if name not in known),
    )


def _check(name: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in INTEGERS and not (number and float(value).is_integer()):
        _refuse(name, value, "an integer")
    elif name in NUMBERS and not number:
        _refuse(name, value, "a number")
    elif name in SWITCHES and not isinstance(value, bool):
        _refuse(name, value, "a boolean")
    elif name == "stop":
        strings = [value] if isinstance(value, str) else value
        if not isinstance(strings, list) or not all(isinstance(one, str) for one in strings):
            _refuse(name, value, "an array of strings")
        if len(strings) > _MOST_STOPS:
            raise RequestError(f'option "stop" has {len(strings)} strings, at most {_MOST_STOPS}')


def _refuse(name: str, value: object, wanted: str) -> None:
    raise RequestError(f'option "{name}" must be {wanted}, found {type(value).__name__}')
