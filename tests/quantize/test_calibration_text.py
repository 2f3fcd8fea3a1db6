"""Calibration text: what is fitted to never judges, and how much of it is used."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from pocketlm.errors import NotFoundError, RequestError
from pocketlm.quantize.calibration_text import BUILTIN, read_calibration

WORDS = 1 << 14


class Words:
    """A tokenizer of words: a number is its own id, any other word a hash."""

    bos_id = 1
    adds_bos = True

    def encode(self, text: str) -> list[int]:
        return [
            int(word) if word.isdecimal() and int(word) < WORDS else crc32(word.encode()) % WORDS
            for word in text.split()
        ]


def write(path: Path, ids: list[int]) -> Path:
    path.write_text(" ".join(map(str, ids)), encoding="utf-8")
    return path


def ids(count: int) -> list[int]:
    return [int(i) for i in np.random.default_rng(0).integers(2, WORDS, count)]


def read(source: str | Path, **options: int) -> tuple[np.ndarray, np.ndarray]:
    text = read_calibration(source, Words(), **options)  # type: ignore[arg-type]
    return text.fit, text.held_out


def test_every_eighth_sequence_judges(tmp_path: Path) -> None:
    tokens = [1, *ids(64 * 33)]
    fit, held_out = read(write(tmp_path / "t.txt", tokens[1:]), length=64)
    assert (fit.shape, held_out.shape) == ((29, 64), (4, 64))
    assert (fit[:, 0] == 1).all()
    np.testing.assert_array_equal(held_out[0][1:], tokens[7 * 64 + 1 : 8 * 64])


def test_what_repeats_does_not_judge(tmp_path: Path) -> None:
    tokens = ids(64 * 32)
    tokens[15 * 64 + 10 : 15 * 64 + 60] = tokens[70:120]  # of the second sequence
    _, held_out = read(write(tmp_path / "t.txt", tokens), length=64)
    assert len(held_out) == 3


def test_a_text_that_only_repeats_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="repeats itself"):
        read(write(tmp_path / "t.txt", ids(64) * 20), length=64)


def test_the_budget_is_spent_evenly(tmp_path: Path) -> None:
    fit, held_out = read(
        write(tmp_path / "t.txt", list(range(2, 64 * 100))), length=64, tokens=1024
    )
    assert len(fit) + len(held_out) == 16
    assert fit[0, 1] < 70
    assert held_out[-1, -1] > 64 * 98


def test_the_rest_is_there_to_train_on_unless_it_judges(tmp_path: Path) -> None:
    tokens = ids(64 * 40)
    tokens[64 * 6 + 4 : 64 * 6 + 60] = tokens[64 * 39 + 4 : 64 * 39 + 60]  # of the last judge
    source = write(tmp_path / "t.txt", tokens)
    text = read_calibration(source, Words(), length=64, tokens=1024)  # type: ignore[arg-type]
    assert len(text.fit) + len(text.held_out) == 16
    assert len(text.train) == 40 - len(text.held_out) - 1
    assert not {row.tobytes() for row in text.train} & {row.tobytes() for row in text.held_out}


def test_short_and_missing_texts(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"400 tokens, expected at least 512"):
        read(write(tmp_path / "t.txt", ids(400)), length=64)
    with pytest.raises(NotFoundError):
        read(tmp_path / "none.txt")


def test_the_shipped_text_is_enough() -> None:
    fit, held_out = read(BUILTIN, length=128)
    assert fit.size > 20_000
    assert len(held_out) >= 8
