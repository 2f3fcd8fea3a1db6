"""Facts of a model from its files, wherever those lie and whatever they are called on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pocketlm.errors import ModelFileError
from pocketlm.store.facts import folder_facts, gguf_facts
from pocketlm.store.importing import model_files
from pocketlm.store.manifest import Facts, FileRecord


def describe(files: Sequence[tuple[FileRecord, Path]]) -> Facts:
    """Facts from a model's records and where the bytes of each are.

    Raises ModelFileError where the files are not a model.
    """
    weights = sorted(
        ((record.name, path) for record, path in files if record.role == "weights"),
        key=lambda item: item[0],
    )
    if not weights:
        raise ModelFileError("there are no weights among the files of the model")
    paths = [path for _, path in weights]
    if all(name.lower().endswith(".gguf") for name, _ in weights):
        return gguf_facts(paths)
    for record, path in files:
        if record.name == "config.json":
            return folder_facts(path, paths)
    raise ModelFileError("the model has no config.json", path=paths[0].parent)


def describe_path(path: Path) -> Facts:
    """Facts of a GGUF file or a folder of safetensors that is not in the store.

    Raises NotFoundError, UnsupportedError or ModelFileError where it is no model.
    """
    given = model_files(path)
    weights = [one.path for one in given if one.role == "weights"]
    if path.is_dir():
        return folder_facts(path / "config.json", weights)
    return gguf_facts(weights)
