"""How the families write tool calls: one file for each format.

A model's format is chosen from its facts: what its template writes and which control tokens it has.
A family that is not known is taken for one that writes ``<tool_call>``, the most common format.
"""

from __future__ import annotations

from pocketlm.serve.answers.tools.format import Fence, ToolFormat
from pocketlm.serve.answers.tools.gemma3 import GEMMA3
from pocketlm.serve.answers.tools.hermes import HERMES
from pocketlm.serve.answers.tools.llama3 import LLAMA3
from pocketlm.serve.answers.tools.phi4 import PHI4
from pocketlm.serve.generation import ModelFacts

__all__ = ["Fence", "ToolFormat", "tool_format"]


def tool_format(facts: ModelFacts) -> ToolFormat:
    """The format that a model's calls have."""
    template = facts.template or ""
    known = {*facts.special_texts}
    if "<tool_call>" in template:
        return HERMES
    if "<|python_tag|>" in known or "<|python_tag|>" in template:
        return LLAMA3
    if "<|tool_call|>" in known or "<|tool|>" in known or "<|tool|>" in template:
        return PHI4
    if facts.family.startswith("gemma"):
        return GEMMA3
    return HERMES
