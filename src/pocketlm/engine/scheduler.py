"""Who computes what in the next step, by one rule.

Every request has ``computed`` and ``len(tokens)``; a step gives out one budget of tokens so that
the first catches up with the second. Running requests are served before waiting ones; a waiting
request is admitted, in order of arrival, if blocks for all its tokens are free. That one rule is
chunked prefill, continuous batching and resumption alike. Where a running request finds no free
block, the youngest running one is preempted: its blocks are released, and it waits, first in line,
to be computed again (usually from the prefix cache, since released blocks keep their content).

No request starves: the oldest one is never preempted, and among running requests those that need
one token (decode) come before those that catch up (prefill), of whose tokens a step takes only so
many that the others get theirs soon (``pace``).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf
from time import perf_counter

from pocketlm.engine.cache import KVCache
from pocketlm.engine.pace import Pace, tokens_of, work_of
from pocketlm.engine.request import Request, Status


@dataclass(frozen=True, slots=True)
class Share:
    """A request's part of one step: tokens [computed, computed + count)."""

    request: Request
    count: int


@dataclass(slots=True)
class Counts:
    """Since the engine was built: prompt tokens looked for in the prefix cache and found there, and
    how often a request was preempted."""

    queried: int = 0
    found: int = 0
    preemptions: int = 0


class _Budget:
    """What a step has left: tokens, of them for prompts in units of ``pace``, rows of logits."""

    __slots__ = ("prompts", "read", "rows", "tokens")

    def __init__(self, tokens: int, prompts: float, rows: int) -> None:
        self.tokens = tokens
        self.prompts = prompts
        self.rows = rows
        self.read = False  # whether some prompt has got something

    def share(self, request: Request) -> int:
        """How many of the tokens that a request misses it can have."""
        if request.missing == 1:  # most are such
            return int(self.tokens > 0 and self.rows > 0)
        count = min(request.missing, self.tokens)
        if self.prompts < inf:
            most = tokens_of(max(0.0, self.prompts), request.computed)
            # One token is always read, in all but the steps that are to have none.
            count = min(count, most or int(self.prompts > 0 and not self.read))
        over = _rows(request, count) - self.rows
        return max(0, count - over) if over > 0 else count

    def take(self, request: Request, count: int) -> None:
        self.tokens -= count
        if request.missing == 1:
            self.rows -= 1
        else:
            self.rows -= _rows(request, count)
            self.prompts -= work_of(count, request.computed)
            self.read = True

    def give_back(self, request: Request, count: int) -> None:
        self.tokens += count
        self.rows += _rows(request, count)
        if request.missing > 1:
            self.prompts += work_of(count, request.computed)


def _rows(request: Request, count: int) -> int:
    """Rows of logits that the next ``count`` tokens of a request bring."""
    return len(request.unscored(count)) + (count == request.missing)


