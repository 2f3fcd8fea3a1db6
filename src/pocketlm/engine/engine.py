"""The loop: schedule, compute, draw, hand out. Token ids in, outputs out; text only as a decoder.

``add`` queues a request, ``step`` computes one ragged batch and returns what it brought for each
request, ``abort`` ends a request at once. What a request gets does not depend on what else runs:
the runner's logits are bit-identical in any batch, and draws depend on (seed, position) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from pocketlm._native import Sampler
from pocketlm.engine.blocks import BlockPool
from pocketlm.engine.context import Overflow, fit
from pocketlm.engine.request import Decoder, FinishReason, Request, Status, TokenLogprobs
from pocketlm.engine.runner import Floats, Runner, StepBatch
from pocketlm.engine.sampling import SamplingParams
from pocketlm.engine.scheduler import Scheduler, Share
from pocketlm.errors import CapacityError, RequestError


@dataclass(frozen=True)
class EngineConfig:
    """How an engine is set up.

    Attributes:
        context: positions a sequence may have, prompt and answer together.
        eos_ids: the model's end-of-turn tokens.
        rope_switch: sequences longer than this use rope variant 1 for all their positions.
        prefix_cache: whether equal beginnings of sequences are computed once.
    """

    context: int
    eos_ids: frozenset[int] = frozenset()
    rope_switch: int | None = None
    prefix_cache: bool = True


@dataclass(frozen=True, slots=True)
class Output:
    """What one step brought for one request: a token, or its end, or both.

    ``text`` is what the decoder released: "" while it holds back half a character or a possible
    stop string. ``error`` is set where ``finish_reason`` is "error".
    """

    request: Request
    token: int | None
    text: str
    logprobs: TokenLogprobs | None = None
    finish_reason: FinishReason | None = None
    error: Exception | None = None


class Engine:
    """Owns the queues and the KV blocks of one runner. Not thread-safe."""

    def __init__(self, runner: Runner, config: EngineConfig) -> None:
        positions = runner.pages * runner.page_positions
        if config.context > positions:
            raise CapacityError(
                f"a context of {config.context:,} positions does not fit a cache of {positions:,}"
            )
        self.runner = runner
        self.config = config
        self._next_id = 0
        self._clear()

    def _clear(self) -> None:
        runner = self.runner
        self.pool = BlockPool(runner.pages, runner.page_positions)
        self.scheduler = Scheduler(
            self.pool,
            step_tokens=runner.max_tokens,
            max_running=min(runner.max_sequences, runner.max_rows),
            prefix_cache=self.config.prefix_cache,
        )

    @property
    def busy(self) -> bool:
        """Whether a step would have something to do."""
        return bool(self.scheduler.running or self.scheduler.waiting)

    def add(
        self,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        decoder: Decoder | None = None,
        on_overflow: Overflow = "error",
        keep: int = 0,
    ) -> Request:
        """Queues a prompt. What does not fit the context is settled here, by ``engine.context``.

        Raises RequestError for an empty prompt or an id outside the vocabulary, CapacityError for
        one that does not fit.
        """
        self.check_ids(prompt)
        self._check_bias(params)
        fitted = fit(prompt, params.max_tokens, self.config.context, on_overflow, keep=keep)
        request = Request(
            self._next_id,
            fitted.prompt,
            params,
            max_total=fitted.max_total,
            stop_ids=params.stop_ids | (frozenset() if params.ignore_eos else self.config.eos_ids),
            sampler=self._sampler(fitted.prompt, params),
            table=np.zeros(-(-fitted.max_total // self.pool.block_size), np.int32),
            variant=self.variant(len(fitted.prompt)),
            decoder=decoder,
            dropped=fitted.dropped,
        )
        self._next_id += 1
        self.scheduler.add(request)
        return request

    def step(self) -> list[Output]:
        """Computes one batch. One output for each request that drew a token or ended; [] when idle.

        An error of the runner is raised; nothing of the step has then happened.
        """
        shares = self.scheduler.schedule()
        if not shares:
            return []
        batch, drawing = self._batch(shares)
        logits = self.runner.step(batch)
        for share in shares:
            self.scheduler.commit(share)
        return [self._draw(request, logits[row]) for row, request in enumerate(drawing)]

    def abort(self, request: Request) -> None:
        """Ends a request with "cancelled", if it has not ended. No output follows."""
        if request.status is not Status.FINISHED:
            self._finish(request, "cancelled")

    def reset(self) -> list[Request]:
        """After a step that was cut off anywhere: ends all requests with "error" and
        forgets the cache.

        Returns the requests that were ended.
        """
        ended = [*self.scheduler.running, *self.scheduler.waiting]
        for request in ended:
            request.status = Status.FINISHED
            request.finish_reason = "error"
        self._clear()
        return ended

    def _batch(self, shares: list[Share]) -> tuple[StepBatch, list[Request]]:
        """The batch, and the requests whose logits it asks for, in order of its rows."""
        count = len(shares)
        lengths = np.empty(count, np.int32)
        starts = np.empty(count, np.int32)
        variants = np.empty(count, np.int32)
        tables = np.zeros((count, max(len(s.request.blocks) for s in shares)), np.int32)
        tokens: list[int] = []
        rows: list[int] = []
        drawing: list[Request] = []
        for i, share in enumerate(shares):
            request = share.request
            start, end = request.computed, request.computed + share.count
            lengths[i], starts[i], variants[i] = share.count, start, request.variant
            used = len(request.blocks)
            tables[i, :used] = request.table[:used]
            tokens += request.tokens[start:end]
            if end == len(request.tokens):
                rows.append(len(tokens) - 1)
                drawing.append(request)
        batch = StepBatch(
            np.array(tokens, np.int32), lengths, starts, tables, variants, np.array(rows, np.int32)
        )
        return batch, drawing

    def _draw(self, request: Request, logits: Floats) -> Output:
        """The request's next token, and whether it is its last."""
        index = len(request.tokens) - request.prompt_tokens
        try:
            token, logprob, best = request.sampler.sample(logits, index)
        except ValueError as error:  # NaN from the model, or every token banned
            request.error = error
            return self._end(request, None, "error")
        now = perf_counter()
        if request.timing.first_token is None:
            request.timing.first_token = now
        request.timing.last_token = now
        request.tokens.append(token)
        logprobs = None
        if request.params.logprobs is not None:
            logprobs = TokenLogprobs(logprob, tuple(best))
        if token in request.stop_ids:
            return self._end(request, token, "stop", logprobs=logprobs)
        text = request.decoder.push(token) if request.decoder else ""
        if request.decoder and request.decoder.stopped is not None:
            self._finish(request, "stop")
            return Output(request, token, text, logprobs, "stop")
        if len(request.tokens) >= request.max_total:
            return self._end(request, token, "length", text, logprobs)
        request.sampler.observe_output(token)
        variant = self.variant(len(request.tokens))
        if variant != request.variant:
            self.scheduler.restart(request, variant)
        return Output(request, token, text, logprobs)

    def _end(
        self,
        request: Request,
        token: int | None,
        reason: FinishReason,
        text: str = "",
        logprobs: TokenLogprobs | None = None,
    ) -> Output:
        """Finishes a request and releases the text that its decoder held back."""
        if request.decoder is not None:
            text += request.decoder.finish()
        self._finish(request, reason)
        return Output(request, token, text, logprobs, reason, request.error)

    def _finish(self, request: Request, reason: FinishReason) -> None:
        self.scheduler.finish(request)
        request.finish_reason = reason

    def variant(self, length: int) -> int:
        """The rope variant of a sequence of this length."""
        switch = self.config.rope_switch
        return int(switch is not None and length > switch)

    def check_ids(self, prompt: Sequence[int]) -> None:
        """Raises RequestError for an empty prompt or an id outside the vocabulary."""
        vocab = self.runner.vocab
        if not prompt:
            raise RequestError("the prompt is empty: it has no tokens")
        if min(prompt) < 0 or max(prompt) >= vocab:
            bad = next(i for i in prompt if not 0 <= i < vocab)
            raise RequestError(
                f"the prompt has token id {bad}, the vocabulary has {vocab:,} tokens"
            )

    def _check_bias(self, params: SamplingParams) -> None:
        vocab = self.runner.vocab
        for token in params.logit_bias or ():
            if token >= vocab:
                raise RequestError(
                    f"logit_bias has token id {token}, the vocabulary has {vocab:,} tokens"
                )

    def _sampler(self, prompt: Sequence[int], params: SamplingParams) -> Sampler:
        sampler = Sampler(
            self.runner.vocab,
            temperature=params.temperature,
            top_k=params.top_k,
            top_p=params.top_p,
            min_p=params.min_p,
            typical_p=params.typical_p,
            repetition_penalty=params.repetition_penalty,
            frequency_penalty=params.frequency_penalty,
            presence_penalty=params.presence_penalty,
            penalty_window=params.penalty_window,
            logit_bias=list((params.logit_bias or {}).items()),
            seed=params.seed or 0,
            logprobs=-1 if params.logprobs is None else params.logprobs,
        )
        sampler.observe(np.asarray(prompt, np.int32), False)
        return sampler
