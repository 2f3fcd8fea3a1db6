"""The shipped calibration text: there, readable, of the promised size, and accounted for."""

from __future__ import annotations

import re
from importlib import resources

import pytest

FOLDER = resources.files("pocketlm.quantize") / "calibration"
NAMES = sorted(file.name for file in FOLDER.iterdir() if file.name.endswith(".txt"))


def _text(name: str) -> str:
    return (FOLDER / name).read_bytes().decode("utf-8")


def test_size_is_what_the_documentation_promises() -> None:
    assert 250_000 <= sum(len((FOLDER / name).read_bytes()) for name in NAMES) <= 320_000


@pytest.mark.parametrize("name", NAMES)
def test_each_file_is_clean_utf8(name: str) -> None:
    text = _text(name)
    assert text.endswith("\n")
    assert not re.search("[\r\0\ufffd\ufeff]", text)
    assert "PROJECT GUTENBERG" not in text.upper()


def test_readme_lists_every_file_with_a_licence_and_nothing_else() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(.+?\.txt)` \|.*\| (Apache-2\.0|public domain) \|$", readme, re.M)
    assert [name for name, _ in rows] == NAMES


def test_no_long_paragraph_stands_twice() -> None:
    paragraphs = [p for name in NAMES for p in _text(name).split("\n\n") if len(p) > 80]
    assert len(paragraphs) == len(set(paragraphs))


def test_many_scripts_are_covered() -> None:
    text = "".join(map(_text, NAMES))
    for letters in ("äß", "éç", "ñ", "łż", "жщ", "的是", "のは", "한다", "ال", "है", "ğş", "αω"):
        assert all(letter in text for letter in letters), letters
