"""What there is to know about a format of tool calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass

from pocketlm.serve.answers.calls import Calls


@dataclass(frozen=True, slots=True)
class Fence:
    """A mark before calls.

    Attributes:
        opens: the text that begins them, anywhere in an answer.
        closes: the text that ends them; None is the end of the answer.
        read: the calls between; None where it is something else.
        possible: whether a text that begins like this may still be calls.
    """

    opens: str
    closes: str | None
    read: Callable[[str], Calls | None]
    possible: Callable[[str], bool] = lambda text: True


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How a family writes calls, and how it can be made to.

    Attributes:
        fences: marks before calls.
        bare: whether a text that begins like this, at the beginning of the answer, may be calls
            without a mark. read_bare: those calls.
        before, after, between: around the calls of one answer in a grammar, and between two;
            texts, of which those that are control tokens are written as such.
        open_call, close_call: around each call.
        call: the text of one with {name} in quotes already and {arguments} for the object.
        lists_calls: whether several calls can be in one answer.
        lazy: the mark after which a call is certain; None where there is none.
        teach: what a model whose template does not know tools is told; {tools} is a JSON list.
    """

    fences: tuple[Fence, ...]
    bare: Callable[[str], bool]
    read_bare: Callable[[str], Calls | None]
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    open_call: tuple[str, ...] = ()
    close_call: tuple[str, ...] = ()
    between: str = "\n"
    call: str = '{{"name": {name}, "arguments": {arguments}}}'
    lists_calls: bool = True
    lazy: str | None = None
    teach: str = ""

    @property
    def marks(self) -> frozenset[str]:
        """Texts that may be control tokens of the model."""
        fences = {text for fence in self.fences for text in (fence.opens, fence.closes) if text}
        return frozenset({*self.before, *self.after, *self.open_call, *self.close_call, *fences})


def lark_text(text: str, special: Collection[str]) -> str:
    """A text in a lark grammar: a control token by its name, others in quotes."""
    return text if text in special else json.dumps(text, ensure_ascii=False)
