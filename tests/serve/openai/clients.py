"""What the tests of the OpenAI API ask with."""

from __future__ import annotations

import functools
from typing import Any

import httpx
import openai

USER: Any = {"role": "user", "content": "Hi"}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'


@functools.cache
def client(url: str) -> openai.OpenAI:
    """One for all tests, which ``conftest`` closes."""
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=10)


def post(url: str, path: str, body: Any, **headers: str) -> httpx.Response:
    """A request as it goes over the wire; bytes are sent as they are."""
    named = {"Content-Type": "application/json", **headers}
    if isinstance(body, bytes):
        return httpx.post(url + path, content=body, headers=named)
    return httpx.post(url + path, json=body, headers=headers)