class Scheduler:
    """The queues and the token budget. Not thread-safe.

    Args:
        cache: the KV blocks.
        step_tokens: new tokens in a step, over all requests.
        max_running: requests in a step, at most ``max_rows``.
        max_rows: rows of logits in a step; None is no limit.
        prefix_cache: whether computed blocks are shared between requests.
        pace: how many tokens of prompts are read beside requests that decode; None is no limit.
        counts: what is counted into.
    """

    def __init__(
        self,
        cache: KVCache,
        *,
        step_tokens: int,
        max_running: int,
        max_rows: int | None = None,
        prefix_cache: bool = True,
        pace: Pace | None = None,
        counts: Counts | None = None,
    ) -> None:
        self.cache = cache
        self.step_tokens = step_tokens
        self.max_running = max_running
        self.max_rows = step_tokens if max_rows is None else max_rows
        self.prefix_cache = prefix_cache
        self.pace = pace
        self.counts = Counts() if counts is None else counts
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []  # in order of arrival
        # The request that was not admitted last, and the blocks that were free then.
        self._refused: tuple[Request, int] | None = None

    def add(self, request: Request) -> None:
        self.waiting.append(request)

    def schedule(self) -> list[Share]:
        """The shares of the next step; empty only when nothing waits or runs."""
        shares: dict[Request, int] = {}
        preempted = False
        decode = [r for r in self.running if r.missing == 1]
        prompts = inf
        if self.pace is not None and decode:
            admitted = min(len(self.waiting), self.max_running - len(self.running))
            reading = len(self.running) - len(decode) + admitted
            prompts = self.pace.room(len(decode), reading)
        budget = _Budget(self.step_tokens, prompts, self.max_rows)
        for request in decode + [r for r in self.running if r.missing > 1]:
            if request.status is not Status.RUNNING:  # preempted for an older one in this step
                continue
            count = budget.share(request)
            if count == 0:
                continue
            while not self.cache.reserve(request.table, request.computed + count):
                victim = self.running[-1]
                if victim in shares:
                    budget.give_back(victim, shares.pop(victim))
                self._preempt(victim)
                preempted = True
                if victim is request:
                    break
            else:
                shares[request] = count
                budget.take(request, count)
        if not preempted:
            self._admit(shares, budget)
        return [Share(request, count) for request, count in shares.items()]

    def stretch(self, request: Request, wanted: int) -> int:
        """How many of ``wanted`` positions after ``computed`` its blocks and free ones can hold.

        Takes those blocks, until ``trim``; nobody is preempted for them.
        """
        end = self.cache.stretch(request.table, request.computed + wanted)
        return end - request.computed

    def trim(self, request: Request) -> None:
        """Gives back the blocks that ``stretch`` took in vain."""
        self.cache.shorten(request.table, request.computed)

    def commit(self, request: Request, count: int) -> None:
        """``count`` more positions are computed: publishes blocks that became full with them, and
        releases those that no later position sees."""
        request.computed += count
        size = self.cache.block_size
        while self.prefix_cache and (request.published + 1) * size <= request.computed:
            tokens = request.tokens[request.published * size : (request.published + 1) * size]
            request.key = self.cache.publish(request.table, request.published, request.key, tokens)
            request.published += 1
        self.cache.slide(request.table, request.computed)

    def restart(self, request: Request, variant: int) -> None:
        """Drops what a running request has computed: all its positions change to a rope variant."""
        self.cache.release(request.table)
        request.variant = variant
        request.forget()

    def finish(self, request: Request) -> None:
        """Takes a request out of the queues, wherever it is, and releases its blocks."""
        if request.status is Status.RUNNING:
            self.running.remove(request)
        elif request.status is Status.WAITING:
            self.waiting.remove(request)
        self.cache.release(request.table)
        request.forget()
        request.status = Status.FINISHED

    def _preempt(self, request: Request) -> None:
        self.running.remove(request)
        self.cache.release(request.table)
        request.forget()
        request.preemptions += 1
        self.counts.preemptions += 1
        request.status = Status.WAITING
        self.waiting.appendleft(request)

    def _admit(self, shares: dict[Request, int], budget: _Budget) -> None:
        while self.waiting and budget.tokens > 0 and len(self.running) < self.max_running:
            request = self.waiting[0]
            if budget.share(request) == 0 or not self._fits_whole(request, budget):
                break
            self.waiting.popleft()
            request.status = Status.RUNNING
            self.running.append(request)
            if request.timing.admitted is None:
                request.timing.admitted = perf_counter()
                request.cached = request.computed
                self.counts.queried += len(request.tokens) if self.prefix_cache else 0
                self.counts.found += request.cached
            count = budget.share(request)
            if count == 0:  # what is cached would have needed no rows of logits, the rest does
                continue
            reserved = self.cache.reserve(request.table, request.computed + count)
            assert reserved, "a request whose tokens all fit did not fit"
            shares[request] = count
            budget.take(request, count)

    def _fits_whole(self, request: Request, budget: _Budget) -> bool:
        """Whether all its tokens fit now; if so, what is cached of them is held."""
        free = sum(pool.free for pool in self.cache.pools)
        refused, before = self._refused or (None, 0)
        if self.running and refused is request and free <= before:
            return False  # looking again would find the same
        match = None
        if self.prefix_cache:
            match = self.cache.match(request.tokens[: request.reusable], request.variant)
        if not self.cache.fits(
            len(request.tokens), budget.tokens, match, promised=self._promised()
        ):
            self._refused = request, free
            return False
        self._refused = None
        if match is not None:
            self.cache.hold(request.table, match)
            request.computed = match.pages * self.cache.block_size
            request.published = match.pages
            request.key = match.key
        return True

    def _promised(self) -> int:
        """Blocks that running requests will want soon: for the tokens that they have, and for the
        next ones. Without them a request would be admitted only to be preempted."""
        size, promised = self.cache.block_size, 0
        for request in self.running:
            end = min(len(request.tokens) + size, request.max_total)
            promised += max(0, -(-end // size) - request.table.count)
        return promised
