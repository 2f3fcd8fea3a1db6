"""Names of file types: what they stand for, and what is said of one that is unknown."""

from __future__ import annotations

import gguf as gguf_py
import pytest

from pocketlm.errors import RequestError
from pocketlm.gguf import BlockType
from pocketlm.quantize.file_types import FILE_TYPES, file_type, writable_type


@pytest.mark.parametrize("name", sorted(FILE_TYPES))
def test_ids_are_llama_cpp_s(name: str) -> None:
    theirs = "ALL_F32" if name == "F32" else f"MOSTLY_{name}"
    assert FILE_TYPES[name].id == gguf_py.LlamaFileType[theirs]


def test_names_in_any_case_and_short() -> None:
    assert file_type("q4_k_m") is FILE_TYPES["Q4_K_M"]
    assert file_type("Q4_K") is FILE_TYPES["Q4_K_M"]
    assert file_type("bf16").type is BlockType.BF16
    assert writable_type("q6_k") is BlockType.Q6_K


@pytest.mark.parametrize("name", ["Q4_K_X", "q4km", "", "IQ4_XS"])
def test_unknown_names_say_what_there_is(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        file_type(name)
    assert "Q4_K_M" in str(caught.value)
    with pytest.raises(RequestError, match="block type"):
        writable_type(name)


def test_a_typing_error_names_the_closest() -> None:
    with pytest.raises(RequestError) as caught:
        file_type("Q5_K_MM")
    assert "Did you mean Q5_K_M?" in str(caught.value)
