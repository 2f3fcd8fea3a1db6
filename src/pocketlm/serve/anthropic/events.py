"""An answer in Anthropic's shape: as events while it comes, or as one message.

A message is a list of blocks (thinking, text, tool_use); its stream opens each block, adds to it
and closes it. ``Events`` makes the stream; a whole message is what a client would build from it.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

from pocketlm.serve.answers import Content, Part, Reasoning, ToolCallStart
from pocketlm.serve.generation import Ended, Started

Event = dict[str, Any]


class Events:
    """The events of one answer, in order. Not thread-safe.

    Args:
        model: the name that the client asked for.
        started: of the answer.
        max_tokens: that were asked for; an answer that ends before them for want of room says so.
    """

    def __init__(self, model: str, started: Started, max_tokens: int) -> None:
        self._started = started
        self._max_tokens = max_tokens
        self._kind: str | None = None  # of the block that is open
        self._index = -1
        self._called = False
        self.message: Event = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(started.prompt_tokens, 0, 0),
        }

    def begin(self) -> list[Event]:
        """Before the first piece."""
        return [{"type": "message_start", "message": self.message}, {"type": "ping"}]

    def add(self, part: Part) -> list[Event]:
        """A part of the answer."""
        match part:
            case Reasoning(text):
                block = {"type": "thinking", "thinking": "", "signature": ""}
                return [*self._open(block), self._delta("thinking_delta", "thinking", text)]
            case Content(text):
                block = {"type": "text", "text": ""}
                return [*self._open(block), self._delta("text_delta", "text", text)]
            case ToolCallStart(_, name=name):
                self._called = True
                call = {"type": "tool_use", "id": _tool_id(), "name": name, "input": {}}
                return [*self._close(), *self._open(call)]
            case _:
                return [self._delta("input_json_delta", "partial_json", part.text)]

    def end(self, ended: Ended) -> list[Event]:
        """After the last part."""
        usage = _usage(ended.prompt_tokens, ended.cached_tokens, ended.completion_tokens)
        reason = self._stop_reason(ended)
        stop = ended.stop if reason == "stop_sequence" else None
        delta = {"stop_reason": reason, "stop_sequence": stop}
        return [
            *self._close(),
            {"type": "message_delta", "delta": delta, "usage": usage},
            {"type": "message_stop"},
        ]

    def _stop_reason(self, ended: Ended) -> str:
        if ended.reason == "length":
            whole = ended.completion_tokens >= self._max_tokens
            return "max_tokens" if whole else "model_context_window_exceeded"
        if self._called:
            return "tool_use"
        return "stop_sequence" if ended.stop is not None else "end_turn"

    def _open(self, block: Event) -> list[Event]:
        """Opens a block unless one of its kind is open."""
        if self._kind == block["type"]:
            return []
        closed = self._close()
        self._kind = block["type"]
        self._index += 1
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        return [*closed, start]

    def _close(self) -> list[Event]:
        if self._kind is None:
            return []
        # Clients expect a signature to end thinking. Nobody checks this one.
        signed = [self._delta("signature_delta", "signature", "")] * (self._kind == "thinking")
        self._kind = None
        return [*signed, {"type": "content_block_stop", "index": self._index}]

    def _delta(self, kind: str, field: str, text: str) -> Event:
        delta = {"type": kind, field: text}
        return {"type": "content_block_delta", "index": self._index, "delta": delta}


def whole_message(events: list[Event]) -> Event:
    """The message that a stream's events make."""
    message: Event = {}
    blocks: list[Event] = []
    arguments: dict[int, str] = {}
    for event in events:
        match event["type"]:
            case "message_start":
                message = dict(event["message"])
            case "content_block_start":
                blocks.append(dict(event["content_block"]))
            case "content_block_delta":
                delta, block = event["delta"], blocks[event["index"]]
                if delta["type"] == "input_json_delta":
                    seen = arguments.get(event["index"], "")
                    arguments[event["index"]] = seen + delta["partial_json"]
                else:
                    field = delta["type"].removesuffix("_delta")
                    block[field] += delta[field]
            case "message_delta":
                message |= {**event["delta"], "usage": event["usage"]}
    for index, text in arguments.items():
        blocks[index]["input"] = json.loads(text)
    return {**message, "content": blocks}


def _tool_id() -> str:
    return f"toolu_{secrets.token_hex(12)}"


def _usage(prompt: int, cached: int, output: int) -> Event:
    """Anthropic counts the tokens that were in memory apart from the others."""
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": output,
    }
