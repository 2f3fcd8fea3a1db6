"""The loop: schedule, compute, draw, hand out. Token ids in, outputs out; text only as a decoder.

``add`` queues a request, ``step`` computes one ragged batch and returns what it brought for each
request, ``abort`` ends a request at once. What a request gets does not depend on what else runs:
the runner's logits are bit-identical in any batch, and draws depend on (seed, position) alone.

Guessed tokens (``engine.speculation``) are computed behind a request's own ones, with a row of
logits each. Every row is drawn from as if it had come in a step of its own, and the next row counts
only if its token is the one that was guessed; so a guess changes when tokens come, never which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from pocketlm.engine.batch import PlannedStep, plan_step
from pocketlm.engine.cache import KVCache
from pocketlm.engine.constraint import Constraint, masks_for
from pocketlm.engine.context import Overflow, context_limit, fit
from pocketlm.engine.drawing import check_prompt_logprobs, sampler_for
from pocketlm.engine.pace import Pace, work_of
from pocketlm.engine.request import Decoder, FinishReason, Request, Status, TokenLogprobs
from pocketlm.engine.runner import Draws, Floats, Masks, Runner
from pocketlm.engine.sampling import SamplingParams
from pocketlm.engine.scheduler import Counts, Scheduler, Share
from pocketlm.engine.speculation.speculator import Speculator
from pocketlm.engine.stats import EngineStats
from pocketlm.errors import CapacityError, PocketLMError, RequestError


@dataclass(frozen=True)
class EngineConfig:
    """How an engine is set up.

    Attributes:
        context: positions a sequence may have, prompt and answer together.
        eos_ids: the model's end-of-turn tokens.
        mixed_step: how many times as long as a step without prompts one may take that reads prompts
            beside requests that are being answered; None is as long as it takes.
        rope_switch: sequences longer than this use rope variant 1 for all their positions.
        prefix_cache: whether equal beginnings of sequences are computed once.
    """

    context: int
    eos_ids: frozenset[int] = frozenset()
    mixed_step: float | None = None
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
    """Owns the queues and the KV blocks of one runner. Not thread-safe.

    Args:
        speculator: guesses tokens to come; None is no speculation.
    """

    def __init__(
        self, runner: Runner, config: EngineConfig, speculator: Speculator | None = None
    ) -> None:
        self.runner = runner
        self.config = config
        self._speculator = speculator
        self._next_id = 0
        self._steps = self._step_tokens = 0
        self._drafted = self._accepted = 0
        self._counts = Counts()
        self._pace = None if config.mixed_step is None else Pace(config.mixed_step)
        self._clear()
        if not self.cache.fits(config.context, runner.max_tokens):
            raise CapacityError(
                f"a context of {config.context:,} positions does not fit a KV cache of "
                f"{' and '.join(map(str, runner.pages))} pages of {runner.page_positions} positions"
            )

    def _clear(self) -> None:
        runner = self.runner
        self.cache = KVCache(runner.windows, runner.pages, runner.page_positions)
        self.scheduler = Scheduler(
            self.cache,
            step_tokens=runner.max_tokens,
            max_running=min(runner.max_sequences, runner.max_rows),
            prefix_cache=self.config.prefix_cache,
            max_rows=runner.max_rows,
            pace=self._pace,
            counts=self._counts,
        )

    def stats(self) -> EngineStats:
        """What it has done and has to do."""
        pools = self.cache.pools
        return EngineStats(
            running=len(self.scheduler.running),
            waiting=len(self.scheduler.waiting),
            kv_usage=max(1 - pool.free / pool.count for pool in pools),
            prefix_queries=self._counts.queried,
            prefix_hits=self._counts.found,
            preemptions=self._counts.preemptions,
            steps=self._steps,
            step_tokens=self._step_tokens,
            drafted=self._drafted,
            accepted=self._accepted,
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
        context: int | None = None,
        constraint: Constraint | None = None,
        prompt_logprobs: int | None = None,
    ) -> Request:
        """Queues a prompt. What does not fit the context is settled here, by ``engine.context``.

        context: positions that prompt and answer may take, fewer than the engine's context.
        constraint: what the answer must look like, made for this request alone.
        prompt_logprobs: the prompt's tokens are scored, each with that many best ones, 0 to 100;
            ``Request.prompt_scores`` has them when the first output comes.

        Raises RequestError for an empty prompt or an id outside the vocabulary, ContextError for
        one that does not fit.
        """
        self.check_ids(prompt)
        limit = context_limit(context, self.config.context)
        fitted = fit(prompt, params.max_tokens, limit, on_overflow, keep=keep)
        stop_ids = params.stop_ids | (frozenset() if params.ignore_eos else self.config.eos_ids)
        vocab = self.runner.vocab
        request = Request(
            self._next_id,
            fitted.prompt,
            params,
            max_total=fitted.max_total,
            stop_ids=stop_ids,
            sampler=sampler_for(params, vocab, prompt=fitted.prompt, stop_ids=stop_ids),
            table=self.cache.table(fitted.max_total),
            variant=self.variant(len(fitted.prompt)),
            decoder=decoder,
            dropped=fitted.dropped,
            constraint=constraint,
            prompt_logprobs=check_prompt_logprobs(prompt_logprobs),
        )
        self._next_id += 1
        self.scheduler.add(request)
        return request

    def step(self) -> list[Output]:
        """Computes one batch. Outputs of each request that drew tokens or ended; [] when idle.

        An error of the runner is raised; nothing of the step has then happened.
        """
        shares = self.scheduler.schedule()
        if not shares:
            return []
        drafts = self._drafts(shares)
        plan = plan_step(shares, drafts)
        started = perf_counter()
        logits = self.runner.step(plan.batch)
        seconds = perf_counter() - started
        drawn = self._draw(logits, plan.drawing, drafts)
        self._score(logits, plan.scoring)
        for share in shares:
            self.scheduler.commit(share.request, share.count)
        outputs: list[Output] = []
        accepted: dict[Request, int] = {}
        for (request, _), draws in zip(plan.drawing, drawn, strict=True):
            taken = self._take(request, draws)
            accepted[request] = len(taken) - 1
            outputs += taken
            draft = drafts.get(request)
            if draft:
                self._count_guesses(request, len(draft), len(taken) - 1)
        self._learn(plan, seconds, drafts, accepted)
        return outputs

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
        if self._speculator is not None:
            self._speculator.clear()
        self._clear()
        return ended

    def _drafts(self, shares: Sequence[Share]) -> Mapping[Request, Sequence[int]]:
        """Guessed tokens, within what the step has left over; none beside a prompt."""
        if self._speculator is None:
            return {}
        requests = [share.request for share in shares]
        for request in requests:
            if request.missing > 1:
                return {}
        spare = min(self.runner.max_rows, self.scheduler.step_tokens) - len(shares)
        drafts = self._speculator.drafts(requests, self._draft_limit, spare)
        found: dict[Request, Sequence[int]] = {}
        for request, draft in drafts.items():
            possible = draft if request.constraint is None else request.constraint.possible(draft)
            room = self.scheduler.stretch(request, 1 + len(possible)) - 1
            found[request] = possible[:room]
        return found

    def _draft_limit(self, request: Request) -> int:
        """After how many guesses its end or the switch of its rope variant is certain to come."""
        end, switch = request.max_total - 1, self.config.rope_switch
        if switch is not None and request.variant == 0:
            end = min(end, switch)
        return end - len(request.tokens)

    def _draw(
        self,
        logits: Floats,
        drawing: Sequence[tuple[Request, int]],
        drafts: Mapping[Request, Sequence[int]],
    ) -> list[Draws]:
        """What each request draws: its next token, and others as long as they are what was
        guessed."""
        masks = self._masks(drawing, drafts)
        asked = [
            (
                request.sampler,
                len(request.tokens) - request.prompt_tokens,
                row,
                drafts.get(request, ()),
                masks.get(request),
            )
            for request, row in drawing
        ]
        return self.runner.draw(logits, asked)

    def _masks(
        self, drawing: Sequence[tuple[Request, int]], drafts: Mapping[Request, Sequence[int]]
    ) -> Mapping[Request, Masks | None]:
        """Which tokens the constrained ones of them may draw."""
        asked = [
            (request, request.constraint, drafts.get(request, ()))
            for request, _ in drawing
            if request.constraint is not None
        ]
        found = masks_for([(constraint, draft) for _, constraint, draft in asked])
        return {request: mask for (request, _, _), mask in zip(asked, found, strict=True)}

    def _score(self, logits: Floats, scoring: Sequence[tuple[Request, int, int]]) -> None:
        """Scores the next stretch of each prompt from its rows."""
        for request, row, count in scoring:
            start = len(request.prompt_scores) + 1
            targets = np.array(request.tokens[start : start + count], np.int32)
            best = request.prompt_logprobs or 0
            request.prompt_scores += [
                TokenLogprobs(logprob, others)
                for _, logprob, others in self.runner.score(
                    logits[row : row + count], targets, best
                )
            ]

    def _take(self, request: Request, draws: Draws) -> list[Output]:
        """Appends drawn tokens up to one that ends the request.

        The keys and values of a right guess are computed then; those of a wrong one, and of all
        after it, will be overwritten.
        """
        drawn, error, banned = draws
        outputs: list[Output] = []
        for token, logprob, best in drawn:
            if outputs:
                self.scheduler.commit(request, 1)
            logprobs = TokenLogprobs(logprob, best) if request.params.logprobs is not None else None
            outputs.append(self._append(request, token, logprobs))
            if outputs[-1].finish_reason is not None:
                return outputs
        if error is not None:
            request.error = RequestError(error) if banned else PocketLMError(error)
            outputs.append(self._end(request, None, "error"))
        return outputs

    def _learn(
        self,
        plan: PlannedStep,
        seconds: float,
        drafts: Mapping[Request, Sequence[int]],
        accepted: Mapping[Request, int],
    ) -> None:
        """Takes note of what a step took."""
        tokens = len(plan.batch.tokens)
        self._steps += 1
        self._step_tokens = tokens
        if self._pace is not None:
            read = sum(count for _, count in plan.reading)
            work = sum(work_of(count, start) for start, count in plan.reading)
            self._pace.record(seconds, decoding=tokens - read, work=work)
        if self._speculator is None:
            return
        if plan.reading:
            self._speculator.read(seconds)
        else:
            self._speculator.decoded(seconds, drafts, accepted)

    def _count_guesses(self, request: Request, drafted: int, accepted: int) -> None:
        request.drafted += drafted
        request.accepted += accepted
        self._drafted += drafted
        self._accepted += accepted
        self.scheduler.trim(request)

    def _append(self, request: Request, token: int, logprobs: TokenLogprobs | None) -> Output:
        """The request's next token, and whether it is its last."""
        now = perf_counter()
        if request.timing.first_token is None:
            request.timing.first_token = now
        request.timing.last_token = now
        request.tokens.append(token)
        if token in request.stop_ids:
            return self._end(request, token, "stop", logprobs=logprobs)
        text = request.decoder.push(token) if request.decoder else ""
        if request.decoder and request.decoder.stopped is not None:
            self._finish(request, "stop")
            return Output(request, token, text, logprobs, "stop")
        try:
            complete = request.constraint is not None and request.constraint.take(token)
        except RequestError as error:
            request.error = error
            return self._end(request, token, "error", text, logprobs)
        if complete:
            return self._end(request, token, "stop", text, logprobs)
        if len(request.tokens) >= request.max_total:
            return self._end(request, token, "length", text, logprobs)
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
        if self._speculator is not None:
            self._speculator.forget(request)
        request.finish_reason = reason

    def pace(self, start: int) -> int:
        """How many tokens of a text, behind ``start`` others of it, may be computed at once beside
        the requests that run."""
        running = len(self.scheduler.running)
        if self._pace is None or running == 0:
            return self.scheduler.step_tokens
        return self._pace.tokens(running, start)

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
