from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketlm.errors import RequestError
from pocketlm.text import StreamDecoder, Tokenizer

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SMALL = st.text("abc ", max_size=40)


def stream(decoder: StreamDecoder, ids: list[int]) -> list[str]:
    return [*(decoder.push(i) for i in ids), decoder.finish()]


@given(ids=st.lists(st.integers(0, 280)))
def test_a_stream_is_the_decoded_text(
    tokenizer: Tokenizer, llama2: Tokenizer, ids: list[int]
) -> None:
    """Any ids, also those whose bytes are not UTF-8."""
    for one in (tokenizer, llama2):
        for skip in (True, False):
            decoder = StreamDecoder(one, skip_special=skip)
            assert "".join(stream(decoder, ids)) == one.decode(ids, skip_special=skip)


@given(text=TEXT)
def test_no_piece_has_half_a_character(tokenizer: Tokenizer, text: str) -> None:
    """One byte a token: every split of every character."""
    ids = [i for char in text.encode() for i in [next_id(tokenizer, char)]]
    pieces = stream(StreamDecoder(tokenizer), ids)
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces) or "\ufffd" in text
    assert pieces[-1] == ""


def next_id(tokenizer: Tokenizer, byte: int) -> int:
    return next(i for i in range(256) if tokenizer.token_bytes(i) == bytes([byte]))


def test_an_unfinished_character_shows_at_the_end_only(tokenizer: Tokenizer) -> None:
    half = [next_id(tokenizer, byte) for byte in "é".encode()[:1]]
    assert stream(StreamDecoder(tokenizer), half) == ["", "\ufffd"]


def cut_at_stop(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The definition: the first end of any stop string; of those ending there, the longest."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(text=SMALL, stops=st.lists(st.text("abc ", min_size=1, max_size=5), max_size=3))
def test_stop_strings_equal_a_naive_search(
    tokenizer: Tokenizer, text: str, stops: list[str]
) -> None:
    decoder = StreamDecoder(tokenizer, stops)
    expected, stop = cut_at_stop(text, stops)
    assert "".join(stream(decoder, tokenizer.encode(text))) == expected
    assert decoder.stopped == stop


@given(text=SMALL, stop=st.text("abc ", min_size=1, max_size=5))
def test_text_comes_as_soon_as_it_is_certain(tokenizer: Tokenizer, text: str, stop: str) -> None:
    decoder = StreamDecoder(tokenizer, [stop])
    seen = given_out = ""
    for char in text:
        given_out += decoder.push(tokenizer.encode(char)[0])
        seen += char
        if decoder.stopped:
            break
        held = max((n for n in range(len(stop)) if seen.endswith(stop[:n])), default=0)
        assert given_out == seen[: len(seen) - held]


def test_a_stop_string_may_span_tokens(tokenizer: Tokenizer) -> None:
    decoder = StreamDecoder(tokenizer, ["END"])
    assert [decoder.push(i) for i in tokenizer.encode("xENENDy")] == [
        "x", "", "", "EN", "", "", "",
    ]  # fmt: skip
    assert decoder.stopped == "END"
    assert decoder.finish() == ""


def test_what_was_held_back_comes_at_the_end(tokenizer: Tokenizer) -> None:
    assert stream(StreamDecoder(tokenizer, ["END"]), tokenizer.encode("xEN")) == [
        "x", "", "", "EN",
    ]  # fmt: skip


def test_the_first_sentencepiece_space(llama2: Tokenizer) -> None:
    ids = llama2.encode("hi a")
    assert stream(StreamDecoder(llama2), ids) == ["hi", " a", ""]
    assert stream(StreamDecoder(llama2, continuation=True), ids) == [" hi", " a", ""]


def test_control_tokens_are_skipped_or_shown(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a<|im_end|>", parse_special=True)
    assert stream(StreamDecoder(tokenizer), ids) == ["a", "", ""]
    assert stream(StreamDecoder(tokenizer, skip_special=False), ids) == ["a", "<|im_end|>", ""]


@pytest.mark.parametrize("stop", [[""], [1], [None]])
def test_bad_stop_strings(tokenizer: Tokenizer, stop: list[str]) -> None:
    with pytest.raises(RequestError, match="non-empty string"):
        StreamDecoder(tokenizer, stop)


def test_one_stop_string_needs_no_list(tokenizer: Tokenizer) -> None:
    decoder = StreamDecoder(tokenizer, "bc")
    assert "".join(stream(decoder, tokenizer.encode("abcd"))) == "a"


def test_work_per_token_does_not_grow(tokenizer: Tokenizer) -> None:
    """A stop string that almost matches all the time: linear, so this takes well under a second."""
    decoder = StreamDecoder(tokenizer, ["a" * 5000 + "b"])
    ids = tokenizer.encode("a") * 50_000
    assert "".join(stream(decoder, ids)) == "a" * 50_000


def test_stop_strings_are_looked_for_after_min_tokens(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("b c b c b c")
    decoder = StreamDecoder(tokenizer, ["b", "c"], min_tokens=3)
    shown = "".join(stream(decoder, ids))
    assert shown == tokenizer.decode(ids[:3]) + " "
    assert decoder.stopped == ("c" if shown == "b c b " else "b")
    exact = StreamDecoder(tokenizer, ["c"], min_tokens=len(ids))
    assert "".join(stream(exact, ids)) == "b c b c b c"
