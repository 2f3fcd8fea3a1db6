"""The text of an answer, read: thinking, content and tool calls apart."""

from __future__ import annotations

from pocketlm.serve.answers.parts import Content, Part
from pocketlm.serve.answers.thinking import CLOSE, OPEN, ThinkingSplitter, thinking_open
from pocketlm.serve.answers.tool_reader import ToolReader
from pocketlm.serve.answers.tools import tool_format
from pocketlm.serve.generation import ModelFacts, Started


class AnswerReader:
    """Splits an answer as it comes. Not thread-safe.

        reader = AnswerReader(model.facts, answer.started, tools=True, reasoning=True)
        async for piece in answer:
            for part in reader.push(piece.text): ...
        for part in reader.finish(): ...

    Args:
        facts: of the model, which tell how its family writes calls.
        started: of the answer; its prompt's end tells whether the model is thinking already.
        tools: whether calls are looked for; only if the request named functions.
        reasoning: whether thinking is told apart; else it is content, tags included.

    However the text is cut into pieces, the parts' texts are the same. Nothing is lost but the tags
    and the white space beside them.
    """

    def __init__(
        self, facts: ModelFacts, started: Started, *, tools: bool, reasoning: bool
    ) -> None:
        opened = thinking_open(started.prompt_tail)
        self._thinking = ThinkingSplitter(opened=opened) if reasoning else None
        self._tools = ToolReader(tool_format(facts)) if tools else None

    def push(self, text: str) -> list[Part]:
        """Takes more of the answer; gives the parts that are certain."""
        if self._thinking is None:
            return self._read(Content(text)) if text else []
        return [part for split in self._thinking.push(text) for part in self._read(split)]

    def finish(self) -> list[Part]:
        """The answer has ended: what was held back."""
        parts: list[Part] = []
        if self._thinking is not None:
            parts += [part for split in self._thinking.finish() for part in self._read(split)]
        if self._tools is not None:
            parts += self._tools.finish()
        return parts

    def _read(self, part: Part) -> list[Part]:
        if self._tools is None or not isinstance(part, Content):
            return [part]
        return [*self._tools.push(part.text)]


def reads_special(facts: ModelFacts, tools: bool) -> bool:
    """Whether the answer must come with its control tokens (``Generation.keep_special``).

    So it is where the model writes thinking tags, or the marks of calls, as control tokens.
    """
    marks = {OPEN, CLOSE} | (tool_format(facts).marks if tools else frozenset())
    return any(mark in facts.special_texts for mark in marks)
