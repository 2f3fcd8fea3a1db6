"""An answer as Ollama's clients read it: lines with some text, and a last one with the cost."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pocketlm.serve.answers import AnswerReader, Content, Part, Reasoning, ToolCallStart
from pocketlm.serve.generation import Answer, Ended, ModelFacts, Scored, TokenScore
from pocketlm.serve.ollama.asked import Asked

Line = dict[str, Any]


@dataclass
class Delta:
    """What is new in an answer. ``calls`` are whole."""

    content: str = ""
    thinking: str = ""
    calls: list[Line] = field(default_factory=list)
    scores: list[Line] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.content or self.thinking or self.calls)

    def add(self, other: Delta) -> None:
        """Takes what comes after."""
        self.content += other.content
        self.thinking += other.thinking
        self.calls += other.calls
        self.scores += other.scores


Shape = Callable[[Delta], Line]


def chat_line(delta: Delta) -> Line:
    """The fields of ``/api/chat``."""
    message: Line = {"role": "assistant", "content": delta.content}
    if delta.thinking:
        message["thinking"] = delta.thinking
    if delta.calls:
        message["tool_calls"] = delta.calls
    return {"message": message, **({"logprobs": delta.scores} if delta.scores else {})}


def generate_line(delta: Delta) -> Line:
    """The fields of ``/api/generate``."""
    line: Line = {"response": delta.content}
    if delta.thinking:
        line["thinking"] = delta.thinking
    if delta.calls:
        line["tool_calls"] = delta.calls
    return {**line, **({"logprobs": delta.scores} if delta.scores else {})}


def head(model: str) -> Line:
    """What every line begins with."""
    now = datetime.now(UTC)
    return {"model": model, "created_at": now.isoformat(timespec="microseconds")[:-6] + "Z"}


async def deltas(answer: Answer, facts: ModelFacts, asked: Asked) -> AsyncGenerator[Delta, None]:
    """What an answer brings, piece by piece; the last may be empty but for scores."""
    reader = AnswerReader(facts, answer.started, tools=asked.tools, reasoning=asked.thinking)
    calls = _Calls()
    delta = Delta()
    async for piece in answer:
        delta.scores += [_score_line(one) for one in piece.scores or ()]
        _read(reader.push(piece.text), calls, delta)
        if delta:
            yield delta
            delta = Delta()
    _read(reader.finish(), calls, delta)
    calls.finish(delta)
    yield delta


def end_line(ended: Ended | None, *, total_s: float, load_s: float) -> Line:
    """How the answer ended and what it cost; times in nanoseconds."""
    assert ended is not None, "an answer that was read to its end has one"
    return {
        "done": True,
        "done_reason": "length" if ended.reason == "length" else "stop",
        "total_duration": _ns(total_s),
        "load_duration": _ns(load_s),
        "prompt_eval_count": ended.prompt_tokens,
        "prompt_eval_duration": _ns(ended.prefill_s),
        "eval_count": ended.completion_tokens,
        "eval_duration": _ns(ended.decode_s),
    }


def nothing_line(model: str, shape: Shape, reason: str) -> Line:
    """The answer to a request that only loads or unloads."""
    return {**head(model), **shape(Delta()), "done": True, "done_reason": reason}


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


@dataclass
class _Calls:
    """Calls that come in parts, given out whole."""

    count: int = 0
    _id: str = ""
    _name: str | None = None
    _arguments: str = ""

    def take(self, part: Part, delta: Delta) -> None:
        if isinstance(part, ToolCallStart):
            self.finish(delta)
            self._id, self._name, self._arguments = part.id, part.name, ""
        else:
            self._arguments += part.text

    def finish(self, delta: Delta) -> None:
        """The call under way is whole. One that was cut off stays text: nothing is made up."""
        if self._name is None:
            return
        try:
            arguments = json.loads(self._arguments or "{}")
        except ValueError:
            delta.content += f"{self._name}({self._arguments}"
        else:
            function = {"index": self.count, "name": self._name, "arguments": arguments}
            delta.calls.append({"id": self._id, "function": function})
            self.count += 1
        self._name = None


def _read(parts: Sequence[Part], calls: _Calls, delta: Delta) -> None:
    for part in parts:
        if isinstance(part, Content | Reasoning):
            calls.finish(delta)
        if isinstance(part, Content):
            delta.content += part.text
        elif isinstance(part, Reasoning):
            delta.thinking += part.text
        else:
            calls.take(part, delta)


def _score_line(scored: Scored) -> Line:
    best = [_token_line(one) for one in scored.best]
    return {**_token_line(scored.chosen), **({"top_logprobs": best} if best else {})}


def _token_line(score: TokenScore) -> Mapping[str, Any]:
    text = score.data.decode(errors="replace")
    return {"token": text, "logprob": score.logprob, "bytes": list(score.data)}
