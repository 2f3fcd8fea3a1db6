"""``{"name": …, "parameters": …}``: Llama 3.1, 3.2 and 3.3, with or without ``<|python_tag|>``.

Source: the models' chat template and Meta's page on prompt formats. The template takes one call in
a message; models may write several with `;` between them.
"""

from __future__ import annotations

from functools import partial

from pocketlm.serve.answers.calls import json_calls, may_be_json_calls
from pocketlm.serve.answers.tools.format import Fence, ToolFormat

_TEACH = """You have access to these functions:
{tools}
To call one, answer only with JSON of this form:
{{"name": "function's name", "parameters": {{"argument": "value"}}}}
If none of them helps, answer in words."""

LLAMA3 = ToolFormat(
    fences=(
        Fence("<|python_tag|>", None, json_calls),
        Fence("```json", "```", partial(json_calls, complete=True), may_be_json_calls),
    ),
    bare=may_be_json_calls,
    read_bare=partial(json_calls, complete=True),
    call='{{"name": {name}, "parameters": {arguments}}}',
    lists_calls=False,
    teach=_TEACH,
)
