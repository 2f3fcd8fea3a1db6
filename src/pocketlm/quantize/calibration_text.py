"""The text that calibrates a model: read, cut into sequences, and parted in two.

One part is fitted to, the other judges what came of it. No run of tokens of the one stands in the
other: hashes see to that, since a text that repeats itself would judge what it was fitted to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketlm.errors import RequestError
from pocketlm.evaluate.texts import read_utf8, text_hash
from pocketlm.evaluate.windows import windows
from pocketlm.text import Tokenizer

Tokens = npt.NDArray[np.int32]

BUILTIN = "builtin"
DEFAULT_TOKENS = 32_768
LENGTH = 512  # tokens of a sequence
_JUDGES = 8  # every so manieth sequence judges
_SHARED_RUN = 48  # tokens: so long a run in both parts is no accident


@dataclass(frozen=True)
class CalibrationText:
    """Calibration text in tokens.

    Attributes:
        names: of its files.
        hashes: SHA-256 of each file's text, in hexadecimal.
        fit, held_out: int32 [sequences, length]; each sequence begins as the model's texts do.
        train: ``fit`` and what the budget left over of the text, for who can use more.
    """

    names: tuple[str, ...]
    hashes: tuple[str, ...]
    fit: Tokens
    held_out: Tokens
    train: Tokens


def read_calibration(
    source: str | Path, tokenizer: Tokenizer, *, tokens: int = DEFAULT_TOKENS, length: int = LENGTH
) -> CalibrationText:
    """The shipped text (``BUILTIN``) or a UTF-8 file, as sequences of ``length`` tokens.

    Args:
        tokens: how many to fit to and to hold out at most; taken evenly from the whole text.

    Raises:
        RequestError: the text is too short to be parted.
        NotFoundError: there is no such file.
    """
    texts = _texts(source)
    bos = tokenizer.bos_id if tokenizer.adds_bos else None
    ids = [id for _, text in texts for id in tokenizer.encode(text)]
    sequences = windows(ids, length, bos=bos)
    wanted = max(tokens // length, _JUDGES)
    if len(sequences) < _JUDGES:
        raise RequestError(
            f"the calibration text has {len(ids):,} tokens, expected at least {_JUDGES * length:,}",
            hint="Give a longer text, or leave --calibration out to use the one that is shipped.",
        )
    chosen = np.linspace(0, len(sequences) - 1, min(wanted, len(sequences))).astype(np.intp)
    fit, held_out = _parted(sequences[chosen])
    rest = _without_runs_of(held_out, np.delete(sequences, chosen, axis=0))
    return CalibrationText(
        tuple(name for name, _ in texts),
        tuple(text_hash(text) for _, text in texts),
        fit,
        held_out,
        np.concatenate([fit, rest]),
    )


def _texts(source: str | Path) -> list[tuple[str, str]]:
    if source != BUILTIN:
        path = Path(source)
        return [(path.name, read_utf8(path))]
    folder = resources.files("pocketlm.quantize") / "calibration"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".txt")), key=lambda f: f.name)
    return [(file.name, file.read_text(encoding="utf-8")) for file in files]


def _parted(sequences: Tokens) -> tuple[Tokens, Tokens]:
    """Every eighth sequence judges, unless a run of it is fitted to: such a one is left out."""
    judges = np.arange(len(sequences)) % _JUDGES == _JUDGES - 1
    fitted = {run for sequence in sequences[~judges] for run in _runs(sequence, step=1)}
    apart = [
        row for row in sequences[judges] if fitted.isdisjoint(_runs(row, step=_SHARED_RUN // 2))
    ]
    if not apart:
        raise RequestError(
            "the calibration text repeats itself so much that none of it can judge the result",
            hint="Give another text.",
        )
    return np.ascontiguousarray(sequences[~judges]), np.stack(apart)


def _without_runs_of(held_out: Tokens, sequences: Tokens) -> Tokens:
    """The sequences that share no run with what judges."""
    judged = {run for row in held_out for run in _runs(row, step=1)}
    apart = [judged.isdisjoint(_runs(row, step=_SHARED_RUN // 2)) for row in sequences]
    return np.asarray(sequences[np.array(apart, dtype=bool)], np.int32)


def _runs(sequence: Sequence[int] | Tokens, *, step: int) -> list[bytes]:
    """Hashes of the runs of half ``_SHARED_RUN`` tokens that begin at every ``step``.

    Of a run of ``_SHARED_RUN`` tokens, wherever it begins, one of those at steps of half of it is
    a whole part.
    """
    half = _SHARED_RUN // 2
    ids = np.ascontiguousarray(sequence, np.int32)
    return [
        hashlib.blake2b(ids[i : i + half].tobytes(), digest_size=8).digest()
        for i in range(0, len(ids) - half + 1, step)
    ]
