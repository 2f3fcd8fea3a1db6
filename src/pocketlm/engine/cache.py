"""The KV cache of all layers: block tables of sequences, and what of a new one is there already.

Layers are grouped by the positions that a token sees in them: all, or a sliding window. Each group
has a pool of blocks (``blocks``) of its own, and a sequence has a row of blocks in each. In a group
with a window, blocks go back to their pool once all their positions lie before the window of every
position that is still to be computed. So such a group needs room for the window and the new tokens
of a step, however long the context is; in a model whose layers all see everything there is one
group, and nothing ever goes back before the sequence's end.

A sequence may begin with cached tokens where all groups can go on from there: the whole chain of
blocks where everything is seen, the blocks that the next position's window covers elsewhere. What a
running sequence releases keeps its content on the free list, as all released blocks do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pocketlm.engine.blocks import BlockPool, Key, key_after, root
from pocketlm.models.memory import pages_held


class BlockTable:
    """The blocks of one sequence: in each group those of pages [firsts[group], count).

    Attributes:
        rows: (groups, pages) block ids, as the runner wants them; entries outside are not read.
        firsts, count: see above.
    """

    __slots__ = ("count", "firsts", "rows")

    def __init__(self, groups: int, pages: int) -> None:
        self.rows = np.zeros((groups, pages), np.int32)
        self.firsts = [0] * groups
        self.count = 0


def block_tables(tables: Sequence[BlockTable]) -> NDArray[np.int32]:
    """The tables of a batch, (groups, sequences, pages), as the runner wants them."""
    if len(tables) == 1:
        return tables[0].rows[:, None]
    width = max(table.count for table in tables)
    found = np.zeros((len(tables[0].rows), len(tables), width), np.int32)
    for i, table in enumerate(tables):
        found[:, i, : table.count] = table.rows[:, : table.count]
    return found


@dataclass(frozen=True, slots=True)
class Match:
    """A cached beginning: its pages, the key after them, and what is held of it in each group."""

    pages: int
    key: Key
    blocks: list[list[int]]


class KVCache:
    """The pools of all groups, used as one. Not thread-safe.

    Args:
        windows: of each group, 0 where all positions are seen.
        pages: of each group's pool.
        block_size: positions in a block.
    """

    def __init__(self, windows: Sequence[int], pages: Sequence[int], block_size: int) -> None:
        self.windows = tuple(windows)
        self.pools = tuple(BlockPool(count) for count in pages)
        self.block_size = block_size

    def table(self, positions: int) -> BlockTable:
        """An empty table for a sequence of at most ``positions``."""
        return BlockTable(len(self.pools), -(-positions // self.block_size))

    def match(self, tokens: Sequence[int], variant: int) -> Match:
        """The longest beginning of ``tokens`` that need not be computed.

        At least one token is left out of it: its logits have to be computed. Nothing is held yet.
        """
        size, groups = self.block_size, range(len(self.pools))
        pages, after = 0, root(variant)
        key = after
        found: list[list[int | None]] = [[] for _ in groups]
        runs = [0] * len(self.pools)  # how many blocks before ``end`` are there without a gap
        for end in range(size, len(tokens), size):
            content = (key, tuple(tokens[end - size : end]))
            key = key_after(content)
            for group in groups:
                block = self.pools[group].find(content)
                found[group].append(block)
                runs[group] = 0 if block is None else runs[group] + 1
            if any(runs[g] == 0 and self.windows[g] == 0 for g in groups):
                break
            if all(runs[g] >= end // size - self._first(g, end) for g in groups):
                pages, after = end // size, key
        held = []
        for group in groups:
            first = self._first(group, pages * size)
            held.append([block for block in found[group][first:pages] if block is not None])
        return Match(pages, after, held)

    def fits(
        self, positions: int, new: int, match: Match | None = None, *, promised: int = 0
    ) -> bool:
        """Whether a sequence that comes to ``positions``, at most ``new`` of them in a step, finds
        the blocks free that it needs beside those of ``match``.

        promised: blocks of layers that see everything which others are going to take.
        """
        for group, pool in enumerate(self.pools):
            blocks = match.blocks[group] if match else []
            needed = pages_held(self.windows[group], positions, new, self.block_size)
            taken = pool.idle(blocks) + (0 if self.windows[group] else promised)
            if needed - len(blocks) > pool.free - taken:
                return False
        return True

    def hold(self, table: BlockTable, match: Match) -> None:
        """Begins an empty table with what is cached."""
        for group, pool in enumerate(self.pools):
            blocks = match.blocks[group]
            pool.hold(blocks)
            table.firsts[group] = match.pages - len(blocks)
            table.rows[group, table.firsts[group] : match.pages] = blocks
        table.count = match.pages

    def reserve(self, table: BlockTable, positions: int) -> bool:
        """Extends a table to ``positions``, or changes nothing and returns False."""
        missing = -(-positions // self.block_size) - table.count
        if missing <= 0:
            return True
        if any(missing > pool.free for pool in self.pools):
            return False
        for group, pool in enumerate(self.pools):
            table.rows[group, table.count : table.count + missing] = pool.take(missing)
        table.count += missing
        return True

    def stretch(self, table: BlockTable, positions: int) -> int:
        """Extends a table towards ``positions`` as far as there are free blocks; to how many."""
        free = min(pool.free for pool in self.pools)
        end = min(positions, (table.count + free) * self.block_size)
        self.reserve(table, end)
        return end

    def shorten(self, table: BlockTable, positions: int) -> None:
        """Releases the blocks after ``positions``."""
        count = -(-positions // self.block_size)
        for group, pool in enumerate(self.pools):
            pool.release(table.rows[group, count : table.count].tolist())
        table.count = min(table.count, count)

    def publish(self, table: BlockTable, page: int, before: Key, tokens: Sequence[int]) -> Key:
        """Makes a page shareable whose positions are all computed; returns the next one's key."""
        assert len(tokens) == self.block_size
        content = (before, tuple(tokens))
        for group, pool in enumerate(self.pools):
            pool.publish(int(table.rows[group, page]), content)
        return key_after(content)

    def slide(self, table: BlockTable, computed: int) -> None:
        """Releases what no position from ``computed`` on sees."""
        for group, window in enumerate(self.windows):
            if window:
                self._release(table, group, self._first(group, computed))

    def release(self, table: BlockTable) -> None:
        """Releases all blocks; the table is empty then."""
        for group in range(len(self.pools)):
            self._release(table, group, table.count)
            table.firsts[group] = 0
        table.count = 0

    def _release(self, table: BlockTable, group: int, end: int) -> None:
        """Releases a group's blocks before page ``end``."""
        first = table.firsts[group]
        if end > first:
            self.pools[group].release(table.rows[group, first:end].tolist())
            table.firsts[group] = end

    def _first(self, group: int, position: int) -> int:
        """The first page that ``position`` sees."""
        window = self.windows[group]
        return max(0, position - window + 1) // self.block_size if window else 0
