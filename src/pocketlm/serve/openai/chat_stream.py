"""The stream of ``POST /v1/chat/completions``: chunks of one or several choices."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from pocketlm.serve.answers import Content, Part, Reasoning, ToolCallArguments, ToolCallStart
from pocketlm.serve.generation import Answer, Ended, ModelFacts, Piece
from pocketlm.serve.openai.answering import pieces_of, prompt_scores, reading, usage
from pocketlm.serve.openai.chat_request import AskedChat, ChatBody
from pocketlm.serve.openai.chunks import TextChunk
from pocketlm.serve.openai.logprobs import chat_logprobs
from pocketlm.serve.replies import sse_event


class ChatStream:
    """Writes the chunks of answers.

    Args:
        head: what all chunks have in common: id, object, created, model.
    """

    def __init__(
        self,
        head: dict[str, Any],
        facts: ModelFacts,
        body: ChatBody,
        asked: AskedChat,
        answers: Sequence[Answer],
    ) -> None:
        options = body.stream_options
        self._head = head
        self._body = body
        self._answers = answers
        self._usage = options is not None and options.include_usage
        self._running = options is not None and options.continuous_usage_stats
        self._readings = [
            reading(
                facts,
                answer,
                tools=asked.tools,
                reasoning=asked.reasoning,
                keep_stop=body.include_stop_str_in_output,
            )
            for answer in answers
        ]
        self._tokens = [0] * len(answers)
        self._endings: list[Ended | None] = [None] * len(answers)
        # Where chunks hold nothing but text they are written from a pattern.
        plain = not self._running and body.best is None and not body.return_token_ids
        self._text_chunks = [
            TextChunk(self._chunk(i, {"content": TextChunk.HERE})) if plain else None
            for i in range(len(answers))
        ]

    async def events(self) -> AsyncGenerator[bytes, None]:
        """All events but the last, ``[DONE]``."""
        for index in range(len(self._answers)):
            yield sse_event(self._opening(index))
        async for index, piece in pieces_of(self._answers):
            if piece is not None:
                for chunk in self._piece(index, piece):
                    yield chunk
            else:
                for chunk in self._end(index):
                    yield chunk
        if self._usage:
            yield sse_event({**self._head, "choices": [], "usage": self._total()})

    def _opening(self, index: int) -> dict[str, Any]:
        chunk = self._chunk(index, {"role": "assistant", "content": ""})
        if index == 0 and self._body.return_token_ids:
            chunk["prompt_token_ids"] = list(self._answers[0].started.prompt_ids)
        if index == 0 and self._body.prompt_logprobs is not None:
            chunk["prompt_logprobs"] = prompt_scores(self._answers[0].started.prompt_scores)
        return chunk

    def _piece(self, index: int, piece: Piece) -> list[bytes]:
        self._tokens[index] += len(piece.tokens)
        parts = self._readings[index].push(piece)
        pattern = self._text_chunks[index]
        if pattern is not None:
            return [
                pattern.event(part.text)
                if isinstance(part, Content)
                else sse_event(self._chunk(index, delta))
                for part in parts
                if (delta := self._delta(part)) is not None
            ]
        deltas = self._deltas(parts)
        if not deltas and (piece.scores or (self._body.return_token_ids and piece.tokens)):
            deltas = [{}]
        chunks = [self._chunk(index, delta) for delta in deltas]
        if chunks:
            self._add_tokens(chunks[0], piece)
        return [sse_event(chunk) for chunk in chunks]

    def _add_tokens(self, chunk: dict[str, Any], piece: Piece) -> None:
        choice = chunk["choices"][0]
        if self._body.best is not None and piece.scores:
            choice["logprobs"] = chat_logprobs(piece.scores, self._body.best)
        if self._body.return_token_ids:
            choice["token_ids"] = list(piece.tokens)

    def _end(self, index: int) -> list[bytes]:
        ended, read = self._answers[index].ended, self._readings[index]
        assert ended is not None, "an answer without an end"
        self._endings[index] = ended
        self._tokens[index] = ended.completion_tokens
        chunks = [self._chunk(index, delta) for delta in self._deltas(read.finish(ended))]
        last = self._chunk(index, {}, read.finish_reason(ended))
        last["choices"][0]["stop_reason"] = ended.stop
        return [sse_event(chunk) for chunk in (*chunks, last)]

    def _deltas(self, parts: list[Part]) -> list[dict[str, Any]]:
        return [delta for part in parts if (delta := self._delta(part)) is not None]

    def _delta(self, part: Part) -> dict[str, Any] | None:
        """OpenAI's ``delta``; None for thinking that is not wanted."""
        match part:
            case Content(text):
                return {"content": text}
            case Reasoning(text):
                wanted = self._body.include_reasoning
                return {"reasoning_content": text, "reasoning": text} if wanted else None
            case ToolCallStart(index, id=id, name=name):
                function = {"name": name, "arguments": ""}
                call = {"index": index, "id": id, "type": "function", "function": function}
                return {"tool_calls": [call]}
            case ToolCallArguments(index, text):
                return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}

    def _chunk(
        self, index: int, delta: dict[str, Any], finish: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk: dict[str, Any] = {**self._head, "choices": [choice]}
        if self._running:
            chunk["usage"] = self._total()
        elif self._usage:
            chunk["usage"] = None
        return chunk

    def _total(self) -> dict[str, Any]:
        """What has been used up to now."""
        endings = []
        for i, answer in enumerate(self._answers):
            ended = self._endings[i] or Ended(
                reason="stop",
                prompt_tokens=answer.started.prompt_tokens,
                completion_tokens=self._tokens[i],
            )
            endings.append((ended, self._readings[i].reasoning_tokens))
        return usage(endings, choices=len(endings))
