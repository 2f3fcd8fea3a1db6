"""BlockPool: a state machine against a plain model of what must hold."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pocketlm.engine.blocks import BlockPool, Content, Key, key_after, root

SIZE = 2
COUNT = 9


def chain(tokens: list[int], variant: int = 0) -> list[Content]:
    """The contents of the full blocks of ``tokens``."""
    key: Key = root(variant)
    contents: list[Content] = []
    for start in range(0, len(tokens) // SIZE * SIZE, SIZE):
        contents.append((key, tuple(tokens[start : start + SIZE])))
        key = key_after(contents[-1])
    return contents


class Pool(RuleBasedStateMachine):
    """Sequences that take, share, publish and release blocks, with few different contents."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(COUNT)
        self.held: list[list[int]] = []
        self.content: dict[int, tuple[int, list[int]]] = {}  # variant, tokens so far

    @rule(
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=3 * SIZE + 1),
        variant=st.integers(0, 1),
    )
    def start(self, tokens: list[int], variant: int) -> None:
        contents = chain(tokens, variant)
        blocks = []
        for i, content in enumerate(contents):
            block = self.pool.find(content)
            if block is None:
                break
            assert self.content[block] == (variant, tokens[: (i + 1) * SIZE])
            blocks.append(block)
        missing = -(-len(tokens) // SIZE) - len(blocks)
        if missing > self.pool.free - self.pool.idle(blocks):
            return
        self.pool.hold(blocks)
        taken = self.pool.take(missing)
        assert not set(taken) & {b for held in self.held for b in held}
        for block in taken:
            self.content.pop(block, None)
        whole = [*blocks, *taken]
        for i in range(len(blocks), len(contents)):
            self.content[whole[i]] = (variant, tokens[: (i + 1) * SIZE])
            self.pool.publish(whole[i], contents[i])
        assert None not in [self.pool.find(content) for content in contents]
        self.held.append(whole)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        self.pool.release(self.held.pop(data.draw(st.integers(0, len(self.held) - 1))))

    @invariant()
    def every_block_is_in_one_place(self) -> None:
        counts = [0] * COUNT
        for blocks in self.held:
            assert len(set(blocks)) == len(blocks)
            for block in blocks:
                counts[block] += 1
        assert self.pool._refs == counts
        assert set(self.pool._free) == {b for b in range(COUNT) if counts[b] == 0}
        published = list(self.pool._published.values())
        assert len(set(published)) == len(published)
        assert all(self.pool._contents[b] is not None for b in published)


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def fill(pool: BlockPool, tokens: list[int]) -> list[int]:
    blocks = pool.take(len(tokens) // SIZE)
    for block, content in zip(blocks, chain(tokens), strict=True):
        pool.publish(block, content)
    return blocks


def test_least_recently_released_goes_first_and_ends_before_beginnings() -> None:
    pool = BlockPool(4)
    old, new = fill(pool, [1, 1, 2, 2]), fill(pool, [3, 3, 4, 4])
    pool.release(old)
    pool.release(new)
    assert pool.take(4) == [old[1], old[0], new[1], new[0]]


def test_a_block_without_content_goes_before_any_prefix() -> None:
    pool = BlockPool(3)
    blocks = fill(pool, [1, 1, 2, 2])
    pool.release(blocks)
    scratch = pool.take(1)
    pool.release(scratch)
    assert pool.take(1) == scratch
    assert [pool.find(content) for content in chain([1, 1, 2, 2])] == blocks


def test_equal_tokens_after_another_beginning_have_another_key() -> None:
    keys = {
        key_after(chain(tokens, variant)[-1])
        for tokens in ([1, 1, 2, 2], [3, 3, 2, 2], [2, 2], [1, 1, 2, 2, 2, 2])
        for variant in (0, 1)
    }
    assert len(keys) == 8


def test_releasing_what_is_not_held_is_our_bug() -> None:
    pool = BlockPool(2)
    with pytest.raises(AssertionError):
        pool.release([0])
