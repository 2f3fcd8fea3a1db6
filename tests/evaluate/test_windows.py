"""Where windows begin, what counts in them, and that every token counts as often as it should."""

from __future__ import annotations

import numpy as np
import pytest

from pocketlm.errors import RequestError
from pocketlm.evaluate.windows import plan, windows

BOS = 99


def test_windows_stand_side_by_side_and_the_rest_is_dropped() -> None:
    assert windows(range(11), 4, bos=None).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize("head", [[], [BOS]])
def test_bos_takes_the_place_of_each_window_s_first_token(head: list[int]) -> None:
    """As llama-perplexity: it stands before the text once, and over what begins later windows."""
    found = windows([*head, *range(8)], 4, bos=BOS)
    assert found.tolist() == [[BOS, 0, 1, 2], [BOS, 4, 5, 6]]


def test_the_caller_s_tokens_are_left_alone() -> None:
    tokens = np.arange(8, dtype=np.int32)
    windows(tokens, 4, bos=BOS)
    assert tokens.tolist() == list(range(8))


@pytest.mark.parametrize(("context", "first", "count"), [(8, 4, 3), (9, 4, 4), (512, 256, 255)])
def test_the_second_half_counts(context: int, first: int, count: int) -> None:
    for window in plan(range(2 * context), context, bos=None):
        assert (window.first, window.count) == (first, count)


@pytest.mark.parametrize("bos", [None, BOS])
@pytest.mark.parametrize("length", [2, 7, 8, 9, 40, 41])
@pytest.mark.parametrize("stride", [1, 3, 7])
def test_with_a_stride_every_token_counts_once(bos: int | None, length: int, stride: int) -> None:
    stream = ([] if bos is None else [bos]) + list(range(length))
    scored: list[int] = []
    for at, window in enumerate(plan(range(length), 8, bos=bos, stride=stride)):
        assert len(window.tokens) <= 8
        start = at * stride
        assert window.tokens[1:].tolist() == stream[start + 1 : start + len(window.tokens)]
        if bos is not None:
            assert window.tokens[0] == bos
        before = window.first + 1  # tokens that the first scored one follows
        assert at == 0 or before == 8 - stride
        scored += window.tokens[window.first + 1 :].tolist()
        assert window.count == len(window.tokens) - before
    assert scored == stream[1:]


def test_what_cannot_be_cut_is_said() -> None:
    with pytest.raises(RequestError, match=r"has 11 tokens.* needs 12"):
        plan(range(10), 12, bos=BOS)
    with pytest.raises(RequestError, match=r"has 1 tokens.* needs 2"):
        plan([3], 12, bos=None, stride=4)
    for stride in (0, 12, -1):
        with pytest.raises(RequestError, match=r"stride is .*1 to 11"):
            plan(range(99), 12, bos=None, stride=stride)
    for options in ({}, {"stride": 1}):
        with pytest.raises(RequestError, match="at least 4"):
            plan(range(99), 3, bos=None, **options)
