"""What happens when a prompt and its answer are longer than the context; never anything silent.

| on_overflow | prompt + max_tokens > context                                                     |
|-------------|-----------------------------------------------------------------------------------|
| "error"     | ContextError with the numbers, before anything is computed                       |
| "stop"      | max_tokens becomes what is left, so the answer ends with "length" at the end of   |
|             | the context; a prompt that leaves no room for one token is still an error         |
| "truncate"  | the oldest prompt tokens are left out (but for ``keep`` at the head, such as BOS) |
|             | until the answer fits; without max_tokens that is a quarter of the context        |

Without max_tokens an answer may take whatever the context has left, so only a prompt can overflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pocketlm.errors import ContextError, RequestError

Overflow = Literal["error", "stop", "truncate"]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits: ``max_total`` counts prompt and answer, ``dropped`` what was left out."""

    prompt: Sequence[int]
    max_total: int
    dropped: int = 0


def context_limit(asked: int | None, context: int) -> int:
    """The positions that a request may take of an engine's ``context``; None asks for all.

    Raises RequestError for less than one, ContextError for more than there are.
    """
    if asked is None:
        return context
    if asked < 1:
        raise RequestError(f"the context asked for is {asked}, expected at least 1")
    if asked > context:
        raise ContextError(
            f"a context of {asked:,} positions was asked for, but the model runs with {context:,}",
            hint="Load the model with a larger context, or ask for less.",
        )
    return asked


def fit(
    prompt: Sequence[int],
    max_tokens: int | None,
    context: int,
    on_overflow: Overflow = "error",
    *,
    keep: int = 0,
) -> Fitted:
    """The prompt and the length limit for a context of ``context`` positions, by the table above.

    Raises ContextError where the policy does not allow it to fit.
    """
    if on_overflow not in get_args(Overflow):
        wanted = ", ".join(get_args(Overflow))
        raise RequestError(f"on_overflow is {on_overflow!r}, expected one of {wanted}")
    used = len(prompt)
    if used + (max_tokens or 1) <= context:
        return Fitted(prompt, used + max_tokens if max_tokens else context)
    if on_overflow == "stop" and used < context:
        return Fitted(prompt, context)
    if on_overflow == "truncate":
        room = context - (max_tokens or max(1, context // 4))
        if room > keep:
            kept = [*prompt[:keep], *prompt[used - (room - keep) :]]
            return Fitted(kept, context, dropped=used - room)
    answer = (
        f" and max_tokens is {max_tokens:,}: {used + max_tokens:,} positions" if max_tokens else ""
    )
    raise ContextError(
        f"the prompt has {used:,} tokens{answer}, but the context has {context:,}",
        hint="Shorten the prompt, lower max_tokens, load the model with a larger context, "
        'or choose on_overflow "stop" or "truncate".',
    )
