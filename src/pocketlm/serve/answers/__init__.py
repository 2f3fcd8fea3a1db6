"""Between the APIs and the text of answers: what is asked of them, and what they say.

An API turns its request into words that the model's family knows (``tool_conversation``,
``thinking_variables``) and into a ``Constraint`` (``tool_constraint``, ``format_constraint``), and
reads the answer's pieces through an ``AnswerReader``.
"""

from __future__ import annotations

from pocketlm.serve.answers.conversation import tool_conversation
from pocketlm.serve.answers.functions import Function, check_schema, read_functions
from pocketlm.serve.answers.parts import (
    Content,
    Part,
    Reasoning,
    ToolCallArguments,
    ToolCallStart,
)
from pocketlm.serve.answers.reader import AnswerReader, reads_special
from pocketlm.serve.answers.structured import format_constraint, ollama_format
from pocketlm.serve.answers.thinking import after_thinking, can_think, thinking_variables
from pocketlm.serve.answers.tool_choice import tool_constraint

__all__ = [
    "AnswerReader",
    "Content",
    "Function",
    "Part",
    "Reasoning",
    "ToolCallArguments",
    "ToolCallStart",
    "after_thinking",
    "can_think",
    "check_schema",
    "format_constraint",
    "ollama_format",
    "read_functions",
    "reads_special",
    "thinking_variables",
    "tool_constraint",
    "tool_conversation",
]
