"""Gemma 3: no tokens of its own for calls; it writes what its prompt asks for.

Source: ai.google.dev, "Function calling with Gemma": a JSON object with "name" and "parameters", or
a Python list of calls; Google's cookbook asks for Python in a ``tool_code`` block. PocketLM asks
for JSON and reads all three.
"""

from __future__ import annotations

from functools import partial

from pocketlm.serve.answers.calls import (
    Calls,
    json_calls,
    may_be_json_calls,
    may_be_python_calls,
    python_calls,
)
from pocketlm.serve.answers.tools.format import Fence, ToolFormat

_TEACH = """You have access to these functions:
{tools}
To call one, answer only with JSON of this form, nothing before or after it:
{{"name": "function's name", "parameters": {{"argument": "value"}}}}
Several calls are a JSON list of such objects. If none of them helps, answer in words."""


def _either(text: str) -> Calls | None:
    return json_calls(text, complete=True) or python_calls(text)


GEMMA3 = ToolFormat(
    fences=(
        Fence("```tool_code", "```", _either),
        Fence("```json", "```", partial(json_calls, complete=True), may_be_json_calls),
    ),
    bare=lambda text: may_be_json_calls(text) or may_be_python_calls(text),
    read_bare=_either,
    before=("[",),
    after=("]",),
    between=", ",
    call='{{"name": {name}, "parameters": {arguments}}}',
    teach=_TEACH,
)
