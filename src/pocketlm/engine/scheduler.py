"""Who computes what in the next step, by one rule.

Every request has ``computed`` and ``len(tokens)``; a step gives out one budget of tokens so that
the first catches up with the second. Running requests are served before waiting ones; a waiting
request is admitted, in order of arrival, if blocks for all its tokens are free. That one rule is
chunked prefill, continuous batching and resumption alike. Where a running request finds no free
block, the youngest running one is preempted: its blocks are released, and it waits, first in line,
to be computed again (usually from the prefix cache, since released blocks keep their content).

No request starves: the oldest one is never preempted, and among running requests those that need
one token (decode) come before those that catch up (prefill), so a long prompt delays nobody's next
token by more than one step's budget.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from time import perf_counter

from pocketlm.engine.cache import KVCache
from pocketlm.engine.request import Request, Status


@dataclass(frozen=True, slots=True)
class Share:
    """A request's part of one step: tokens [computed, computed + count)."""

    request: Request
    count: int


class Scheduler:
    """The queues and the token budget. Not thread-safe.

    Args:
        cache: the KV blocks.
        step_tokens: new tokens in a step, over all requests.
        max_running: requests in a step.
        prefix_cache: whether computed blocks are shared between requests.
    """

    def __init__(
        self, cache: KVCache, *, step_tokens: int, max_running: int, prefix_cache: bool = True
    ) -> None:
        self.cache = cache
        self.step_tokens = step_tokens
        self.max_running = max_running
        self.prefix_cache = prefix_cache
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []  # in order of arrival

    def add(self, request: Request) -> None:
        self.waiting.append(request)

    def schedule(self) -> list[Share]:
        """The shares of the next step; empty only when nothing waits or runs."""
        shares: dict[Request, int] = {}
        budget = self.step_tokens
        preempted = False
        decode = [r for r in self.running if r.missing == 1]
        for request in decode + [r for r in self.running if r.missing > 1]:
            if budget == 0:
                break
            if request.status is not Status.RUNNING:  # preempted for an older one in this step
                continue
            count = min(request.missing, budget)
            while not self.cache.reserve(request.table, request.computed + count):
                victim = self.running[-1]
                budget += shares.pop(victim, 0)
                self._preempt(victim)
                preempted = True
                if victim is request:
                    break
            else:
                shares[request] = count
                budget -= count
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
        request.status = Status.WAITING
        self.waiting.appendleft(request)

    def _admit(self, shares: dict[Request, int], budget: int) -> None:
        while self.waiting and budget > 0 and len(self.running) < self.max_running:
            request = self.waiting[0]
            if not self._fits_whole(request, budget):
                break
            self.waiting.popleft()
            request.status = Status.RUNNING
            self.running.append(request)
            if request.timing.admitted is None:
                request.timing.admitted = perf_counter()
                request.cached = request.computed
            count = min(request.missing, budget)
            reserved = self.cache.reserve(request.table, request.computed + count)
            assert reserved, "a request whose tokens all fit did not fit"
            shares[request] = count
            budget -= count

    def _fits_whole(self, request: Request, budget: int) -> bool:
        """Whether all its tokens fit now; if so, what is cached of them is held."""
        match = None
        if self.prefix_cache:
            match = self.cache.match(request.tokens, request.variant)
        if not self.cache.fits(len(request.tokens), budget, match):
            return False
        if match is not None:
            self.cache.hold(request.table, match)
            request.computed = match.pages * self.cache.block_size
            request.published = match.pages
            request.key = match.key
        return True
