"""The pages of the KV cache: who holds them, what they contain, and which is given out next.

A block is one page of the runner's cache: the keys and values of ``block_size`` consecutive
positions of one sequence. A block whose positions are all computed may be *published* under its
content, the chain (key of the block before it, its tokens): another request whose tokens begin the
same way then shares it instead of computing it. Keys are compared in full, not only hashed. Blocks
that nobody holds form the free list, least recently used first, and stay published until they are
given out again; so the free list is the prefix cache, and costs no memory of its own.

Invariants: a block is held (refs > 0) or free, never both; every published key names one block;
only full blocks are published, and a published block's content does not change.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

Key = int
"""Names the content of a block and of all blocks before it. Given out once and never used again."""


class BlockPool:
    """``count`` blocks of ``block_size`` positions; every operation is O(1) for each block touched.

    Not thread-safe. Block ids are 0 .. count - 1.
    """

    def __init__(self, count: int, block_size: int) -> None:
        self.block_size = block_size
        self.count = count
        self._refs = [0] * count
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(count))
        self._contents: list[tuple[Key, tuple[int, ...]] | None] = [None] * count
        self._published: dict[tuple[Key, tuple[int, ...]], tuple[int, Key]] = {}
        self._next_key = 0

    @property
    def free(self) -> int:
        """Blocks that can be given out now, those that still hold a reusable prefix included."""
        return len(self._free)

    @staticmethod
    def root(variant: int) -> Key:
        """The key that stands before a sequence's first block; rope variants share nothing."""
        return -1 - variant

    def match(self, tokens: Sequence[int], variant: int) -> tuple[list[int], Key]:
        """The longest published chain that begins ``tokens``, and the key of its last block.

        At least one token is left out of it: its logits have to be computed. Nothing is held yet.
        """
        key = self.root(variant)
        blocks: list[int] = []
        size = self.block_size
        for start in range(0, (len(tokens) - 1) // size * size, size):
            found = self._published.get((key, tuple(tokens[start : start + size])))
            if found is None:
                break
            block, key = found
            blocks.append(block)
        return blocks, key

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

    def publish(self, block: int, before: Key, tokens: Sequence[int]) -> Key:
        """Makes a held, full block shareable and returns the key that the next block follows.

        Where equal content is published already, that block stays the one to share.
        """
        assert self._refs[block] > 0, f"block {block} is published but not held"
        assert len(tokens) == self.block_size
        content = (before, tuple(tokens))
        found = self._published.get(content)
        if found is not None:
            return found[1]
        key = self._next_key
        self._next_key += 1
        self._published[content] = (block, key)
        self._contents[block] = content
        return key

    def _forget(self, block: int) -> None:
        content = self._contents[block]
        if content is not None:
            del self._published[content]
            self._contents[block] = None
