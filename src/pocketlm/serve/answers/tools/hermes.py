"""``<tool_call>`` JSON ``</tool_call>``: Qwen2.5, Qwen3, SmolLM2, SmolLM3, Hermes and many more.

Source: the chat templates of Qwen2.5 and Qwen3, one object in each pair of tags; SmolLM2 was taught
a list in one pair. Models that forget the tags write the object alone or as a block of code.
"""

from __future__ import annotations

from functools import partial

from pocketlm.serve.answers.calls import json_calls, may_be_json_calls
from pocketlm.serve.answers.tools.format import Fence, ToolFormat

_TEACH = """You have access to these functions:
<tools>
{tools}
</tools>
To call one, answer only with its name and its arguments as JSON:
<tool_call>
{{"name": "function's name", "arguments": {{"argument": "value"}}}}
</tool_call>
If none of them helps, answer in words."""

HERMES = ToolFormat(
    fences=(
        Fence("<tool_call>", "</tool_call>", json_calls),
        Fence("```json", "```", partial(json_calls, complete=True), may_be_json_calls),
    ),
    bare=may_be_json_calls,
    read_bare=partial(json_calls, complete=True),
    open_call=("<tool_call>", "\n"),
    close_call=("\n", "</tool_call>"),
    lazy="<tool_call>",
    teach=_TEACH,
)
