"""From refs to records: what is here, what the catalog knows, what runs elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from backends.remote.endpoint import document, running
from engine.tiny_file import write_tiny_model
from pocketlm import catalog
from pocketlm.advise.comparison import measuring
from pocketlm.advise.comparison.comparison import MOST
from pocketlm.advise.comparison.comparison import compare as compare_on
from pocketlm.advise.device import find_device
from pocketlm.advise.footprint import footprint
from pocketlm.errors import ModelFileError, NotFoundError, RequestError
from pocketlm.store import Store

compare = functools.partial(compare_on, device="raspberry-pi-5-8gb")  # which needs no probe


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.gguf")


def test_a_file_has_the_sizes_that_footprint_gives(tiny: Path) -> None:
    (subject,) = compare([str(tiny)], types=("Q8_0", "Q4_0"), context=128, threads=1).subjects
    rows = footprint(tiny, ("Q8_0", "Q4_0"), context=128, threads=1)
    assert [(s.type, s.file, s.peak, s.on_disk) for s in subject.sizes] == [
        (row.type, row.file, row.peak, row.on_disk) for row in rows
    ]
    assert (subject.name, subject.where) == ("tiny.gguf", "here")
    assert subject.file == tiny.stat().st_size
    assert subject.layers is not None
    assert subject.gated is None


def test_a_model_that_is_not_here_has_sizes_too() -> None:
    """Gemma 3 1B in Q4_K_M: 806,058,240 bytes in the repository of those who made that file."""
    (subject,) = compare(["gemma3:1b"], types=("Q4_K_M", "Q8_0")).subjects
    small, large = subject.sizes
    assert small.file == pytest.approx(806_058_240, rel=0.001)
    assert small.file < large.file < large.peak
    assert not small.on_disk
    assert not small.requantized


def test_speeds_are_of_the_device() -> None:
    refs, types = ["gemma3:1b"], ("Q4_0",)
    found = [
        compare_on(refs, types=types, device=name)
        for name in ("raspberry-pi-4-8gb", "raspberry-pi-5-8gb")
    ]
    slow, fast = (one.subjects[0].sizes[0] for one in found)
    assert slow.decode is not None
    assert fast.decode is not None
    assert slow.decode < fast.decode
    assert slow.basis
    assert found[0].device != found[1].device
    with pytest.raises(NotFoundError, match="raspberry"):
        compare_on(refs, device="rapsberry-pi-5")


def test_a_device_of_unknown_rates_has_memory_and_no_speeds() -> None:
    device = replace(find_device("raspberry-pi-5-8gb"), rates=None)
    (sized,) = compare_on(["gemma3:1b"], types=("Q4_0",), device=device).subjects[0].sizes
    assert sized.peak > sized.file
    assert (sized.decode, sized.prefill) == (None, None)


def test_an_architecture_that_does_not_run_here_has_facts_alone() -> None:
    (subject,) = compare(["lfm2:350m"]).subjects
    assert subject.sizes == ()
    assert "sizes are not known" in subject.notes[-1]


def test_a_model_with_a_smaller_context_has_its_own(tiny: Path) -> None:
    (subject,) = compare([str(tiny)], types=(), threads=1).subjects
    assert subject.context == 256
    assert "memory is for as many" in subject.notes[0]
    assert subject.sizes[0].kv == footprint(tiny, (), context=256, threads=1)[0].kv


def test_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(str(write_tiny_model(tmp_path / folder / "m.gguf")))
    found = compare([*paths, paths[0]], types=(), context=64, threads=1)
    assert [subject.name for subject in found.subjects] == paths


def test_a_model_of_the_store_has_its_name(tiny: Path) -> None:
    Store().import_path(tiny, "mine:1")
    (subject,) = compare(["mine:1"], types=(), context=64, threads=1).subjects
    assert (subject.name, subject.ref, subject.where) == ("mine:1", "mine:1", "here")


def test_what_the_catalog_knows_need_not_be_here() -> None:
    here, gated = compare(["smollm2:360m", "gemma3:1b"]).subjects
    assert (here.where, here.parameters, here.gated) == ("catalog", 361_821_120, False)
    assert (gated.licence, gated.gated, gated.size_class) == ("gemma", True, "Micro")
    assert here.measured is None
    assert (here.publisher, here.languages) == ("Hugging Face", ("en",))
    assert (here.family, here.layers, here.vocabulary) == ("llama", 32, 49_152)


def test_published_scores_stand_in_tables_of_two_or_more() -> None:
    found = compare(["qwen3:0.6b", "gemma3:1b", "openai:http://127.0.0.1:1/v1#m"])
    assert found.scores
    for table in found.scores:
        published = catalog.tables()[table.name]
        for number, row in enumerate(table.rows):
            assert row.values == (
                published.rows["qwen3:0.6b"][number], published.rows["gemma3:1b"][number], None,
            )  # fmt: skip
    assert compare(["qwen3:0.6b"]).scores == ()


def test_a_model_of_the_store_has_the_facts_of_its_file_and_of_the_catalog(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = catalog.find("smollm2", "135m")
    assert entry is not None
    other = entry.model_copy(update={"name": "tiny", "tag": "1", "licence": "theirs"})
    monkeypatch.setattr(catalog, "find", lambda name, tag: other if name == "tiny" else None)
    Store().import_path(tiny, "tiny:1")
    (subject,) = compare(["tiny:1"], types=(), context=64, threads=1).subjects
    assert (subject.where, subject.publisher, subject.released) == (
        "here", "Hugging Face", "2024-10-31",
    )  # fmt: skip
    assert subject.parameters != entry.parameters  # those of the file
    assert subject.context == 256


def test_unknown_names_get_suggestions() -> None:
    with pytest.raises(NotFoundError, match="smollm2:135m"):
        compare(["smollm2:360m", "smolm2:135m"])


@pytest.mark.parametrize(
    ("refs", "options"),
    [([], {}), ([f"./{i}.gguf" for i in range(MOST + 1)], {}), (["smollm2:360m"], {"context": 0})],
)
def test_what_makes_no_sense_is_refused(refs: list[str], options: dict[str, int]) -> None:
    with pytest.raises(RequestError):
        compare(refs, **options)  # type: ignore[arg-type]


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF nonsense")
    with pytest.raises(ModelFileError, match=r"broken\.gguf"):
        compare([str(path)])


def test_a_remote_model_has_what_its_endpoint_tells() -> None:
    with running() as endpoint:
        endpoint.answers = [document({"id": "phi-4", "owned_by": "me", "max_model_len": 512})]
        known, gone = compare([endpoint.ref, "openai:http://127.0.0.1:1/v1#m"]).subjects
    assert (known.where, known.title, known.publisher, known.context) == (
        "remote", "phi-4", "me", 512,
    )  # fmt: skip
    assert gone.title is None
    assert "could not be reached" in gone.notes[0]


def test_offline_no_endpoint_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETLM_OFFLINE", "1")
    with running() as endpoint:
        (subject,) = compare([endpoint.ref]).subjects
        assert endpoint.asked == []
    assert "offline" in subject.notes[0]


# Measuring


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "PROMPT", 16)
    monkeypatch.setattr(measuring, "GENERATE", 4)
    monkeypatch.setattr(measuring, "ROUNDS", 1)
    monkeypatch.setattr("pocketlm.evaluate.speed.rounds.PAUSE_S", 0)


@pytest.mark.usefixtures("quick")
def test_models_that_are_here_are_measured(tiny: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("It was the best of times, it was the worst of times. " * 3)
    found = compare(
        [str(tiny), "smollm2:360m"], types=(), context=64, threads=1, measure=True, text=text
    )
    here, known = found.subjects
    measured = here.measured
    assert measured is not None
    assert measured.prefill > 0
    assert measured.decode > 0
    assert measured.perplexity is not None
    assert measured.bits_per_byte is not None
    assert (measured.prompt, measured.generate, measured.text) == (16, 4, "text.txt")
    assert known.measured is None


@pytest.mark.usefixtures("quick")
def test_a_text_that_is_none_ends_it(tiny: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(b"\xff\xfe")
    with pytest.raises(RequestError, match="not UTF-8"):
        compare([str(tiny)], types=(), context=64, threads=1, measure=True, text=text)


@pytest.mark.real
@pytest.mark.usefixtures("quick")
def test_real_models_compare_by_bits_per_byte(real_model: Callable[[str], Path]) -> None:
    """Gemma reads fewer tokens than SmolLM2, so a token costs it more and a byte does not."""
    refs = [str(real_model(name)) for name in ("smollm2:135m", "gemma3:270m")]
    found = compare(refs, types=("Q4_0",), context=512, measure=True)
    small, large = (subject.measured for subject in found.subjects)
    assert small is not None
    assert large is not None
    for measured in (small, large):
        assert measured.bits_per_byte is not None
        assert 0.7 < measured.bits_per_byte < 1.6
        assert measured.decode > 5
    assert [s.parameters for s in found.subjects] == [134_515_008, 268_098_176]


def test_our_text_is_read_whole() -> None:
    text = measuring.own_text()
    assert 3000 < len(text.encode()) < 4000
    assert text.startswith("The ferry")
