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

from pocketlm._native import Sampler
from pocketlm.engine.cache import KVCache, block_tables
from pocketlm.engine.context import Overflow, fit
from pocketlm.engine.request import Decoder, FinishReason, Request, Status, TokenLogprobs
from pocketlm.engine.runner import Floats, Runner, StepBatch
from pocketlm.engine.sampling import SamplingParams
from pocketlm.engine.scheduler import Scheduler, Share
from pocketlm.engine.speculation.speculator import Speculator
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
            table=self.cache.table(fitted.max_total),
            variant=self.variant(len(fitted.prompt)),
            decoder=decoder,
            dropped=fitted.dropped,
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
        batch, drawing = self._batch(shares, drafts)
        started = perf_counter()
        logits = self.runner.step(batch)
        seconds = perf_counter() - started
        for share in shares:
            self.scheduler.commit(share.request, share.count)
        outputs: list[Output] = []
        accepted: dict[Request, int] = {}
        row = 0
        for request in drawing:
            draft = drafts.get(request, ())
            drawn = self._verify(request, draft, logits[row : row + 1 + len(draft)])
            accepted[request] = len(drawn) - 1
            outputs += drawn
            row += 1 + len(draft)
        if self._speculator is None:
            pass
        elif len(batch.rows) == len(batch.tokens):
            self._speculator.decoded(seconds, drafts, accepted)
        else:
            self._speculator.read(seconds)
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
        return {
            request: draft[: self.scheduler.stretch(request, 1 + len(draft)) - 1]
            for request, draft in drafts.items()
        }

    def _draft_limit(self, request: Request) -> int:
        """After how many guesses its end or the switch of its rope variant is certain to come."""
        end, switch = request.max_total - 1, self.config.rope_switch
        if switch is not None and request.variant == 0:
            end = min(end, switch)
        return end - len(request.tokens)

    def _batch(
        self, shares: Sequence[Share], drafts: Mapping[Request, Sequence[int]]
    ) -> tuple[StepBatch, list[Request]]:
        """The batch, and the requests whose logits it asks for, in order of its rows: one row, and
        one for each guess.
        """
        # Python is out of the caches after every step, so this keeps to few calls of numpy.
        lengths: list[int] = []
        starts: list[int] = []
        variants: list[int] = []
        tokens: list[int] = []
        rows: list[int] = []
        drawing: list[Request] = []
        for share in shares:
            request, draft = share.request, drafts.get(share.request, ())
            start, end = request.computed, request.computed + share.count
            lengths.append(share.count + len(draft))
            starts.append(start)
            variants.append(request.variant)
            tokens += request.tokens[start:end]
            if end == len(request.tokens):
                rows += range(len(tokens) - 1, len(tokens) + len(draft))
                drawing.append(request)
            tokens += draft
        facts = np.array((lengths, starts, variants), np.int32)
        batch = StepBatch(
            np.array(tokens, np.int32),
            facts[0],
            facts[1],
            block_tables([share.request.table for share in shares]),
            facts[2],
            np.array(rows, np.int32),
        )
        return batch, drawing

    def _verify(self, request: Request, draft: Sequence[int], logits: Floats) -> list[Output]:
        """Draws from the rows of a request as long as the guesses are what is drawn.

        The keys and values of a right guess are computed then; those of a wrong one, and of all
        after it, will be overwritten.
        """
        outputs = [self._draw(request, logits[0])]
        for i, guess in enumerate(draft, 1):
            if outputs[-1].finish_reason is not None or outputs[-1].token != guess:
                break
            self.scheduler.commit(request, 1)
            outputs.append(self._draw(request, logits[i]))
        if draft:
            request.drafted += len(draft)
            request.accepted += len(outputs) - 1
            self.scheduler.trim(request)
        return outputs

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
        if self._speculator is not None:
            self._speculator.forget(request)
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
