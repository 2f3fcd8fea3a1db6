"""The merges that a SentencePiece vocabulary implies, written out for a tokenizer.json.

The engine needs no list of them: it joins two tokens and looks the text up (`native/text`). This is
the same rule as a list, in the order of transformers' `generate_merges`.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from operator import itemgetter


def implied_merges(
    tokens: Sequence[str], scores: Sequence[float] | None, control: Set[int]
) -> list[tuple[str, str]]:
    """Every way to cut a token into two tokens, best first. Control tokens are not built.

    With scores by the token's score, highest first, then by the longer left and the longer right
    half; without by the token's id, shorter left half first.
    """
    known = dict(zip(tokens, tokens, strict=True))  # so that halves are the tokens' own strings
    cuts = [
        (0.0 if scores is None else scores[i], cut, len(token) - cut, left, right)
        for i, token in enumerate(tokens)
        if i not in control
        for cut in range(1, len(token))
        if (left := known.get(token[:cut])) and (right := known.get(token[cut:]))
    ]
    if scores is not None:
        cuts.sort(key=itemgetter(0, 1, 2), reverse=True)
    return [(left, right) for _, _, _, left, right in cuts]
