"""Modelfiles: what they say, what is refused, and that what is written is read as the same."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketlm.errors import RequestError, UnsupportedError
from pocketlm.store.modelfile import Modelfile, parse_modelfile, write_modelfile

WHOLE = '''\
# a comment
from smollm2:135m

PARAMETER temperature 0.2
parameter num_ctx 512
PARAMETER stop "User: "
PARAMETER stop <|im_end|>
PARAMETER use_mmap false
SYSTEM """
You are "brief".
Always.
"""
TEMPLATE "{{ messages }}"
MESSAGE user What is "it"?
MESSAGE assistant """Two
lines."""
LICENSE one
LICENSE """two
lines"""
REQUIRES 0.14.0
'''


def test_all_commands() -> None:
    assert parse_modelfile(WHOLE) == Modelfile(
        base="smollm2:135m",
        template="{{ messages }}",
        system='\nYou are "brief".\nAlways.\n',
        params={
            "temperature": 0.2,
            "num_ctx": 512,
            "stop": ["User: ", "<|im_end|>"],
            "use_mmap": False,
        },
        messages=(
            {"role": "user", "content": 'What is "it"?'},
            {"role": "assistant", "content": "Two\nlines."},
        ),
        licences=("one", "two\nlines"),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no FROM line"),
        ("SYSTEM hi", "no FROM line"),
        ("FROM", "no FROM line"),
        ("FROM a\nFRAM b", "line 2: command must be one of FROM"),
        ("FROM a\nPARAMETER temperature", "line 2: PARAMETER temperature has no value"),
        ("FROM a\nPARAMETER temperature hot", "line 2: invalid value for parameter temperature"),
        ("FROM a\nPARAMETER top_k 1.5", "invalid value"),
        ("FROM a\nPARAMETER use_mmap maybe", "invalid value"),
        ("FROM a\nPARAMETER warmth 1", "unknown parameter 'warmth'"),
        ("FROM a\nMESSAGE wizard hi", "line 2: the role is 'wizard'"),
        ('FROM a\nSYSTEM """never closed', 'line 2: the """ is not closed'),
        ("FROM a\n" + "#" * (5 << 20), "more than"),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        parse_modelfile(text)


def test_adapters_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="line 2: ADAPTER"):
        parse_modelfile("FROM a\nADAPTER ./lora.gguf")


texts = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters='"#'), min_size=1)


@given(system=texts, stops=st.lists(texts, min_size=1), temperature=st.floats(0, 2))
def test_what_is_written_is_read_as_the_same(
    system: str, stops: list[str], temperature: float
) -> None:
    params = {"stop": stops, "temperature": temperature}
    messages = [{"role": "user", "content": system + "\n" + system}]
    text = write_modelfile("a:b", system=system, params=params, messages=messages)
    read = parse_modelfile(text)
    assert (read.base, read.system, read.params) == ("a:b", system, params)
    assert list(read.messages) == messages


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(RequestError, UnsupportedError):
        parse_modelfile("FROM a\n" + text)
