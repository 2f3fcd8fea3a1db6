"""Tool calls out of an answer that comes in pieces.

Text is content until a mark of the format (``ToolFormat.fences``) stands in it, unless it begins
like a call without a mark. What may become a mark or a call is held back; what turns out to be none
is content after all, whole.
"""

from __future__ import annotations

from pocketlm.serve.answers.calls import Calls
from pocketlm.serve.answers.parts import (
    Content,
    ToolCallArguments,
    ToolCallStart,
    call_id,
    held_back,
)
from pocketlm.serve.answers.tools import Fence, ToolFormat

Found = Content | ToolCallStart | ToolCallArguments

# By so many characters it is decided whether a text may be calls.
_DECIDED = 256


class ToolReader:
    """Splits content into text and calls. Not thread-safe.

    White space beside calls belongs to the format and is left out. A call is given out when it is
    complete, so that it is never half of one.
    """

    def __init__(self, form: ToolFormat) -> None:
        self._format = form
        self._held = ""
        self._bare = True  # the content has not begun, or may be calls without a mark
        self._fence: Fence | None = None
        self._opening = ""  # the mark that was seen, with the white space before it
        self._strings = _Strings()
        self._searched = 0  # characters of the held text that hold no end of the fence
        self._calls = 0
        self._after_call = False  # nothing has come since the last call

    def push(self, text: str) -> list[Found]:
        """Takes more of the content; gives what is certain."""
        found: list[Found] = []
        self._held += text
        if self._bare:
            if self._format.bare(self._held[:_DECIDED]):
                return found
            self._bare = False
        while self._inside(found) if self._fence else self._outside(found):
            pass
        return found

    def finish(self) -> list[Found]:
        """The answer has ended: what was held back."""
        found: list[Found] = []
        held, self._held = self._held, ""
        if self._bare and held.strip():
            self._give(found, self._format.read_bare(held), held)
        elif self._fence is not None:
            self._give(found, self._fence.read(held), self._opening + held)
        else:
            self._content(found, held)
        self._fence, self._bare = None, False
        return found

    def _outside(self, found: list[Found]) -> bool:
        """Gives text up to the next mark; whether there is one."""
        held = self._held
        marks = [(held.find(f.opens), -len(f.opens), f) for f in self._format.fences]
        marks = [mark for mark in marks if mark[0] >= 0]
        if marks:
            at, size, fence = min(marks, key=lambda mark: mark[:2])
            text = held[:at].rstrip()
            self._content(found, text)
            self._opening = held[len(text) : at - size]
            self._fence, self._held, self._searched = fence, held[at - size :], 0
            self._strings = _Strings()
            return True
        certain = len(held) - max(held_back(held, f.opens) for f in self._format.fences)
        text = held[:certain].rstrip()
        self._content(found, text)
        self._held = held[len(text) :]
        return False

    def _inside(self, found: list[Found]) -> bool:
        """Gives calls if the fence's end is there; whether there may be more."""
        fence, held = self._fence, self._held
        assert fence is not None
        if not fence.possible(held[:_DECIDED]):
            self._content(found, self._opening)
            self._fence = None
            return True
        if fence.closes is None:
            return False
        at = held.find(fence.closes, self._searched)
        while at >= 0 and self._strings.within(held, at):
            at = held.find(fence.closes, at + 1)
        if at < 0:
            self._searched = max(len(held) - len(fence.closes), 0)
            return False
        end = at + len(fence.closes)
        self._give(found, fence.read(held[:at]), self._opening + held[:end])
        self._fence, self._held = None, held[end:]
        return True

    def _give(self, found: list[Found], read: Calls | None, text: str) -> None:
        """Gives calls that were read with what stood behind them, else the text as content."""
        if read is None:
            self._content(found, text)
            return
        calls, rest = read
        for call in calls:
            found.append(ToolCallStart(self._calls, call_id(), call.name))
            found.append(ToolCallArguments(self._calls, call.arguments))
            self._calls += 1
        self._after_call = True
        self._content(found, rest.rstrip())

    def _content(self, found: list[Found], text: str) -> None:
        text = text.lstrip() if self._after_call else text
        if text:
            found.append(Content(text))
            self._after_call = False


class _Strings:
    """Where the strings of a growing JSON text are; each character is looked at once."""

    def __init__(self) -> None:
        self._seen = 0
        self._inside = self._escaped = False

    def within(self, text: str, at: int) -> bool:
        """Whether a place of the text, none before those asked for, is within a string."""
        for char in text[self._seen : at]:
            if self._escaped:
                self._escaped = False
            elif self._inside and char == "\\":
                self._escaped = True
            elif char == '"':
                self._inside = not self._inside
        self._seen = at
        return self._inside
