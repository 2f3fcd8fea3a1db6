"""Amounts as people write them: ``4GB``, ``4 GiB``, ``8k``, ``8192``.

Bytes are decimal with GB and binary with GiB; where RAM is meant GB is binary, too, since a RAM of
"4 GB" has 4 GiB. Tokens count in thousands of 1,024, as contexts do: 8k is 8,192.
"""

from __future__ import annotations

import math
import re

from pocketlm.errors import RequestError

_AMOUNT = re.compile(r"([0-9][0-9,_]*(?:\.[0-9]+)?|\.[0-9]+) ?([a-z]*)", re.ASCII)
_BYTES = {
    "": 1, "b": 1, "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9,
    "t": 10**12, "tb": 10**12, "ki": 2**10, "kib": 2**10, "mi": 2**20, "mib": 2**20, "gi": 2**30,
    "gib": 2**30, "ti": 2**40, "tib": 2**40,
}  # fmt: skip
_TOKENS = {"": 1, "k": 1024, "ki": 1024, "m": 1024**2}
_LONGEST = 64


def parse_bytes(text: str, what: str, *, least: int = 1, ram: bool = False) -> int:
    """``6GiB``, ``500M``, ``4000000000`` in bytes, at least ``least``.

    what: the option that it is for; ram: whether GB is meant as RAM is sold, in powers of two.
    Raises RequestError for anything else.
    """
    units = _BYTES if not ram else {unit: _binary(size) for unit, size in _BYTES.items()}
    found = _amount(text, units)
    if found is None or not least <= found < 2**60:
        few = f" of at least {least >> 20:,} MiB" if least > 1 else ""
        raise RequestError(f"{what} is '{text}', expected an amount{few} such as 6GiB or 500MB")
    return int(found)


def parse_tokens(text: str, what: str) -> int:
    """``8k``, ``8192``, ``8,192`` in tokens. Raises RequestError for anything else."""
    found = _amount(text, _TOKENS)
    if found is None or not 1 <= found <= 2**30 or found != int(found):
        raise RequestError(f"{what} is '{text}', expected a number of tokens such as 8192 or 8k")
    return int(found)


def _binary(size: int) -> int:
    """The power of 1,024 that a power of 1,000 is taken for."""
    return next((1024**n for n in range(5) if size == 1000**n), size)


def _amount(text: str, units: dict[str, int]) -> float | None:
    match = _AMOUNT.fullmatch(text.strip().lower()) if len(text) <= _LONGEST else None
    if match is None or match[2] not in units:
        return None
    number = float(match[1].replace(",", "").replace("_", ""))
    return number * units[match[2]] if math.isfinite(number) else None
