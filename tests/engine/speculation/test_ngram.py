"""The index of pairs against a plain search of the whole sequence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketlm.engine.speculation.ngram import LONGEST, PairIndex, follow

sequences = st.lists(st.integers(0, 2), min_size=1, max_size=14)


def search(tokens: list[int]) -> tuple[int, int]:
    """The longest stretch before the end that equals it, the latest of several."""
    for length in range(min(LONGEST, len(tokens) - 1), 1, -1):
        for end in range(len(tokens) - 1, length - 1, -1):
            if tokens[end - length : end] == tokens[-length:]:
                return length, end
    return 0, 0


@given(sequences)
def test_the_match_is_the_longest_and_the_latest(tokens: list[int]) -> None:
    index = PairIndex()
    for count in range(1, len(tokens) + 1):  # as it grows, token by token
        index.update(tokens[:count])
        assert index.match(tokens[:count]) == search(tokens[:count])
    whole = PairIndex()
    whole.update(tokens)
    assert whole.match(tokens) == search(tokens)


def test_only_some_earlier_places_are_compared() -> None:
    tokens = [9, 1, 2] + [3, 1, 2] * 40 + [9, 1, 2]
    index = PairIndex()
    index.update(tokens)
    length, following = index.match(tokens)
    assert (length, following) == (2, len(tokens) - 3)


@pytest.mark.parametrize(
    ("start", "count", "found"),
    [(1, 2, [2, 3]), (2, 5, [3, 4, 3, 4, 3]), (3, 3, [4, 4, 4]), (0, 4, [1, 2, 3, 4])],
)
def test_what_runs_into_the_end_repeats(start: int, count: int, found: list[int]) -> None:
    assert follow([1, 2, 3, 4], start, count) == found
