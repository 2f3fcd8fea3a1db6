"""Question files: what a line may be, and that a bad one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketlm.errors import NotFoundError, RequestError
from pocketlm.evaluate.questions import Question, read_questions


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "task.jsonl"


def test_answers_by_index_and_by_text(path: Path) -> None:
    path.write_text(
        '{"question": "Q1", "choices": ["a", "b"], "answer": 1}\n'
        "\n"
        '{"question": "Q2", "choices": ["1", "0"], "answer": "1", "id": 7}\r\n'
        '{"context": "C", "question": "Größe?", "choices": ["ü", "b", "c"], "answer": "b"}',
        encoding="utf-8",
    )
    assert read_questions(path) == [
        Question("Q1", ("a", "b"), 1, "line 1"),
        Question("Q2", ("1", "0"), 0, "7"),
        Question("C\nGröße?", ("ü", "b", "c"), 1, "line 4"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a JSON object"),
        ('{"question": "q", "choices": ["a", "b"]}', "answer is null"),
        ('{"question": "q", "choices": ["a", "b"], "answer": 2}', "from 0 to 1"),
        ('{"question": "q", "choices": ["a", "b"], "answer": -1}', "answer is -1"),
        ('{"question": "q", "choices": ["a", "b"], "answer": true}', "answer is true"),
        ('{"question": "q", "choices": ["a", "b"], "answer": "ä"}', 'answer is "ä"'),
        ('{"question": "q", "choices": ["a"], "answer": 0}', "1 choices"),
        ('{"question": "q", "choices": ["a", "a"], "answer": 0}', "different"),
        ('{"question": "q", "choices": ["a", " "], "answer": 0}', "not empty"),
        ('{"question": "q", "choices": ["a", 1], "answer": 0}', "list of texts"),
        ('{"question": "q", "choices": "ab", "answer": 0}', "list of texts"),
        ('{"question": " ", "choices": ["a", "b"], "answer": 0}', "question is empty"),
        ('{"question": 5, "choices": ["a", "b"], "answer": 0}', "should be texts"),
        ('{"question": "q", "choices": ["a", "b"], "answer": 0, "gold": 1}', "unknown keys gold"),
    ],
)
def test_a_bad_line_is_named(path: Path, line: str, message: str) -> None:
    good = '{"question": "q", "choices": ["a", "b"], "answer": 0}\n'
    path.write_text(good + line, encoding="utf-8")
    with pytest.raises(RequestError, match=f"line 2: .*{message}"):
        read_questions(path)


def test_bad_files(path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        read_questions(path)
    path.write_bytes(b"\n \n")
    with pytest.raises(RequestError, match="no questions"):
        read_questions(path)
    path.write_bytes(b'{"question": "\xfc"}')
    with pytest.raises(RequestError, match=r"not UTF-8: byte 0xfc .*byte 14"):
        read_questions(path)
    with pytest.raises(RequestError, match="folder"):
        read_questions(path.parent)
