"""Token by token to text, for showing an answer while it is made.

`StreamDecoder` is pushed one id after another and gives out text that will not change any more: no
half characters (a character may span tokens) and nothing that may turn out to be the beginning of
a stop string (which may span tokens too). What it gives out in total is `Tokenizer.decode` of the
ids, cut before the first stop string. Work per token is proportional to the token's text, whatever
came before.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from pocketlm.errors import RequestError
from pocketlm.text.tokenizer import Tokenizer


class _StopMatcher:
    """How much of one stop string the text seen so far ends with (Knuth, Morris, Pratt)."""

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.matched = 0
        # fallback[n]: the longest proper prefix of stop[:n] that also ends it.
        self._fallback = [0] * (len(stop) + 1)
        length = 0
        for at in range(1, len(stop)):
            while length and stop[at] != stop[length]:
                length = self._fallback[length]
            length += stop[at] == stop[length]
            self._fallback[at + 1] = length

    def advance(self, char: str) -> bool:
        """Take one more character; True when the stop string is complete."""
        while self.matched and self.stop[self.matched] != char:
            self.matched = self._fallback[self.matched]
        self.matched += self.stop[self.matched] == char
        return self.matched == len(self.stop)


class StreamDecoder:
    """Incremental `Tokenizer.decode` with stop strings.

    Args:
        tokenizer: whose ids will be pushed.
        stop: texts that end the stream; the one that is complete first wins (of two that end at
            the same character, the longer), and is not given out.
        skip_special: leave control tokens out.
        continuation: the ids continue a text rather than begin one, so a SentencePiece model's
            first space is kept.
        min_tokens: in the text of so many ids no stop string is looked for.

    Attributes:
        stopped: the stop string that ended the stream, or None. Later pushes give "".

    Raises:
        RequestError: a stop string is empty or not a string.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: Sequence[str] = (),
        *,
        skip_special: bool = True,
        continuation: bool = False,
        min_tokens: int = 0,
    ) -> None:
        if isinstance(stop, str):
            stop = (stop,)
        for text in stop:
            if not isinstance(text, str) or not text:
                raise RequestError(f"a stop string should be a non-empty string, found {text!r}")
        self.stopped: str | None = None
        self._tokenizer = tokenizer
        self._skip = tokenizer.special_ids if skip_special else frozenset()
        self._strip = tokenizer.vocabulary.strip_space and not continuation
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._matchers = [_StopMatcher(text) for text in stop]
        self._held = ""
        self._unsearched = min_tokens  # ids to come

    def push(self, token_id: int) -> str:
        """Take the next id; the text that is now certain, often ""."""
        if self.stopped is not None:
            return ""
        search = self._unsearched == 0
        self._unsearched -= not search
        if token_id in self._skip:
            return ""
        text = self._utf8.decode(self._tokenizer.token_bytes(token_id))
        return self._take(text, search=search)

    def finish(self) -> str:
        """No more ids come: the text held back, with U+FFFD for an unfinished character."""
        if self.stopped is not None:
            return ""
        text = self._take(self._utf8.decode(b"", True))
        if self.stopped is None:
            text += self._held
            self._held = ""
        return text

    def _take(self, text: str, *, search: bool = True) -> str:
        if self._strip and text:
            text = text.removeprefix(" ")
            self._strip = False
        if not self._matchers or not search:
            return text
        before = len(self._held)
        seen = self._held + text
        for at, char in enumerate(text, before + 1):
            complete = [m.stop for m in self._matchers if m.advance(char)]
            if complete:
                self.stopped = max(complete, key=len)
                self._held = ""
                return seen[: at - len(self.stopped)]
        certain = len(seen) - max(matcher.matched for matcher in self._matchers)
        self._held = seen[certain:]
        return seen[:certain]
