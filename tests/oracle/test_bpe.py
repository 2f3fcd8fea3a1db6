"""Merging in the core against the `tokenizers` library, on vocabularies and words drawn at random.

A few letters and many merges make ties, stale candidates and merges over what was merged before.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from tokenizers import models

from pocketlm import _native
from pocketlm.convert.implied_merges import implied_merges

pytestmark = pytest.mark.oracle

LETTERS = "abcé▁"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def vocabulary(draw: random.Random) -> list[str]:
    tokens = ["<unk>", "<s>", *LETTERS]
    while len(tokens) < 40:
        joined = "".join(draw.sample(tokens[2:], 2))
        if joined not in tokens:
            tokens.append(joined)
    return tokens


def words(draw: random.Random) -> list[str]:
    return ["".join(draw.choices(LETTERS + "xß", k=draw.randrange(1, 40))) for _ in range(30)]


def theirs(
    tokens: list[str], merges: list[tuple[str, str]], texts: list[str], **options: Any
) -> list[int]:
    model = models.BPE({token: i for i, token in enumerate(tokens)}, merges, **options)
    return [token.id for text in texts for token in model.tokenize(text)]


@pytest.mark.parametrize("seed", range(20))
def test_given_merges(seed: int) -> None:
    draw = random.Random(seed)
    tokens = vocabulary(draw)
    merges = implied_merges(tokens, None, set())
    draw.shuffle(merges)
    merges = merges[: draw.randrange(1, len(merges) + 1)]
    lines = [" ".join(pair) for pair in merges]
    nobody = np.zeros(0, np.int32)
    for ignore in (False, True):
        bpe = _native.Bpe(tokens, nobody, lines, None, ignore, False, -1)
        texts = [*words(draw), *tokens]
        assert bpe.encode(texts) == theirs(tokens, merges, texts, ignore_merges=ignore)


@pytest.mark.parametrize("fallback", [False, True])
@pytest.mark.parametrize("by_score", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_implied_merges(seed: int, by_score: bool, fallback: bool) -> None:
    draw = random.Random(seed)
    tokens = [*vocabulary(draw), *(BYTES if fallback else [])]
    scores = [float(draw.randrange(12)) for _ in tokens] if by_score else None  # many are equal
    order = None
    if scores is not None:
        order = np.unique(-np.array(scores), return_inverse=True)[1].astype(np.uint32)
    control = {1, draw.randrange(7, 40)}
    ids = np.array(sorted(control), np.int32)
    bpe = _native.Bpe(tokens, ids, None, order, False, fallback, 0)
    texts = words(draw)
    merges = implied_merges(tokens, scores, control)
    expected = theirs(
        tokens, merges, texts, unk_token="<unk>", fuse_unk=True, byte_fallback=fallback
    )
    found = bpe.encode(texts)
    assert found == expected
    assert not control & set(found)


def test_texts_are_found_leftmost_then_longest() -> None:
    finder = _native.TokenFinder(["ab", "abc", "b", "é<", "<"])
    assert finder.find("xabcbé<<ab") == [
        (1, 4, 1),
        (4, 5, 2),
        (5, 7, 3),
        (7, 8, 4),
        (8, 10, 0),
    ]
    assert finder.find("") == []
    assert _native.TokenFinder([]).find("abc") == []
