"""KVCache: what windows keep, what they give back, and which beginnings can be taken over."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketlm.engine.blocks import Content, key_after, root
from pocketlm.engine.cache import BlockTable, KVCache
from pocketlm.models.memory import pages_held

SIZE = 4


def held(cache: KVCache) -> list[int]:
    return [pool.count - pool.free for pool in cache.pools]


def advance(cache: KVCache, table: BlockTable, tokens: list[int], end: int, computed: int) -> None:
    """Tokens [computed, end), as the scheduler has them computed; everything is published."""
    assert cache.reserve(table, end)
    key = root(0)
    for page in range(end // SIZE):
        part = tuple(tokens[page * SIZE : (page + 1) * SIZE])
        if page >= computed // SIZE:
            cache.publish(table, page, key, part)
        key = key_after((key, part))
    cache.slide(table, end)


def content_of(tokens: list[int], page: int) -> Content:
    key = root(0)
    for start in range(0, page * SIZE, SIZE):
        key = key_after((key, tuple(tokens[start : start + SIZE])))
    return key, tuple(tokens[page * SIZE : (page + 1) * SIZE])


@given(
    window=st.integers(0, 40),
    steps=st.lists(st.integers(1, 24), min_size=1, max_size=12),
)
@settings(max_examples=200, deadline=None)
def test_a_sequence_never_holds_more_than_is_counted_on(window: int, steps: list[int]) -> None:
    total, new = sum(steps), max(steps)
    most = pages_held(window, total, new, SIZE)
    cache = KVCache([window], [most], SIZE)
    table = cache.table(total)
    computed = reached = 0
    for count in steps:
        assert cache.reserve(table, computed + count)
        first = max(0, computed - window + 1) // SIZE if window else 0
        needed = -(-(computed + count) // SIZE) - first
        assert held(cache) == [needed]
        reached = max(reached, needed)
        computed += count
        cache.slide(table, computed)
    cache.release(table)
    assert held(cache) == [0]
    if set(steps) == {1} and window > 1 and total >= window + SIZE:
        assert reached == most  # and no page fewer would do


def test_pages_go_back_once_no_later_position_sees_them() -> None:
    cache = KVCache([0, 6], [20, 20], SIZE)
    table = cache.table(80)
    found = []
    for computed in range(1, 17):
        assert cache.reserve(table, computed)
        cache.slide(table, computed)
        found.append(held(cache)[1])
    #  position 9 sees from 4 on, so page 0 goes when 9 are computed; then every 4th
    assert found == [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    assert held(cache)[0] == 4


@pytest.mark.parametrize("window", [1, 4, 5, 6, 9, 30])
@pytest.mark.parametrize("length", range(1, 30))
def test_a_beginning_is_cached_where_its_window_is(window: int, length: int) -> None:
    """After a sequence of 24 with a pool that keeps nothing else, beginnings of each length."""
    cache = KVCache([0, window], [8, pages_held(window, 24, 1, SIZE)], SIZE)
    tokens = list(range(100, 130))
    table = cache.table(24)
    for end in range(1, 25):
        advance(cache, table, tokens, end, end - 1)
    cache.release(table)
    there = {page for page in range(6) if cache.pools[1].find(content_of(tokens, page)) is not None}
    assert max(there) == 5
    best = 0
    for pages in range(min(length - 1, 24) // SIZE + 1):
        first = max(0, pages * SIZE - window + 1) // SIZE
        if set(range(first, pages)) <= there:
            best = pages
    match = cache.match(tokens[:length], 0)
    assert match.pages == best
    again = cache.table(30)
    cache.hold(again, match)
    for group in (0, 1):
        for page in range(again.firsts[group], again.count):
            block = cache.pools[group].find(content_of(tokens, page))
            assert again.rows[group, page] == block
    assert again.firsts[0] == 0


def test_a_window_that_is_gone_is_computed_again_though_the_rest_is_there() -> None:
    cache = KVCache([0, 8], [32, 3], SIZE)
    tokens = list(range(16))
    table = cache.table(16)
    for end in range(1, 17):
        advance(cache, table, tokens, end, end - 1)
    cache.release(table)
    assert cache.match([*tokens, 5], 0).pages == 4
    other = cache.table(8)
    assert cache.reserve(other, 8)  # takes what was trimmed, then a page of the window
    match = cache.match([*tokens, 5], 0)
    assert (match.pages, match.blocks) == (0, [[], []])


def test_without_a_full_group_the_chain_goes_on_beyond_what_is_gone() -> None:
    cache = KVCache([8], [3], SIZE)
    tokens = list(range(40))
    table = cache.table(40)
    for end in range(1, 41):
        advance(cache, table, tokens, end, end - 1)
    cache.release(table)
    match = cache.match([*tokens, 5], 0)
    assert match.pages == 10
    assert len(match.blocks[0]) == 2
    assert cache.match([9, *tokens[1:], 5], 0).pages == 0
