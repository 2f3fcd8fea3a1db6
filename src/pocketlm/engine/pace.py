"""How much of the prompts is read beside sequences that are being answered.

A step with many prompt tokens makes everybody else wait for their next token. So where requests
decode, a step takes only so much of prompts that it lasts at most a few times as long as one
without; where nobody does, prompts have the whole budget. What steps take is learnt from those that
were taken, so the bound follows the machine and what runs on it. Where more requests wait for their
first token than get their next one, it is as many times wider, so that few delay many. It changes
when tokens come, never which.

Reading is counted in units: a token costs one, and more the further back its attention reaches.
"""

from __future__ import annotations

from math import sqrt

from pocketlm.engine.speculation.costs import toward

# A prompt token after so many others is taken to cost twice as much as the first one. For a small
# model without windows that is near the truth; others are read too slowly only at first, since what
# a unit costs is learnt as the prompt gets longer.
_DEPTH = 1024
# Reading the weights costs as much as so many tokens: how steps of other numbers of sequences
# compare with those that were seen.
_READING = 3
# After so many steps with prompts comes one without: else it would not be known how long those take
# now, while the sequences get longer.
_MIXED = 8
_UNKNOWN = 32.0  # units before anything was read


class Pace:
    """Learns what steps take. Not thread-safe.

    Args:
        most: how many times as long as a step without prompts one with them may take, above 1.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        # Seconds of a step without prompts, for a token or what reading the weights costs: now, and
        # before prompts came. While they are read, the sequences get longer and so does every step;
        # that is not to add up.
        self._decoding = self._usual = 0.0
        self._unit = 0.0  # seconds that a unit of prompts adds
        self._mixed = 0  # steps with prompts since one without

    def room(self, decoding: int, reading: int = 1) -> float:
        """Units of prompts for a step in which ``decoding`` requests, at least 1, get a token while
        ``reading`` others wait for their first one.

        0 where the next step should be one without prompts.
        """
        if self._mixed >= _MIXED:
            return 0.0
        return self._room(decoding) * max(1.0, reading / decoding)

    def tokens(self, decoding: int, start: int) -> int:
        """How many tokens behind ``start`` others such a step may have, at least 1."""
        return max(1, tokens_of(self._room(decoding), start))

    def _room(self, decoding: int) -> float:
        if self._unit == 0:
            return _UNKNOWN
        left = self._most * (self._usual or self._unit) - (self._decoding or self._unit)
        return max(0.1, left * (decoding + _READING) / self._unit)

    def record(self, seconds: float, *, decoding: int, work: float) -> None:
        """A step took so long. decoding: its tokens that are not of prompts, guesses included;
        work: units of prompts."""
        if work == 0:
            found = seconds / (decoding + _READING)
            self._decoding += (found - self._decoding) / (4 if self._decoding else 1)
            if self._mixed and self._usual:
                self._usual += (found - self._usual) / 64
            else:
                self._usual = toward(self._usual or found, found)
            self._mixed = 0
            return
        usual = self._decoding * (decoding + _READING) if decoding else 0.0
        self._mixed += decoding > 0
        # Within bounds, so that one step in which the machine did something else changes little.
        found = max(seconds - usual, 0.1 * seconds) / work
        known = self._unit or found
        found = min(found, 4 * known)
        self._unit = known + (found - known) / (2 if found > known else 4)


def work_of(count: int, start: int) -> float:
    """Units of ``count`` prompt tokens behind ``start`` others."""
    return count * (1 + (start + count / 2) / _DEPTH)


def tokens_of(work: float, start: int) -> int:
    """How many tokens behind ``start`` others have at most so many units."""
    one = _DEPTH + start
    return int(sqrt(one * one + 2 * _DEPTH * work) - one)
