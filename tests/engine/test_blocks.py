"""BlockPool: a state machine against a plain model of what must hold."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pocketlm.engine.blocks import BlockPool

SIZE = 2
COUNT = 9


class Pool(RuleBasedStateMachine):
    """Sequences that take, share, publish and release blocks, with few different contents."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(COUNT, SIZE)
        self.held: list[tuple[list[int], list[int], int]] = []  # blocks, tokens, variant
        self.content: dict[int, tuple[int, list[int]]] = {}  # variant, tokens so far

    @rule(
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=3 * SIZE + 1),
        variant=st.integers(0, 1),
    )
    def start(self, tokens: list[int], variant: int) -> None:
        blocks, key = self.pool.match(tokens, variant)
        assert len(blocks) * SIZE < len(tokens), "a token has to be left to compute"
        for i, block in enumerate(blocks):
            assert self.content[block] == (variant, tokens[: (i + 1) * SIZE])
        missing = -(-len(tokens) // SIZE) - len(blocks)
        if missing > self.pool.free - self.pool.idle(blocks):
            return
        self.pool.hold(blocks)
        taken = self.pool.take(missing)
        assert not set(taken) & {b for held, _, _ in self.held for b in held}
        for block in taken:
            self.content.pop(block, None)
        whole = [*blocks, *taken]
        for i in range(len(blocks), len(tokens) // SIZE):
            self.content[whole[i]] = (variant, tokens[: (i + 1) * SIZE])
            key = self.pool.publish(whole[i], key, tokens[i * SIZE : (i + 1) * SIZE])
        again, last = self.pool.match([*tokens, 0], variant)
        assert (len(again), last) == (len(tokens) // SIZE, key)
        self.held.append((whole, tokens, variant))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.held) - 1))
        blocks, _, _ = self.held.pop(index)
        self.pool.release(blocks)

    @invariant()
    def every_block_is_in_one_place(self) -> None:
        counts = [0] * COUNT
        for blocks, _, _ in self.held:
            assert len(set(blocks)) == len(blocks)
            for block in blocks:
                counts[block] += 1
        assert self.pool._refs == counts
        assert set(self.pool._free) == {b for b in range(COUNT) if counts[b] == 0}
        published = [block for block, _ in self.pool._published.values()]
        assert len(set(published)) == len(published)
        assert all(self.pool._contents[b] is not None for b in published)


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def fill(pool: BlockPool, tokens: list[int]) -> list[int]:
    blocks = pool.take(len(tokens) // SIZE)
    key = pool.root(0)
    for i, block in enumerate(blocks):
        key = pool.publish(block, key, tokens[i * SIZE : (i + 1) * SIZE])
    return blocks


def test_least_recently_released_goes_first_and_ends_before_beginnings() -> None:
    pool = BlockPool(4, SIZE)
    old, new = fill(pool, [1, 1, 2, 2]), fill(pool, [3, 3, 4, 4])
    pool.release(old)
    pool.release(new)
    assert pool.take(4) == [old[1], old[0], new[1], new[0]]


def test_a_block_without_content_goes_before_any_prefix() -> None:
    pool = BlockPool(3, SIZE)
    pool.release(fill(pool, [1, 1, 2, 2]))
    scratch = pool.take(1)
    pool.release(scratch)
    assert pool.take(1) == scratch
    assert len(pool.match([1, 1, 2, 2, 3], 0)[0]) == 2


def test_equal_tokens_after_another_beginning_are_not_shared() -> None:
    pool = BlockPool(8, SIZE)
    fill(pool, [1, 1, 2, 2])
    assert pool.match([3, 3, 2, 2, 5], 0)[0] == []
    assert pool.match([1, 1, 2, 2, 5], 1)[0] == []
    assert len(pool.match([1, 1, 2, 2, 5], 0)[0]) == 2


def test_releasing_what_is_not_held_is_our_bug() -> None:
    pool = BlockPool(2, SIZE)
    with pytest.raises(AssertionError):
        pool.release([0])
