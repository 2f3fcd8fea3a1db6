"""From a request's options to the sampler that draws its tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pocketlm._native import Sampler
from pocketlm.engine.sampling import SamplingParams
from pocketlm.errors import RequestError


def check_prompt_logprobs(best: int | None) -> int | None:
    """How many best tokens to give for each of a prompt. Raises RequestError out of 0 to 100."""
    if best is not None and (isinstance(best, bool) or not 0 <= best <= 100):
        raise RequestError(f"prompt_logprobs is {best!r}, expected an integer in [0, 100]")
    return best


def sampler_for(
    params: SamplingParams, vocab: int, *, prompt: Sequence[int], stop_ids: frozenset[int]
) -> Sampler:
    """A sampler over ``vocab`` tokens that has seen the prompt.

    stop_ids: what ends the answer, the model's own end-of-turn tokens included.
    Raises RequestError for a bias on an id outside the vocabulary.
    """
    for token in params.logit_bias or ():
        if token >= vocab:
            raise RequestError(
                f"logit_bias has token id {token}, the vocabulary has {vocab:,} tokens"
            )
    sampler = Sampler(
        vocab,
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
        min_tokens=params.min_tokens,
        ends=[token for token in stop_ids if token < vocab],
    )
    sampler.observe(np.asarray(prompt, np.int32), False)
    return sampler
