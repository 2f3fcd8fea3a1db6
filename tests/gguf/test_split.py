"""Models in several files: read as one, and refused when the set is not whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pocketlm.errors import ModelFileError
from pocketlm.gguf import BlockType, GGUFFile, TensorData, write_gguf
from pocketlm.gguf.metadata import Int32, Uint16, Value

Write = Callable[..., Path]


@pytest.fixture
def member(tmp_path: Path) -> Write:
    def write(number: int, tensor: str | None = None, **changed: Value) -> Path:
        path = tmp_path / f"m-{number + 1:05}-of-00003.gguf"
        metadata: dict[str, Value] = {"general.name": "whole"} if number == 0 else {}
        metadata |= {"split.no": Uint16(number), "split.count": Uint16(3)}
        metadata |= {"split.tensors.count": Int32(3)}
        metadata |= {f"split.{key}": value for key, value in changed.items()}
        values = np.full(4, number, np.float32)
        write_gguf(
            path, metadata, [TensorData(tensor or f"t{number}", BlockType.F32, (4,), values)]
        )
        return path

    return write


def test_a_set_is_one_model(member: Write, tmp_path: Path) -> None:
    paths = [member(number) for number in range(3)]
    for path in paths:  # any file of the set opens it
        with GGUFFile.open(path) as file:
            assert file.path == paths[0]
            assert file.metadata == {"general.name": "whole"}
            assert list(file.tensors) == ["t0", "t1", "t2"]
            assert [info.part for info in file.tensors.values()] == [0, 1, 2]
            for number in range(3):
                assert file.tensor(f"t{number}").tolist() == [number] * 4
            tensors = [
                TensorData(i.name, i.type, i.shape, file.tensor_bytes(i.name))
                for i in file.tensors.values()
            ]
            write_gguf(tmp_path / "merged.gguf", file.metadata, tensors)
    with GGUFFile.open(tmp_path / "merged.gguf") as merged:
        assert merged.metadata == {"general.name": "whole"}
        assert merged.tensor("t2").tolist() == [2] * 4


def test_a_set_of_one_is_a_whole_file(tmp_path: Path) -> None:
    for count in (0, 1):
        write_gguf(tmp_path / "m.gguf", {"split.count": Uint16(count)}, [])
        assert GGUFFile.open(tmp_path / "m.gguf").metadata == {"split.count": count}


def test_a_missing_file(member: Write) -> None:
    first = member(0)
    member(2)
    with pytest.raises(ModelFileError, match="file 2 of 3 of the model is missing") as caught:
        GGUFFile.open(first)
    assert caught.value.path == first.with_name("m-00002-of-00003.gguf")


def test_a_truncated_file(member: Write) -> None:
    paths = [member(number) for number in range(3)]
    data = paths[1].read_bytes()
    paths[1].write_bytes(data[:-32])
    with pytest.raises(ModelFileError, match="'t1' ends at byte") as caught:
        GGUFFile.open(paths[0])
    assert caught.value.path == paths[1]


def test_names_that_do_not_say_so(member: Write, tmp_path: Path) -> None:
    first = member(0)
    for name in ("m.gguf", "m-00001-of-00004.gguf", "m-1-of-3.gguf"):
        shutil.copy(first, tmp_path / name)
        with pytest.raises(ModelFileError, match="name does not end in '-NNNNN-of-00003"):
            GGUFFile.open(tmp_path / name)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"no": Uint16(2)}, "says that it is number 2 of 3, its name that it is number 1 of 3"),
        ({"count": Uint16(4)}, "says that it is number 1 of 4"),
        ({"no": "1"}, "split.no is '1', expected an int"),
        ({"no": True}, "split.no is True, expected an int"),
        ({"count": Uint16(0)}, "number 1 of 1"),
    ],
)
def test_files_that_disagree(changed: dict[str, Value], match: str, member: Write) -> None:
    first = member(0)
    member(1, **changed)
    member(2)
    with pytest.raises(ModelFileError, match=match):
        GGUFFile.open(first)


def test_tensors_must_add_up(member: Write) -> None:
    first = member(0, **{"tensors.count": Int32(4)})
    member(1)
    member(2)
    with pytest.raises(ModelFileError, match=r"split.tensors.count is 4, but .* 3 tensors"):
        GGUFFile.open(first)
    member(0, **{"tensors.count": Int32(-1)})
    with pytest.raises(ModelFileError, match=r"split.tensors.count is -1"):
        GGUFFile.open(first)


def test_a_tensor_in_two_files(member: Write) -> None:
    first = member(0)
    member(1, "t0")
    member(2)
    with pytest.raises(ModelFileError, match="'t0' is in two files"):
        GGUFFile.open(first)
