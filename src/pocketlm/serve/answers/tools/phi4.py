"""``<|tool_call|>`` JSON list ``<|/tool_call|>``: Phi-4-mini, also written ``functools[…]``.

Source: the model card and vocabulary of Phi-4-mini-instruct. Its template puts functions that stand
under "tools" of the system message between ``<|tool|>`` and ``<|/tool|>``. The word ``functools``
comes from the prompt that other servers give the model.
"""

from __future__ import annotations

from functools import partial

from pocketlm.serve.answers.calls import Calls, json_calls, may_be_json_calls
from pocketlm.serve.answers.tools.format import Fence, ToolFormat


def _listed(text: str) -> Calls | None:
    return json_calls("[" + text)


PHI4 = ToolFormat(
    fences=(
        Fence("<|tool_call|>", "<|/tool_call|>", json_calls),
        Fence("functools[", None, _listed),
        Fence("```json", "```", partial(json_calls, complete=True), may_be_json_calls),
    ),
    bare=may_be_json_calls,
    read_bare=partial(json_calls, complete=True),
    before=("<|tool_call|>", "["),
    after=("]", "<|/tool_call|>"),
    between=", ",
    lazy="<|tool_call|>",
)
