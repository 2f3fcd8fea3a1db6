"""How much of the prompts is read beside sequences that are being answered.

A step with many prompt tokens makes everybody else wait for their next token. So where requests
decode, a step takes only so many tokens of prompts that it lasts at most a few times as long as one
without; where nobody does, prompts have the whole budget. What a step takes is learnt from those
that were taken, so the bound follows the machine, the number of sequences, and a prompt whose
attention gets more expensive the further it is read. It changes when tokens come, never which.
"""

from __future__ import annotations

from pocketlm.engine.speculation.costs import StepCosts

# Until a step without prompts was seen: reading the weights costs as much as so many tokens.
_READING = 3
_UNKNOWN = 32  # prompt tokens beside others before any prompt was read


class Pace:
    """Learns what steps take. Not thread-safe.

    Args:
        most: how many times as long as a step without prompts one with them may take, above 1.
    """

    def __init__(self, most: float) -> None:
        self._extra = most - 1
        self._decoding = StepCosts()
        self._per_token = 0.0  # seconds that a prompt token adds; 0: none was read

    def room(self, decoding: int) -> int:
        """Prompt tokens for a step in which ``decoding`` requests, at least 1, get a token."""
        if self._per_token == 0:
            return _UNKNOWN
        usual = self._per_token * (decoding + _READING)
        if self._decoding:
            usual = self._decoding[decoding]
        return max(1, int(self._extra * usual / self._per_token))

    def record(self, seconds: float, *, decoding: int, reading: int) -> None:
        """A step took so long; decoding: its tokens that are not of prompts, guesses included."""
        if reading == 0:
            self._decoding.record(decoding, seconds, guessed=False)
            return
        usual = self._decoding[decoding] if decoding and self._decoding else 0.0
        # Not less than a tenth, or a step that was slow for once would open the gates.
        found = max(seconds - usual, 0.1 * seconds) / reading
        known = self._per_token or found
        self._per_token = known + (found - known) / (2 if found > known else 4)
