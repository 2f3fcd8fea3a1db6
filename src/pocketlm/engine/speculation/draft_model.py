"""Guesses by a smaller model of the same vocabulary.

It has a KV cache of its own. Of a sequence it has read some tokens that are certain, and after them
its own last guesses; those that turned out wrong are read again as what they are, over their
positions. It draws with the request's own sampler: at the same temperature and with the same number
of the same seed, two models that largely agree draw the same token more often than if one of them
took the likeliest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pocketlm.engine.blocks import Key, root
from pocketlm.engine.cache import KVCache, block_tables
from pocketlm.engine.request import Request
from pocketlm.engine.runner import Floats, Runner, StepBatch

_CONFIDENCE = 4  # one class: about two guesses of three are believed to be right at first


class _Sequence:
    """What the draft model has read of one request."""

    __slots__ = ("certain", "key", "published", "read", "table", "variant")

    def __init__(self, cache: KVCache, positions: int, variant: int) -> None:
        self.table = cache.table(positions)
        self.variant = variant
        self.read: list[int] = []  # tokens whose keys and values are in the cache
        self.certain = 0  # how many of them are the request's own, and stay
        self.published = 0  # pages, and the key after them, as of a request
        self.key: Key = root(variant)


class DraftModel:
    """``Proposer`` that runs a model.

    Args:
        runner: the model, with room for ``runner.max_sequences`` sequences of ``context``.
        vocab: how many logits the requests' samplers want; the tokens have the same ids in both.
        context: positions that it can read.
        rope_switch: as in ``EngineConfig``.
    """

    def __init__(
        self, runner: Runner, *, vocab: int, context: int, rope_switch: int | None = None
    ) -> None:
        self._runner = runner
        self._vocab = vocab
        self._context = context
        self._switch = rope_switch
        self._sequences: dict[Request, _Sequence] = {}  # least recently used first
        self.clear()

    def prepare(self, request: Request) -> bool:
        if len(request.tokens) >= self._context:
            return True  # it will never be confident
        sequence = self._sequence(request)
        self._agree(sequence, request)
        missing = len(request.tokens) - 1 - len(sequence.read)
        if missing <= 0:
            return True
        count = min(missing, self._runner.max_tokens)
        start = len(sequence.read)
        self._step({request: request.tokens[start : start + count]}, draw=False)
        return count == missing

    def confidence(self, request: Request) -> int | None:
        return _CONFIDENCE if len(request.tokens) < self._context else None

    def propose(self, wanted: Mapping[Request, int]) -> Mapping[Request, list[int]]:
        drafts: dict[Request, list[int]] = {}
        news: dict[Request, list[int]] = {}
        budget = self._runner.max_tokens
        for request in wanted:
            sequence = self._sequence(request)
            self._agree(sequence, request)
            new = request.tokens[len(sequence.read) :]
            if len(new) > budget:  # its rope variant has changed, or others had to be read instead
                self.prepare(request)
                continue
            news[request], drafts[request] = new, []
            budget -= len(new)
        while news:
            logits = self._step(news, draw=True)
            news = {}
            for request, row in logits.items():
                draft = drafts[request]
                token = self._draw(request, row, len(draft))
                if token is None:
                    continue
                draft.append(token)
                whole = len(request.tokens) + len(draft) >= self._context
                if len(draft) < wanted[request] and not whole and token not in request.stop_ids:
                    news[request] = [token]
        return drafts

    def forget(self, request: Request) -> None:
        sequence = self._sequences.pop(request, None)
        if sequence is not None:
            self._cache.release(sequence.table)

    def clear(self) -> None:
        self._cache = KVCache(self._runner.windows, self._runner.pages, self._runner.page_positions)
        self._sequences.clear()

    def _sequence(self, request: Request) -> _Sequence:
        """Its sequence; a new one begins with what the cache has of it."""
        variant = int(self._switch is not None and len(request.tokens) > self._switch)
        sequence = self._sequences.pop(request, None)
        if sequence is not None and sequence.variant != variant:
            self._cache.release(sequence.table)
            sequence = None
        if sequence is None:
            while len(self._sequences) >= self._runner.max_sequences:
                self.forget(next(iter(self._sequences)))
            sequence = _Sequence(self._cache, min(request.max_total, self._context), variant)
            match = self._cache.match(request.tokens, variant)
            self._cache.hold(sequence.table, match)
            sequence.read = request.tokens[: match.pages * self._cache.block_size]
            sequence.certain = len(sequence.read)
            sequence.published, sequence.key = match.pages, match.key
        self._sequences[request] = sequence
        return sequence

    def _agree(self, sequence: _Sequence, request: Request) -> None:
        """Finds out how much of what was read is right, and forgets the rest.

        The last token of the request is always read again: what follows it is wanted.
        """
        tokens, read = request.tokens, sequence.read
        last = len(tokens) - 1
        certain = sequence.certain
        while certain < min(len(read), last) and read[certain] == tokens[certain]:
            certain += 1
        del read[certain:]
        sequence.certain = certain
        size = self._cache.block_size
        while (sequence.published + 1) * size <= certain:
            page = sequence.published
            content = tokens[page * size : (page + 1) * size]
            sequence.key = self._cache.publish(sequence.table, page, sequence.key, content)
            sequence.published += 1
        self._cache.slide(sequence.table, certain)

    def _step(self, news: Mapping[Request, Sequence[int]], *, draw: bool) -> dict[Request, Floats]:
        """Reads new tokens; with ``draw``, the logits after each request's last one.

        Leaves out requests for which there is no room.
        """
        read = {
            request: self._sequences[request]
            for request, new in news.items()
            if self._cache.reserve(
                self._sequences[request].table, len(self._sequences[request].read) + len(new)
            )
        }
        if not read:
            return {}
        lengths = np.array([len(news[request]) for request in read], np.int32)
        ends = np.cumsum(lengths, dtype=np.int32)
        logits = self._runner.step(
            StepBatch(
                np.array([token for request in read for token in news[request]], np.int32),
                lengths,
                np.array([len(sequence.read) for sequence in read.values()], np.int32),
                block_tables([sequence.table for sequence in read.values()]),
                np.array([sequence.variant for sequence in read.values()], np.int32),
                ends - 1 if draw else np.empty(0, np.int32),
            )
        )
        for request, sequence in read.items():
            sequence.read += news[request]
        return dict(zip(read, logits, strict=draw)) if draw else {}

    def _draw(self, request: Request, logits: Floats, ahead: int) -> int | None:
        """What the request would draw from these after ``ahead`` more tokens, if anything."""
        if len(logits) > self._vocab:  # models pad their vocabulary differently
            logits = logits[: self._vocab]
        elif len(logits) < self._vocab:
            missing = (0, self._vocab - len(logits))
            logits = np.pad(logits, missing, constant_values=logits.min())
        try:
            index = len(request.tokens) - request.prompt_tokens + ahead
            return request.sampler.sample(logits, index)[0]
        except ValueError:
            return None
