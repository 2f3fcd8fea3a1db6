"""``create``: a model of one's own, from files that are here and what is put beside them.

The weights stay the blobs they are, byte for byte, whatever is made of them: a created model costs
some small records. Its hash can so be checked against where it came from.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pocketlm.errors import IntegrityError, ModelFileError, RequestError, UnsupportedError
from pocketlm.progress import Progress, ProgressCallback
from pocketlm.store import files, importing
from pocketlm.store.describe import describe
from pocketlm.store.digests import sha256_of
from pocketlm.store.manifest import Facts, FileRecord, Manifest, Role, Source
from pocketlm.store.refs import NameRef, parse
from pocketlm.store.setup import RECORDS, is_jinja, is_record
from pocketlm.store.shelf import Shelf, StoredModel
from pocketlm.store.uploads import Upload

_MOST_FILES = 256
_MOST_RECORD = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Additions:
    """What is put beside the weights; what is None stays as the base has it.

    Attributes:
        params: by Ollama's names; single ones take the place of the base's.
        messages: in OpenAI's shape.
        licences: texts.
    """

    template: str | None = None
    system: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    messages: Sequence[Mapping[str, Any]] | None = None
    licences: Sequence[str] | None = None


@dataclass(frozen=True)
class Base:
    """What a model is created from: its files, what they are, and where they came from."""

    files: tuple[FileRecord, ...]
    facts: Facts
    source: Source


def base_of_model(model: StoredModel) -> Base:
    """A model of the store."""
    assert model.manifest is not None, "a model of the store has a manifest"
    manifest = model.manifest
    source = manifest.source.model_copy(update={"base": manifest.name})
    return Base(manifest.files, manifest.facts, source)


def base_of_blobs(shelf: Shelf, given: Mapping[str, str], progress: ProgressCallback) -> Base:
    """Blobs that were brought, by the names they are to have: a GGUF, or a folder of safetensors.

    Every blob is read through: none is trusted for being there. Raises RequestError for names and
    digests that are none and for blobs that are not here, ModelFileError for what is no model.
    """
    if not given or len(given) > _MOST_FILES:
        raise RequestError(f"files has {len(given)} entries, expected 1 to {_MOST_FILES}")
    records = tuple(_record(shelf, name, digest, progress) for name, digest in given.items())
    kinds = {Path(record.name).suffix.lower() for record in records if record.role == "weights"}
    if len(kinds) != 1:
        raise RequestError("files should have one .gguf file, or .safetensors with a config.json")
    if kinds == {".gguf"}:
        records = tuple(record for record in records if record.role == "weights")
    facts = describe([(record, shelf.blobs.path(record.sha256)) for record in records])
    if facts.family == "clip":
        raise UnsupportedError("the file is a vision projector: images are not read")
    return Base(records, facts, Source(ref="files", base=""))


def _record(shelf: Shelf, name: str, digest: str, progress: ProgressCallback) -> FileRecord:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._ +-]{0,200}", name):
        raise RequestError(f"'{name[:80]}' is not the name of a file of a model")
    sha256 = sha256_of(digest)
    size = shelf.blobs.size(sha256)
    if size is None:
        raise RequestError(
            f"there is no blob sha256:{sha256}", hint=f"POST it to /api/blobs/sha256:{sha256}."
        )

    def report(done: int) -> None:
        progress(Progress(f"check {name}", done, size, sha256))

    path = shelf.blobs.path(sha256)
    if files.hash_file(path, report) != sha256:
        shelf.blobs.remove(sha256)
        raise IntegrityError(f"the blob of {name} was damaged: bring it again")
    role = _role(name)
    if (
        role == "weights"
        and not Path(name).suffix
        and next(files.chunks_of(path), b"")[:4] == b"GGUF"
    ):
        name = f"{name}.gguf"
    return FileRecord(name=name, role=role, size=size, sha256=sha256)


def _role(name: str) -> Role:
    lower = name.lower()
    if lower.endswith((".gguf", ".safetensors")) or "." not in lower:
        return "weights"
    for names, role in importing.ROLES:
        if name in names:
            return role
    return "other"


def create(shelf: Shelf, name: NameRef, base: Base, additions: Additions) -> StoredModel:
    """Gives a base with additions a name, in the place of a model of that name.

    Raises RequestError for additions that make no sense, CapacityError where the disk is full,
    IntegrityError where a blob was removed meanwhile.
    """
    _check(additions)
    kept = [file for file in base.files if not (is_record(file) and _replaced(file, additions))]
    texts = _texts(shelf, base, additions)
    records = [_store(shelf, role, file, text) for role, file, text in texts]
    manifest = Manifest(
        name=str(name),
        created=datetime.now(UTC).replace(microsecond=0),
        source=base.source,
        facts=base.facts,
        files=(*kept, *records),
    )
    if not shelf.put(manifest):
        raise IntegrityError(f"files of {name} were removed while it was made")
    return shelf.opened(manifest)


def _check(additions: Additions) -> None:
    template = additions.template
    if template is not None and not is_jinja(template) and "{{" in template:
        raise RequestError(
            "the template is written for Go, chat templates here are jinja2",
            hint="Leave it out to use the one that the weights bring.",
        )


def _replaced(file: FileRecord, additions: Additions) -> bool:
    given: dict[str, object] = {
        "template": additions.template,
        "system": additions.system,
        "params": additions.params or None,
        "messages": additions.messages,
        "license": additions.licences,
    }
    return given.get(file.role) is not None


def _texts(shelf: Shelf, base: Base, additions: Additions) -> list[tuple[Role, str, str]]:
    """Role, name and text of every record that is new; one that is empty only takes one away."""
    made: list[tuple[Role, str, str]] = []
    if additions.template:
        made.append(("template", RECORDS["template"], additions.template))
    if additions.system:
        made.append(("system", RECORDS["system"], additions.system))
    if additions.params:
        params = {**_params(shelf, base), **additions.params}
        made.append(("params", RECORDS["params"], json.dumps(params, ensure_ascii=False)))
    if additions.messages:
        messages = json.dumps([dict(one) for one in additions.messages], ensure_ascii=False)
        made.append(("messages", RECORDS["messages"], messages))
    for i, text in enumerate(additions.licences or ()):
        made.append(("license", RECORDS["license"] + (f"-{i + 1}" if i else ""), text))
    return made


def _params(shelf: Shelf, base: Base) -> dict[str, Any]:
    """The base's, which single new ones are put over."""
    for file in base.files:
        if file.role == "params" and is_record(file) and file.size <= _MOST_RECORD:
            try:
                found = json.loads(shelf.file_path(file).read_bytes())
            except (ValueError, RecursionError) as error:
                raise ModelFileError("the params of the base are not JSON") from error
            return found if isinstance(found, dict) else {}
    return {}


def _store(shelf: Shelf, role: Role, file: str, text: str) -> FileRecord:
    """A text as a blob."""
    data = text.encode()
    if len(data) > _MOST_RECORD:
        raise RequestError(f"the {role} has {len(data):,} bytes, at most {_MOST_RECORD:,} are kept")
    sha256 = hashlib.sha256(data).hexdigest()
    upload = Upload(shelf, sha256)
    try:
        upload.open(len(data))
        upload.write(data)
        upload.finish()
    finally:
        upload.close()
    return FileRecord(name=file, role=role, size=len(data), sha256=sha256)


def created_name(text: str) -> NameRef:
    """The name of a model that is made. Raises RequestError for what is none."""
    parsed = parse(text)
    if not isinstance(parsed, NameRef):
        raise RequestError(
            f"'{text}' is not a name for a model of one's own",
            hint="Such names are NAME[:TAG] with letters, digits, '.', '_' and '-'.",
        )
    return NameRef(parsed.name, parsed.tag or "latest")
