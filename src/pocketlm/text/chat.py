"""Messages to token ids, such that what users write cannot steer.

The prompt must be tokenized as one text (a word may run across the border of a message), and
control tokens that the *template* wrote must be read as such, those that a *user* wrote must not.
The text alone does not say who wrote what. So:

1. If no string of the conversation holds a control token's text, or a piece that could be completed
   to one by its neighbours, the rendered prompt is encoded as it is: what transformers does.
2. Otherwise the template is run with a noncharacter put around every character of those dangerous
   places. A control token in the marked prompt is then whole only if the template wrote it alone.
   The marks are taken out, and the text between the template's control tokens is encoded as plain
   text.

A template that looks at the marked place (compares or cuts there) may render another text when
marked; the conversation is then still safe, but that text is the marked one's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pocketlm.errors import RequestError
from pocketlm.text.messages import check_messages, plain_data
from pocketlm.text.template import ChatTemplate
from pocketlm.text.tokenizer import Tokenizer

#: Unicode's noncharacters: never part of a text that is meant for others.
_NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]

# Keys whose values are words of the format, compared by templates: only whole control tokens
# are marked there, not parts of one ("text" is a part of "<|endoftext|>").
_FORMAT_KEYS = frozenset({"role", "type"})


def encode_chat(
    tokenizer: Tokenizer,
    template: ChatTemplate,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    **kwargs: Any,
) -> list[int]:
    """The ids of the rendered conversation; arguments and errors as `ChatTemplate.render`.

    No BOS is added: the template writes it, as transformers has it.
    """
    data = {
        "messages": check_messages(messages),
        "tools": plain_data(tools),
        "documents": plain_data(documents),
        "variables": plain_data(kwargs),
    }

    def render(given: dict[str, Any]) -> str:
        return template.render(
            given["messages"],
            tools=given["tools"],
            documents=given["documents"],
            add_generation_prompt=add_generation_prompt,
            **given["variables"],
        )

    edges = _TokenEdges(tokenizer)
    dangerous = any(edges.places(text, key) for key, text in _strings(data))
    if not dangerous:
        return tokenizer.encode(render(data), parse_special=True)
    mark = _unused_mark(data)
    marked = render(_map_strings(data, lambda text, key: _marked(text, edges, key, mark)))
    return _encode_marked(tokenizer, marked, mark)


class _TokenEdges:
    """Finds the places of a text that are, or could become, part of a control token."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._find = tokenizer.find_special
        self._texts = tokenizer.special_texts
        self._longest = max(map(len, self._texts), default=0)
        self._heads, self._tails = tokenizer.special_edges

    def places(self, text: str, key: str) -> list[tuple[int, int]]:
        """Ranges of `text`: whole control tokens, and beginnings or ends of one at its borders."""
        found = [(start, end) for start, end, _ in self._find(text)]
        if key in _FORMAT_KEYS or not text:
            return found
        size = len(text)
        longest = self._longest
        if size < longest and any(text in token for token in self._texts):
            return [(0, size)]
        for length in range(min(size, longest), 0, -1):
            if text[size - length :] in self._heads:
                found.append((size - length, size))
                break
        for length in range(min(size, longest), 0, -1):
            if text[:length] in self._tails:
                found.append((0, length))
                break
        return found


def _marked(text: str, edges: _TokenEdges, key: str, mark: str) -> str:
    at = {i for start, end in edges.places(text, key) for i in range(start, end)}
    if not at:
        return text
    return "".join(f"{mark}{char}{mark}" if i in at else char for i, char in enumerate(text))


def _encode_marked(tokenizer: Tokenizer, marked: str, mark: str) -> list[int]:
    pieces: list[str | int] = []
    start = 0
    for begin, end, token_id in tokenizer.find_special(marked):
        # A token of one character has no inside for a mark to be in: look at its sides.
        if end - begin == 1 and marked[begin - 1 : begin] == mark == marked[end : end + 1]:
            continue
        pieces += [_unmarked(marked[start:begin], mark), token_id]
        start = end
    pieces.append(_unmarked(marked[start:], mark))
    return tokenizer.encode_pieces([piece for piece in pieces if piece != ""])


def _unmarked(text: str, mark: str) -> str:
    """`text` without marks, also those that a template's JSON has escaped."""
    return text.replace(mark, "").replace(_escaped(mark), "")


def _escaped(mark: str) -> str:
    return f"\\u{ord(mark):04x}"


def _unused_mark(data: object) -> str:
    """A noncharacter that no string of the conversation holds."""
    texts = [text for _, text in _strings(data)]
    for mark in _NONCHARACTERS:
        if not any(mark in text or _escaped(mark) in text for text in texts):
            return mark
    raise RequestError("the conversation uses every Unicode noncharacter U+FDD0 to U+FDEF")


def _strings(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string in `value` with the key it stands under; keys stand under "type"."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield "type", name
            yield from _strings(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, key)


def _map_strings(value: Any, change: Callable[[str, str], str], key: str = "") -> Any:
    if isinstance(value, str):
        return change(value, key)
    if isinstance(value, dict):
        return {
            change(name, "type"): _map_strings(item, change, name) for name, item in value.items()
        }
    if isinstance(value, list):
        return [_map_strings(item, change, key) for item in value]
    return value
