"""Multiple choice: how choices become tokens, what is summed, and who wins by each measure."""

from __future__ import annotations

import numpy as np
import pytest

from engine.tiny_file import write_tiny_model
from pocketlm.evaluate.questions import Question
from pocketlm.evaluate.tasks import Answers, Choice, Flips, answer, encode_choices, longest
from pocketlm.gguf import GGUFFile
from pocketlm.text import Tokenizer

from .bigram import Bigram

VOCAB = 260


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Bytes as tokens, but "zq" is one."""
    path = write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")
    with GGUFFile.open(path) as file:
        return Tokenizer.from_gguf(file.metadata, "llama")


def question(prompt: str, *choices: str) -> Question:
    return Question(prompt, choices, 0, "q")


def texts(tokenizer: Tokenizer, choices: list[Choice]) -> list[tuple[str, str]]:
    return [(tokenizer.decode(c.prompt), tokenizer.decode(c.tokens)) for c in choices]


def test_a_space_joins_prompt_and_choice(tokenizer: Tokenizer) -> None:
    found = encode_choices(tokenizer, question("who?", "me", "dü"))
    assert texts(tokenizer, found) == [("who?", " me"), ("who?", " dü")]
    assert [(c.characters, c.bytes) for c in found] == [(2, 2), (2, 3)]
    assert longest([found]) == 7


def test_white_space_at_the_prompt_s_end_is_the_choice_s(tokenizer: Tokenizer) -> None:
    found = encode_choices(tokenizer, question("who?\n", "me", "no"))
    assert texts(tokenizer, found) == [("who?", "\n me"), ("who?", "\n no")]


def test_a_token_across_the_border_counts_as_the_harness_counts_it() -> None:
    """Prompt and choice are tokenized together and cut where the prompt alone would end."""

    class Merging:
        adds_bos, bos_id = True, 9

        def encode(self, text: str) -> list[int]:
            return {"ab": [1, 2], "ab c": [1, 7, 3], "ab d": [8]}[text]

    found = encode_choices(Merging(), question("ab", "c", "d"))  # type: ignore[arg-type]
    assert [(c.prompt, c.tokens) for c in found] == [((9, 1, 2), (3,)), ((9,), (8,))]


def choice(prompt: list[int], tokens: list[int], size: int = 1) -> Choice:
    return Choice(tuple(prompt), tuple(tokens), size, size)


def test_the_sum_of_the_choice_s_tokens_decides() -> None:
    model = Bigram(VOCAB, 0, block_rows=2)
    choices = [choice([4, 5], list(range(10 + 7 * i, 17 + 7 * i))) for i in range(4)]
    sums = [model.logprobs(np.array([5, *c.tokens])).sum() for c in choices]
    found = answer(model, [choices], [int(np.argmax(sums))])
    assert found.chosen.tolist() == [[int(np.argmax(sums))] * 3]
    assert (found.score().acc, found.truncated) == (1, 0)


def test_choices_of_one_token_share_a_row() -> None:
    model = Bigram(VOCAB, 0)
    choices = [choice([4, 5], [token]) for token in (9, 17, 30)]
    found = answer(model, [choices], [0])
    assert found.chosen[0, 0] == model.table[5, [9, 17, 30]].argmax()
    assert model.rows_given == [1]
    answer(model, [[choice([4, 5], [9]), choice([4], [9]), choice([4, 5], [9, 3])]], [0])
    assert sum(model.rows_given[1:]) == 4  # other prompts and longer choices have rows of their own


def test_the_three_measures_divide_by_nothing_characters_and_bytes() -> None:
    model = Bigram(8, 0)
    model.table[:] = 0  # each token costs ln 8
    choices = [
        Choice((0,), (1,), 1, 1),  # sum 1, per character 1, per byte 1
        Choice((0,), (1, 2, 3), 6, 3),  # 3, 1/2, 1
        Choice((0,), (1, 2), 3, 9),  # 2, 2/3, 2/9
    ]
    assert answer(model, [choices], [0]).chosen.tolist() == [[0, 1, 2]]


def test_scores_and_their_errors() -> None:
    chosen = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
    score = Answers(chosen, np.array([0, 0, 1, 1]), 3).score()
    assert (score.acc, score.acc_norm, score.acc_bytes) == (0.75, 1.0, 0.75)
    assert score.acc_stderr == pytest.approx(np.std([1, 0, 1, 1], ddof=1) / 2)
    assert score.acc_norm_stderr == 0
    assert (score.questions, score.truncated) == (4, 3)
    assert Answers(chosen[:1], np.array([0]), 0).score().acc_stderr is None


def test_flips() -> None:
    right = np.array([0, 0, 0, 0, 0])
    own = Answers(np.array([0, 1, 0, 2, 1])[:, None].repeat(3, 1), right, 0)
    reference = Answers(np.array([0, 0, 1, 1, 1])[:, None].repeat(3, 1), right, 0)
    assert own.flips_from(reference) == Flips(
        answer_changed=3, right_to_wrong=1, wrong_to_right=1, questions=5
    )


def test_a_prompt_too_long_for_the_context_loses_its_beginning() -> None:
    model = Bigram(VOCAB, 0)
    model.context = 4
    whole, cut = choice([1, 2, 3], [4, 5]), choice([9, 9, 2, 3], [4, 5])
    found = answer(model, [[whole, choice([1, 2, 3], [6, 7])], [cut, choice([3], [6, 7])]], [0, 0])
    assert found.truncated == 1
    assert found.chosen[0].tolist() == found.chosen[1].tolist()
    model.context = 2  # not even the choices fit
    assert answer(model, [[choice([1], [2, 3, 4]), choice([1], [2, 3])]], [0]).truncated == 1
