"""From a body to what is asked of a model: its options, and what of it changed nothing.

Nothing is left out in silence: a field that is not known is listed in a header of the response, and
refused where the server is strict or the request has the header ``X-PocketLM-Strict: 1``. A field
that is known from other servers, would change the answer and is not done here is always refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request
from pydantic import BaseModel

from pocketlm.errors import NotFoundError, RequestError
from pocketlm.serve.generation import ModelFacts, ServedModel
from pocketlm.serve.openai.bodies import Body, SamplingBody
from pocketlm.serve.openai.models import model_names
from pocketlm.serve.replies import asks_strict, ignored_header
from pocketlm.serve.services import Services

_SAME_NAMES = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "min_tokens",
)

# Fields that would change the answer, and the values that ask for nothing.
_REFUSED: Mapping[str, tuple[Any, ...]] = {
    "use_beam_search": (False,),
    "length_penalty": (1, 1.0),
    "truncate_prompt_tokens": (),
    "allowed_token_ids": (),
    "bad_words": ([],),
    "logprob_token_ids": (),
    "prompt_embeds": (),
    "thinking_token_budget": (),
    "chat_template": (),
    "documents": ([],),
    "functions": ([],),
    "function_call": ("none",),
    "audio": (),
    "modalities": (["text"],),
    "web_search_options": (),
    "add_generation_prompt": (True,),
    "echo": (False,),
    "suffix": ("",),
    "background": (False,),
    "conversation": (),
    "previous_response_id": (),
    "prompt": (),
}
_INSTEAD = {
    "functions": "Use tools.",
    "function_call": "Use tool_choice.",
    "truncate_prompt_tokens": "truncate: true leaves out the oldest tokens.",
    "allowed_token_ids": "Use structured_outputs.",
    "previous_response_id": "Nothing is stored here: send the whole conversation as input.",
    "conversation": "Nothing is stored here: send the whole conversation as input.",
    "add_generation_prompt": "continue_final_message: true continues the last message.",
}


def headers(
    services: Services, request: Request, body: Body, *, without_effect: Sequence[str] = ()
) -> dict[str, str]:
    """The headers that every response to ``body`` has.

    Args:
        without_effect: fields that are known but do nothing for this model.

    Raises:
        RequestError: a field is refused, or unknown and the request is strict.
    """
    names = [*unknown_fields(body), *without_effect]
    return ignored_header(names, strict=asks_strict(request) or services.config.strict)


def unknown_fields(body: BaseModel, where: str = "") -> list[str]:
    """The fields of a body, and of those within it, that are none of ours. Null asks for nothing.

    Raises:
        RequestError: one of them is refused.
    """
    found = []
    for name, value in (body.model_extra or {}).items():
        if value is None:
            continue
        if not where and name in _REFUSED:
            if not any(value == harmless for harmless in _REFUSED[name]):
                raise RequestError(f"{name} is not supported here", hint=_INSTEAD.get(name))
            continue
        found.append(where + name)
    for name in body.model_fields_set - set(body.model_extra or {}):
        value = getattr(body, name)
        if isinstance(value, BaseModel):
            found += unknown_fields(value, f"{where}{name}.")
    return found


@asynccontextmanager
async def use(
    services: Services, name: str | None, *, keep_alive: float | None = None
) -> AsyncIterator[ServedModel]:
    """The model that a request names; without a name the first that is served.

    Raises:
        NotFoundError: with the names that there are.
    """
    entered = False
    try:
        asked = name or _first(services)
        async with services.fleet.use(asked, keep_alive=keep_alive) as model:
            entered = True
            yield model
    except NotFoundError as error:
        if entered:
            raise
        names = await model_names(services)
        there = f"There are: {', '.join(names[:20])}." if names else "There is none yet."
        raise NotFoundError(error.message, hint=there) from error


def _first(services: Services) -> str:
    if services.config.models:
        return services.config.models[0]
    for model in services.fleet.loaded():
        return model.facts.name
    raise RequestError(
        "model is missing, and no model is loaded", hint="GET /v1/models lists those there are."
    )


def sampling_options(
    body: SamplingBody, facts: ModelFacts, max_tokens: int | None, logprobs: int | None
) -> dict[str, Any]:
    """The sampler's options of a request, by the names of ``engine.sampling``.

    Raises:
        RequestError: ``logit_bias`` names a token that the model does not have.
    """
    options = {name: getattr(body, name) for name in _SAME_NAMES}
    if body.top_k is not None:
        options["top_k"] = 0 if body.top_k == -1 else body.top_k  # vLLM's "all of them"
    if body.seed is not None:
        options["seed"] = body.seed % 2**64
    if body.stop:
        options["stop"] = [body.stop] if isinstance(body.stop, str) else body.stop
    options["stop_ids"] = body.stop_token_ids or None
    options["ignore_eos"] = body.ignore_eos or None
    options["max_tokens"] = max_tokens
    options["logprobs"] = logprobs
    if body.logit_bias:
        bias = {int(token): value for token, value in body.logit_bias.items()}
        if max(bias) >= facts.vocab:
            raise RequestError(f"logit_bias names token {max(bias)}, the model has {facts.vocab:,}")
        options["logit_bias"] = bias
    return {name: value for name, value in options.items() if value is not None}


def for_choice(options: Mapping[str, Any], choice: int) -> dict[str, Any]:
    """The options of one choice of several: each has a seed of its own."""
    if choice == 0 or "seed" not in options:
        return dict(options)
    return {**options, "seed": (options["seed"] + choice) % 2**64}
