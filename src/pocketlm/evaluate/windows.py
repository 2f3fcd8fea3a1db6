"""Cutting a text's tokens into the windows that a model reads, and saying which tokens count.

Two conventions of the field. Without a stride: consecutive windows, of which only the second half
counts, so that every counted token has half a window before it (llama.cpp's llama-perplexity).
With a stride: overlapping windows, of which each counts the tokens that none before it had, so that
every token counts once (the strided perplexity of Hugging Face's guide).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pocketlm.errors import RequestError

Ints = NDArray[np.int32]
SMALLEST = 4  # tokens: what counts in a window of fewer would have nothing before it


@dataclass(frozen=True)
class Window:
    """One sequence that the model reads from position 0 on.

    Attributes:
        tokens: (T,) ids.
        first: the first row that counts. Row i is what the model says after tokens[: i + 1], about
            tokens[i + 1]; rows first … T - 2 count.
    """

    tokens: Ints
    first: int

    @property
    def count(self) -> int:
        """How many tokens are scored."""
        return len(self.tokens) - 1 - self.first


def windows(tokens: Sequence[int] | Ints, context: int, *, bos: int | None) -> Ints:
    """Consecutive windows (n, context); a shorter rest is dropped.

    tokens: a text's ids, with or without ``bos`` at their head. bos: the id that begins a text
    where the model adds one, else None. With it every window begins with bos *in place of* the
    token that stood there, as llama-perplexity does, so windows are at multiples of context in
    [bos, *text].
    """
    if context < SMALLEST:
        raise RequestError(f"the context is {context}, expected at least {SMALLEST} tokens")
    stream = _stream(tokens, bos)
    count = len(stream) // context
    cut = stream[: count * context].reshape(count, context).copy()
    if bos is not None:
        cut[:, 0] = bos
    return cut


def plan(
    tokens: Sequence[int] | Ints, context: int, *, bos: int | None, stride: int | None = None
) -> list[Window]:
    """The windows of a text and what counts in each; arguments as ``windows``.

    stride: None is the first convention, rows context // 2 … context - 2 of each whole window
    count. A number is the second one: a window begins at each multiple of it, and the last window
    may be shorter than the context.

    Raises RequestError for a text with too few tokens, or a stride outside 1 … context - 1.
    """
    if stride is None:
        cut = windows(tokens, context, bos=bos)
        if not len(cut):
            _too_short(len(_stream(tokens, bos)), context)
        return [Window(row, context // 2) for row in cut]
    if context < SMALLEST:
        raise RequestError(f"the context is {context}, expected at least {SMALLEST} tokens")
    if not 1 <= stride < context:
        raise RequestError(f"the stride is {stride}, expected 1 to {context - 1} (below --context)")
    stream = _stream(tokens, bos)
    if len(stream) < 2:
        _too_short(len(stream), 2)
    return _overlapping(stream, context, stride, bos)


def _overlapping(stream: Ints, context: int, stride: int, bos: int | None) -> list[Window]:
    found: list[Window] = []
    scored = 1  # tokens of the stream that are scored, or cannot be: nothing comes before the first
    for start in range(0, len(stream), stride):
        part = stream[start : start + context].copy()
        if bos is not None:
            part[0] = bos
        found.append(Window(part, scored - start - 1))
        scored = start + len(part)
        if scored == len(stream):
            break
    return found


def _stream(tokens: Sequence[int] | Ints, bos: int | None) -> Ints:
    ids = np.asarray(tokens, np.int32)
    if bos is not None and (not len(ids) or ids[0] != bos):
        ids = np.concatenate([np.array([bos], np.int32), ids])
    return ids


def _too_short(found: int, wanted: int) -> None:
    raise RequestError(
        f"the text has {found:,} tokens, but a window of the context needs {wanted:,}",
        hint="Give a longer text or a smaller context.",
    )
