"""Guesses from the sequence itself: what followed the last time its latest tokens were seen.

Good where an answer repeats its prompt: rewriting, summing up, code (prompt lookup decoding). The
earlier places are found as LZ77 compressors find them: the last position of every pair of tokens,
and from each position the one before it with the same pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pocketlm.engine.request import Request

LONGEST = 8  # tokens: longer matches are not told apart
_PLACES = 16  # earlier places that are compared, the latest first


class PairIndex:
    """Where each pair of tokens of one sequence stands. A token costs O(1), a search too."""

    __slots__ = ("_before", "_last")

    def __init__(self) -> None:
        self._last: dict[tuple[int, int], int] = {}  # pair -> index of its second token
        self._before: list[int] = []  # index -> the one before it that ends the same pair, or -1

    def update(self, tokens: Sequence[int]) -> None:
        """Takes in what the sequence has more than the last time."""
        last, before = self._last, self._before
        for at in range(len(before), len(tokens)):
            if at == 0:
                before.append(-1)
                continue
            pair = (tokens[at - 1], tokens[at])
            before.append(last.get(pair, -1))
            last[pair] = at

    def match(self, tokens: Sequence[int]) -> tuple[int, int]:
        """(length, next): the longest earlier stretch that equals the end, and what follows it.

        Of equally long ones the latest. (0, 0) where not even the last two tokens came before.
        """
        end = len(tokens) - 1
        at = self._before[end]
        longest, following = 0, 0
        for _ in range(_PLACES):
            if at < 1:
                break
            length = 2
            while length < LONGEST and length <= at and tokens[at - length] == tokens[end - length]:
                length += 1
            if length > longest:
                longest, following = length, at + 1
                if length == LONGEST:
                    break
            at = self._before[at]
        return longest, following


class NgramProposer:
    """``Proposer`` by the longest earlier match; its classes are the lengths of the match."""

    def __init__(self) -> None:
        self._indices: dict[Request, PairIndex] = {}
        self._following: dict[Request, int] = {}

    def prepare(self, request: Request) -> bool:
        self._indices[request] = index = PairIndex()
        index.update(request.tokens)
        return True

    def confidence(self, request: Request) -> int | None:
        index = self._indices[request]
        index.update(request.tokens)
        length, self._following[request] = index.match(request.tokens)
        return length or None

    def propose(self, wanted: Mapping[Request, int]) -> Mapping[Request, list[int]]:
        return {r: follow(r.tokens, self._following[r], count) for r, count in wanted.items()}

    def clear(self) -> None:
        self._indices.clear()
        self._following.clear()

    def forget(self, request: Request) -> None:
        self._indices.pop(request, None)
        self._following.pop(request, None)


def follow(tokens: Sequence[int], start: int, count: int) -> list[int]:
    """``count`` tokens from ``start`` on; where the sequence ends first, that stretch repeats."""
    stretch = list(tokens[start : start + count])
    return (stretch * -(-count // len(stretch)))[:count]
