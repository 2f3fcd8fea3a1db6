"""An answer as the items of a response, and the events that tell of them.

A response is a list of items: thinking, a message, calls of functions. Its stream opens an item,
adds to it and closes it; the whole response is what stands at the end.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from pocketlm.serve.answers import Content, Part, Reasoning, ToolCallArguments, ToolCallStart
from pocketlm.serve.generation import Ended, Scored
from pocketlm.serve.openai.logprobs import chat_logprobs
from pocketlm.serve.openai.responses_request import ResponsesBody

Event = dict[str, Any]


class ResponseEvents:
    """The events of one response, in order. Not thread-safe.

    Attributes:
        response: as it stands.
    """

    def __init__(self, body: ResponsesBody, model: str) -> None:
        self._number = 0
        self._item: Event | None = None  # the one that is open
        self._best = (body.top_logprobs or 0) if body.scored else None
        self._scores: list[Any] = []
        self.response = _response(body, model)

    def begin(self) -> list[Event]:
        """Before the first part."""
        return [
            self._event("response.created", response={**self.response}),
            self._event("response.in_progress", response={**self.response}),
        ]

    def score(self, scores: tuple[Scored, ...] | None) -> None:
        """The log-probabilities of the tokens that the next text is made of."""
        if self._best is not None and scores:
            self._scores += chat_logprobs(scores, self._best)["content"]

    def add(self, part: Part) -> list[Event]:
        """A part of the answer."""
        match part:
            case Content(text):
                return [*self._open("message"), self._text("output_text", text)]
            case Reasoning(text):
                self._scores.clear()
                return [*self._open("reasoning"), self._text("reasoning_text", text)]
            case ToolCallStart(_, id=id, name=name):
                closed = self._close()
                self._item = {
                    "id": f"fc_{secrets.token_hex(12)}",
                    "type": "function_call",
                    "status": "in_progress",
                    "call_id": id,
                    "name": name,
                    "arguments": "",
                }
                return [*closed, self._added()]
            case ToolCallArguments(_, text):
                assert self._item is not None, "arguments without a call"
                self._item["arguments"] += text
                return [self._at("response.function_call_arguments.delta", delta=text)]

    def end(self, ended: Ended, thought: int) -> list[Event]:
        """After the last part. ``thought``: tokens of the thinking."""
        whole = ended.reason != "length"
        closed = self._close("completed" if whole else "incomplete")
        self.response |= {
            "status": "completed" if whole else "incomplete",
            "completed_at": int(time.time()) if whole else None,
            "incomplete_details": None if whole else {"reason": "max_output_tokens"},
            "usage": {
                "input_tokens": ended.prompt_tokens,
                "input_tokens_details": {
                    "cached_tokens": ended.cached_tokens,
                    "cache_write_tokens": 0,
                },
                "output_tokens": ended.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": thought},
                "total_tokens": ended.prompt_tokens + ended.completion_tokens,
            },
        }
        kind = "response.completed" if whole else "response.incomplete"
        return [*closed, self._event(kind, response=self.response)]

    def fail(self, message: str) -> list[Event]:
        """The answer cannot go on."""
        self.response |= {
            "status": "failed",
            "error": {"code": "server_error", "message": message},
        }
        return [self._event("response.failed", response=self.response)]

    # Items

    def _open(self, kind: str) -> list[Event]:
        """Opens an item unless one of its kind is open."""
        if self._item is not None and self._item["type"] == kind:
            return []
        closed = self._close()
        if kind == "message":
            part: Event = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            more: Event = {"role": "assistant"}
        else:
            part, more = {"type": "reasoning_text", "text": ""}, {"summary": []}
        prefix = "msg" if kind == "message" else "rs"
        self._item = {
            "id": f"{prefix}_{secrets.token_hex(12)}",
            "type": kind,
            "status": "in_progress",
            **more,
            "content": [],
        }
        added = self._added()
        self._item["content"].append(part)
        opened = self._at("response.content_part.added", content_index=0, part={**part})
        return [*closed, added, opened]

    def _added(self) -> Event:
        """The item that was opened joins the response; the event shows it as it is now."""
        item = self._item
        assert item is not None
        self.response["output"] = [*self.response["output"], item]
        shown = {**item, "content": []} if "content" in item else {**item}
        return self._event("response.output_item.added", output_index=self._index(), item=shown)

    def _text(self, kind: str, text: str) -> Event:
        assert self._item is not None
        part = self._item["content"][0]
        part["text"] += text
        more: Event = {}
        if kind == "output_text":
            more["logprobs"], self._scores = self._scores, []
            part["logprobs"] += more["logprobs"]
        return self._at(f"response.{kind}.delta", content_index=0, delta=text, **more)

    def _close(self, status: str = "completed") -> list[Event]:
        """Closes the item that is open."""
        item = self._item
        if item is None:
            return []
        item["status"] = status
        if item["type"] == "function_call":
            done = "response.function_call_arguments.done"
            events = [self._at(done, name=item["name"], arguments=item["arguments"])]
        else:
            part = item["content"][0]
            more = {"logprobs": part["logprobs"]} if "logprobs" in part else {}
            done = f"response.{part['type']}.done"
            events = [
                self._at(done, content_index=0, text=part["text"], **more),
                self._at("response.content_part.done", content_index=0, part=part),
            ]
        index = self._index()
        self._item = None
        return [
            *events,
            self._event("response.output_item.done", output_index=index, item=item),
        ]

    def _index(self) -> int:
        return len(self.response["output"]) - 1

    def _at(self, kind: str, **fields: Any) -> Event:
        """An event of the item that is open."""
        assert self._item is not None
        return self._event(kind, item_id=self._item["id"], output_index=self._index(), **fields)

    def _event(self, kind: str, **fields: Any) -> Event:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **fields}


def _response(body: ResponsesBody, model: str) -> Event:
    """The response before anything is known of the answer."""
    form = (body.text and body.text.format) or {"type": "text"}
    return {
        "id": f"resp_{secrets.token_hex(16)}",
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "model": model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
        "store": False,
        "temperature": body.temperature,
        "text": {"format": form},
        "tool_choice": body.tool_choice or "auto",
        "tools": body.tools or [],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": body.top_p,
        "truncation": body.truncation or "disabled",
        "usage": None,
        "user": body.user,
        "metadata": body.metadata or {},
    }
