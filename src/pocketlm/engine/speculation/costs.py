"""How long a step takes by its number of tokens, learnt from the steps that are taken."""

from __future__ import annotations

from bisect import bisect_left, insort

# A size that has not been seen is taken to cost in proportion to tokens + 3: reading the weights
# as much as three tokens' arithmetic. It only has to be near enough for the size to be tried.
_READING = 3
_SAMPLES = 8


class StepCosts:
    """Seconds of a step of n tokens, each with a row of logits: a common speed times a shape.

    The speed is that of the machine now, at the depth that the sequences have now: steps without
    guesses tell it. The shape tells how much slower a step of more tokens is; it hardly changes,
    so sizes that are not used for a while stay comparable.
    """

    def __init__(self) -> None:
        self._speed = 0.0  # seconds for a cost of 1
        self._shape: dict[int, float] = {}
        self._sizes: list[int] = []  # the keys, ascending
        self._unsettled: dict[int, int] = {}  # samples of a size until it tells the speed

    def record(self, tokens: int, seconds: float, *, guessed: bool) -> None:
        """A step took so long; ``guessed``: some of its tokens were guesses."""
        known = self._shape.get(tokens)
        if known is None:
            self._speed = self._speed or seconds / (tokens + _READING)
            insort(self._sizes, tokens)
            self._shape[tokens] = seconds / self._speed
            self._unsettled[tokens] = _SAMPLES
        elif guessed or self._unsettled[tokens]:
            self._shape[tokens] = toward(known, seconds / self._speed)
            self._unsettled[tokens] -= self._unsettled[tokens] > 0
        else:
            self._speed = toward(self._speed, seconds / known)
            return
        at = bisect_left(self._sizes, tokens)  # fewer tokens cost no more
        least = min(self._shape[size] for size in self._sizes[at:])
        for size in self._sizes[: at + 1]:
            self._shape[size] = min(self._shape[size], least)

    def __bool__(self) -> bool:
        return bool(self._sizes)

    def __getitem__(self, tokens: int) -> float:
        """Of a size not seen yet, by the nearest one that was. At least one has been recorded."""
        known = self._shape.get(tokens)
        if known is not None:
            return self._speed * known
        at = bisect_left(self._sizes, tokens)
        near = self._sizes[max(0, at - 1) : at + 1]
        nearest = min(near, key=lambda size: abs(size - tokens))
        scale = (tokens + _READING) / (nearest + _READING)
        return self._speed * self._shape[nearest] * scale


def toward(estimate: float, found: float) -> float:
    """Follows faster steps quickly and slower ones slowly: a step is slower than it has to be when
    the machine does something else, but never faster."""
    return estimate + (found - estimate) / (4 if found < estimate else 16)
