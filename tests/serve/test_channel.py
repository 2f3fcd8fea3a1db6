"""Frames of the channel: whole again however they were cut, and bounded."""

from __future__ import annotations

import struct

import pytest

from pocketlm.errors import RequestError
from pocketlm.serve import channel
from pocketlm.serve.channel import Frames, frame

MESSAGES = [{"a": 1}, [], "text", {"deep": {"list": [1.5, None, True]}}, {"ü": "\ud800 half"}]


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 1000])
def test_messages_come_whole_however_their_bytes_are_cut(cut: int) -> None:
    data = b"".join(map(frame, MESSAGES))
    frames, found = Frames(), []
    for start in range(0, len(data), cut):
        found += frames.feed(data[start : start + cut])
    assert found == MESSAGES


def test_a_length_is_not_believed_beyond_the_bound() -> None:
    with pytest.raises(ValueError, match="at most"):
        list(Frames().feed(struct.pack("!I", channel.MOST_BYTES + 1)))


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        list(Frames().feed(struct.pack("!I", 3) + b"abc"))


def test_too_long_too_deep_or_strange_requests_are_the_callers_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RequestError, match="deeply"):
        frame(deep)
    with pytest.raises(RequestError, match="no JSON"):
        frame({"what": object()})
    monkeypatch.setattr(channel, "MOST_BYTES", 10)
    with pytest.raises(RequestError, match="at most 10"):
        frame("x" * 20)


def test_sets_become_lists() -> None:
    (found,) = Frames().feed(frame({"ids": frozenset({3})}))
    assert found == {"ids": [3]}
