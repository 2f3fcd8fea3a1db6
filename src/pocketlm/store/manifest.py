"""Manifests: the small JSON file that says what a stored model is and where it came from.

One per name, under ``manifests/``. A manifest is written last, so a model either is in the store
with every file that its manifest lists, or is not there.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pocketlm.errors import ModelFileError
from pocketlm.size_classes import SizeClass

# One plain component of a path: a manifest that was tampered with must not lead out of the store.
FileName = Annotated[str, Field(pattern=r"^[^./\\\x00][^/\\\x00]*$", max_length=255)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Role = Literal[
    "weights", "config", "tokenizer", "template", "params", "system", "messages", "license",
    "projector", "adapter", "other",
]  # fmt: skip


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Reference(_Record):
    """A file of the user's own, used where it lies. Time in nanoseconds since the epoch."""

    path: str = Field(pattern=r"^[^\x00]+$")
    mtime_ns: int


class FileRecord(_Record):
    """One file of a model; ``reference`` is None where its bytes are a blob of this store."""

    name: FileName
    role: Role
    size: int = Field(ge=0)
    sha256: Sha256
    url: str | None = None
    reference: Reference | None = None


class Source(_Record):
    """Where a model came from: the ref that was asked for and what it was resolved to.

    ``revision`` is what pins it: a commit of the hub, the version of a package, the digest of a
    registry's manifest. ``base`` is the model that one was created from, "" for files of a client.
    """

    ref: str
    url: str | None = None
    revision: str | None = None
    base: str | None = None


class Facts(_Record):
    """What a model is, read from its own files.

    Attributes:
        format: gguf or safetensors.
        family: ``general.architecture`` of a GGUF, ``model_type`` of a config.json.
        parameters: counted from the tensors.
        size_class: Micro [100M, 1.5B), Small [1.5B, 14B), Medium [14B, 30B], else outside.
        quantization: the label people know, such as Q4_K_M, or the type of most weights.
        context: positions that the model was made for, None where its files do not say.
    """

    format: Literal["gguf", "safetensors"]
    family: str
    parameters: int = Field(ge=0)
    size_class: SizeClass
    quantization: str
    context: int | None = Field(default=None, gt=0)
    licence: str | None = None


class Manifest(_Record):
    """Everything the store knows of one model."""

    schema_version: Literal[1] = 1
    name: str
    created: datetime
    source: Source
    facts: Facts
    files: tuple[FileRecord, ...]

    @model_validator(mode="after")
    def _names_differ(self) -> Manifest:
        names = [file.name.lower() for file in self.files]
        if len(set(names)) != len(names):
            raise ValueError("two files have one name")
        if not any(file.role == "weights" for file in self.files):
            raise ValueError("there are no weights")
        return self

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def to_json(self) -> bytes:
        return self.model_dump_json(indent=2, exclude_none=True).encode() + b"\n"


def read_manifest(path: Path) -> Manifest:
    """Raises ModelFileError for what is no manifest, FileNotFoundError where there is none."""
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the document"
        raise ModelFileError(
            f"not a manifest of this version: {field}: {first['msg']}",
            path=path,
            hint="Pull the model again: its blobs are kept.",
        ) from error
