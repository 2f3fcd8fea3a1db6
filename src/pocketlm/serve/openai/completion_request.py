"""The body of ``POST /v1/completions``, and what it asks of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from pocketlm.errors import RequestError
from pocketlm.serve.answers import format_constraint
from pocketlm.serve.generation import FillPrompt, Generation, ModelFacts, TextPrompt, TokenPrompt
from pocketlm.serve.openai.asking import for_choice, sampling_options
from pocketlm.serve.openai.bodies import MOST_CHOICES, Id, SamplingBody

MOST_ANSWERS = 256
# OpenAI's, which clients of this route count on.
_DEFAULT_TOKENS = 16

Tokens = Annotated[list[Id], Field(min_length=1)]
Prompts = (
    str
    | Tokens
    | Annotated[list[str], Field(min_length=1, max_length=MOST_ANSWERS)]
    | Annotated[list[Tokens], Field(min_length=1, max_length=MOST_ANSWERS)]
)


class CompletionBody(SamplingBody):
    """Texts to continue."""

    prompt: Prompts
    suffix: str | None = None
    max_tokens: int | None = Field(default=None, ge=0, le=2**31 - 1)
    echo: bool | None = False
    logprobs: int | None = Field(default=None, ge=0, le=100)
    best_of: int | None = Field(default=None, ge=1, le=MOST_CHOICES)
    add_special_tokens: bool = True

    @model_validator(mode="after")
    def _agree_on_answers(self) -> Self:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError("best_of other than n is not supported: answers are not ranked")
        if self.max_tokens == 0 and not self.echo and self.prompt_logprobs is None:
            raise ValueError("max_tokens 0 needs echo or prompt_logprobs, or nothing is left")
        if self.suffix and self.echo:
            raise ValueError("suffix and echo do not go together")
        return self


@dataclass(frozen=True)
class AskedText:
    """One prompt of a body.

    Attributes:
        generations: one for each choice.
        text: the prompt as it was given; None for token ids.
    """

    generations: tuple[Generation, ...]
    text: str | None


def prompts_of(prompt: Prompts) -> list[str | list[int]]:
    """The prompts of a request, be it one or several."""
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt[0], int):
        return [prompt]
    return [*prompt]


def ask_completion(facts: ModelFacts, body: CompletionBody) -> list[AskedText]:
    """Raises RequestError for what makes no sense, or that this model cannot do."""
    prompts = prompts_of(body.prompt)
    choices = body.n or 1
    if len(prompts) * choices > MOST_ANSWERS:
        raise RequestError(
            f"{len(prompts):,} prompts with n {choices} are {len(prompts) * choices:,} answers, "
            f"at most {MOST_ANSWERS} can be"
        )
    if body.suffix and "insert" not in facts.capabilities:
        raise RequestError(
            f"{facts.name} cannot fill gaps: it has no fill-in-the-middle tokens",
            hint="Leave out suffix.",
        )
    form = format_constraint(
        body.response_format,
        body.structured_outputs,
        guided_json=body.guided_json,
        guided_regex=body.guided_regex,
        guided_choice=body.guided_choice,
        guided_grammar=body.guided_grammar,
    )
    limit = _DEFAULT_TOKENS if body.max_tokens is None else max(1, body.max_tokens)
    options = sampling_options(body, facts, limit, body.logprobs)
    scored = body.logprobs if body.echo else None
    if body.prompt_logprobs is not None:
        scored = max(body.prompt_logprobs, scored or 0)
    return [
        AskedText(
            tuple(
                Generation(
                    prompt=_prompt(facts, body, prompt),
                    options=for_choice(options, choice),
                    constraint=form,
                    context=body.num_ctx,
                    overflow="truncate" if body.truncate else "error",
                    keep_special=not body.skip_special_tokens,
                    prompt_logprobs=scored,
                )
                for choice in range(choices)
            ),
            prompt if isinstance(prompt, str) else None,
        )
        for prompt in prompts
    ]


def _prompt(facts: ModelFacts, body: CompletionBody, prompt: str | list[int]) -> Any:
    if not isinstance(prompt, str):
        if body.suffix:
            raise RequestError("suffix needs a prompt that is a text")
        if max(prompt) >= facts.vocab:
            raise RequestError(
                f"prompt has the token {max(prompt):,}, the model has {facts.vocab:,}"
            )
        return TokenPrompt(tokens=prompt)
    if body.suffix:
        return FillPrompt(prefix=prompt, suffix=body.suffix)
    return TextPrompt(text=prompt, add_special=body.add_special_tokens)
