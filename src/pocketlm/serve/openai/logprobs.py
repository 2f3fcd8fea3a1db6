"""Log-probabilities in the two shapes that OpenAI has: of chat, and of plain completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pocketlm.serve.generation import Scored, TokenScore


def chat_logprobs(scores: Sequence[Scored], best: int) -> dict[str, Any]:
    """``logprobs`` of a chat's choice: for each token itself and the ``best`` ones."""
    content = [
        {**_token(one.chosen), "top_logprobs": [_token(other) for other in one.best[:best]]}
        for one in scores
    ]
    return {"content": content, "refusal": None}


def _token(score: TokenScore) -> dict[str, Any]:
    return {
        "token": score.data.decode(errors="replace"),
        "logprob": score.logprob,
        "bytes": list(score.data),
    }


class CompletionLogprobs:
    """``logprobs`` of a plain completion's choice, written as its tokens come.

    Each token has the best ones by their text, and itself if it is none of them. A token that is
    part of a character is written as ``bytes:\\xe2\\x82``.

    Args:
        best: how many.
        offset: characters before the first token.
    """

    def __init__(self, best: int, offset: int = 0) -> None:
        self._best = best
        self._offset = offset

    def add(self, scores: Sequence[Scored]) -> dict[str, list[Any]]:
        """The record of the next tokens."""
        record = _empty()
        for one in scores:
            text = token_text(one.chosen.data)
            best: dict[str, float] = {}
            for other in (*one.best[: self._best], one.chosen):
                best.setdefault(token_text(other.data), other.logprob)
            self._put(record, text, len(one.chosen.data.decode(errors="ignore")))
            record["token_logprobs"].append(one.chosen.logprob)
            record["top_logprobs"].append(best)
        return record

    def first(self, data: bytes, *, shown: bool) -> dict[str, list[Any]]:
        """The record of a prompt's first token, which nothing precedes.

        shown: whether it is part of the prompt's text; a BOS before it is not.
        """
        record = _empty()
        self._put(record, token_text(data), len(data.decode(errors="ignore")) if shown else 0)
        record["token_logprobs"].append(None)
        record["top_logprobs"].append(None)
        return record

    def _put(self, record: dict[str, list[Any]], text: str, length: int) -> None:
        record["tokens"].append(text)
        record["text_offset"].append(self._offset)
        self._offset += length


def joined(records: Sequence[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """One record of several."""
    whole = _empty()
    for record in records:
        for name, values in record.items():
            whole[name] += values
    return whole


def token_text(data: bytes) -> str:
    """A token as text."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _empty() -> dict[str, list[Any]]:
    return {"text_offset": [], "token_logprobs": [], "tokens": [], "top_logprobs": []}
