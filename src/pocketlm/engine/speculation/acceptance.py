"""How likely a guessed token of one request is right, from what became of the earlier ones."""

from __future__ import annotations

# What is assumed before anything is counted, as if this many guesses had been made.
_PRIOR_WEIGHT = 2.0
# Old counts fade with every further guess that could be made. So a text that changes its nature
# is followed, and a class that was given up is tried again after some hundred occasions.
_FADE = 0.99


class Acceptance:
    """Counts of one class of guesses. Each token of a guess counts up to the first wrong one.

    Args:
        confidence: the class; a longer match is believed sooner.
    """

    __slots__ = ("_prior", "_right", "_wrong")

    def __init__(self, confidence: int) -> None:
        self._prior = _PRIOR_WEIGHT * confidence / (confidence + 2)
        self._right = self._wrong = 0.0

    @property
    def rate(self) -> float:
        return (self._prior + self._right) / (_PRIOR_WEIGHT + self._right + self._wrong)

    def fade(self) -> None:
        """There is an occasion to guess, taken or not."""
        self._right *= _FADE
        self._wrong *= _FADE

    def record(self, drafted: int, accepted: int) -> None:
        """Of a guess of ``drafted`` tokens the first ``accepted`` were right."""
        self._right += accepted
        self._wrong += accepted < drafted
