"""``import``: files that the user already has get a name, by reference unless a copy is asked for.

A referenced file stays where it is; its size, time and SHA-256 are recorded, so that a file that
changes or goes is noticed. A copy is a model of the store like any other.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from pocketlm.errors import ModelFileError, NotFoundError, UnsupportedError
from pocketlm.progress import Progress, ProgressCallback
from pocketlm.store import files
from pocketlm.store.blobs import Blobs
from pocketlm.store.locks import locked
from pocketlm.store.manifest import FileRecord, Reference, Role

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
_CONFIGS = ("config.json", "generation_config.json", "model.safetensors.index.json")
_TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt",
)  # fmt: skip
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
ROLES: tuple[tuple[tuple[str, ...], Role], ...] = (
    (_CONFIGS, "config"),
    (_TOKENIZERS, "tokenizer"),
    (_TEMPLATES, "template"),
)
"""What the files beside the weights of a folder are for."""


@dataclass(frozen=True)
class Given:
    """A file of the user's and what it is for."""

    path: Path
    role: Role


def model_files(path: Path) -> list[Given]:
    """The files of the model at ``path``: a GGUF with its shards, or a folder of safetensors.

    Raises NotFoundError, ModelFileError where shards are missing, UnsupportedError for a file that
    is neither.
    """
    if path.is_dir():
        return _folder_files(path)
    if not path.is_file():
        raise NotFoundError(f"there is no file or folder {path}")
    if path.suffix.lower() != ".gguf":
        raise UnsupportedError(
            "only .gguf files and folders of safetensors can be imported", path=path
        )
    shard = _SHARD.fullmatch(path.name)
    if shard is None:
        return [Given(path, "weights")]
    count = int(shard[3])
    shards = [path.with_name(f"{shard[1]}-{n:05}-of-{shard[3]}.gguf") for n in range(1, count + 1)]
    for one in shards:
        if not one.is_file():
            raise ModelFileError(f"shard {one.name} of {count} is missing", path=path)
    return [Given(one, "weights") for one in shards]


def _folder_files(folder: Path) -> list[Given]:
    weights = sorted(folder.glob("*.safetensors"))
    shards = [p for p in weights if re.fullmatch(r"model-\d{5}-of-\d{5}\.safetensors", p.name)]
    whole = folder / "model.safetensors"
    chosen = [whole] if whole in weights else shards or weights
    if not chosen or not (folder / "config.json").is_file():
        raise UnsupportedError("the folder has no safetensors with a config.json", path=folder)
    found = [Given(path, "weights") for path in chosen]
    for names, role in ROLES:
        found += [Given(folder / n, role) for n in names if (folder / n).is_file()]
    return found


def suggested_name(path: Path) -> str:
    """A name made of the file's own: ``Qwen3 0.6B.gguf`` becomes ``qwen3-0.6b``."""
    stem = path.name.removesuffix(path.suffix) if path.suffix.lower() == ".gguf" else path.name
    if shard := _SHARD.fullmatch(path.name):
        stem = shard[1]
    name = re.sub(r"[^a-z0-9._-]+", "-", stem.lower())
    return re.sub(r"\.{2,}", ".", name).strip("._-")[:80].strip("._-") or "model"


def refer(given: Given, progress: ProgressCallback) -> FileRecord:
    """The record of a file that stays where it is. It is read through for its hash."""
    path = given.path.absolute()
    before = path.stat()

    def report(done: int) -> None:
        progress(Progress(f"hash {path.name}", done, before.st_size))

    sha256 = files.hash_file(path, report)
    after = path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ModelFileError("the file changed while it was read", path=path)
    return FileRecord(
        name=path.name,
        role=given.role,
        size=after.st_size,
        sha256=sha256,
        reference=Reference(path=str(path), mtime_ns=after.st_mtime_ns),
    )


def copy_in(
    given: Given, blobs: Blobs, partial: Path, locks: Path, progress: ProgressCallback
) -> FileRecord:
    """The record of a file whose bytes are copied into the store as a blob."""
    size = given.path.stat().st_size
    files.make_folder(partial)
    key = "import-" + hashlib.sha256(str(given.path.absolute()).encode()).hexdigest()
    with locked(locks, key):
        temporary = partial / key
        temporary.unlink(missing_ok=True)  # what a killed copy left takes the new one's space
        files.require_space(partial, size, f"a copy of {given.path.name}")

        def report(done: int) -> None:
            progress(Progress(f"copy {given.path.name}", done, size))

        try:
            sha256, done = files.write_hashed(
                temporary, files.chunks_of(given.path), f"copying {given.path.name}", report
            )
            blobs.adopt(temporary, sha256, done)
        finally:
            temporary.unlink(missing_ok=True)
    return FileRecord(name=given.path.name, role=given.role, size=done, sha256=sha256)
