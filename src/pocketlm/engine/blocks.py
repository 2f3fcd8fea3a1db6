"""The blocks of one group of layers: who holds them, what they contain, which is given out next.

A block is one page of the runner's cache: the keys and values of consecutive positions of one
sequence. A block whose positions are all computed may be *published* under its content, which is
the key of all tokens before it and its own tokens: another request whose tokens begin the same way
then shares it instead of computing it. Blocks that nobody holds form the free list, least recently
used first, and stay published until they are given out again; so the free list is the prefix cache,
and costs no memory of its own.

Invariants: a block is held (refs > 0) or free, never both; every published content names one block;
only full blocks are published, and a published block's content does not change.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

Key = bytes
"""Stands for all tokens before a block: a hash that nobody can find two inputs for, so that a chain
can be followed beyond blocks that are gone. A block's own tokens are compared in full."""

Content = tuple[Key, tuple[int, ...]]


def root(variant: int) -> Key:
    """The key of a sequence's first block; rope variants share nothing."""
    return bytes([variant])


def key_after(content: Content) -> Key:
    """The key of the block that follows one of this content."""
    before, tokens = content
    return blake2b(before + array("i", tokens).tobytes(), digest_size=32).digest()


class BlockPool:
    """``count`` blocks, with ids 0 .. count - 1; every operation is O(1) for each block touched.

    Not thread-safe.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._refs = [0] * count
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(count))
        self._contents: list[Content | None] = [None] * count
        self._published: dict[Content, int] = {}

    @property
    def free(self) -> int:
        """Blocks that can be given out now, those that still hold a reusable prefix included."""
        return len(self._free)

    def find(self, content: Content) -> int | None:
        """The block that has this content, if one is published. It is not held by that."""
        return self._published.get(content)

    def idle(self, blocks: Sequence[int]) -> int:
        """How many of ``blocks`` nobody holds: what holding them takes off the free list."""
        return sum(1 for block in blocks if self._refs[block] == 0)

    def hold(self, blocks: Sequence[int]) -> None:
        """One more reference to each of ``blocks``, taking the free ones off the free list."""
        for block in blocks:
            if self._refs[block] == 0:
                del self._free[block]
            self._refs[block] += 1

    def take(self, count: int) -> list[int]:
        """``count`` blocks of unknown content, each held once. The caller has checked ``free``."""
        assert count <= self.free, f"{count} blocks wanted, {self.free} free"
        blocks = []
        for _ in range(count):
            block, _ = self._free.popitem(last=False)
            self._forget(block)
            self._refs[block] = 1
            blocks.append(block)
        return blocks

    def release(self, blocks: Sequence[int]) -> None:
        """One reference less; the end of a sequence is reused before its beginning."""
        for block in reversed(blocks):
            assert self._refs[block] > 0, f"block {block} is released but not held"
            self._refs[block] -= 1
            if self._refs[block] == 0:
                self._free[block] = None
                if self._contents[block] is None:  # nothing worth keeping in it
                    self._free.move_to_end(block, last=False)

    def publish(self, block: int, content: Content) -> None:
        """Makes a held, full block shareable.

        Where equal content is published already, that block stays the one to share.
        """
        assert self._refs[block] > 0, f"block {block} is published but not held"
        if content not in self._published:
            self._published[content] = block
            self._contents[block] = content

    def _forget(self, block: int) -> None:
        content = self._contents[block]
        if content is not None:
            del self._published[content]
            self._contents[block] = None
