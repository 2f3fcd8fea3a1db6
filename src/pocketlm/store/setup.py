"""What a model's maker put beside the weights: system message, template, options, first messages.

Every way of running a model starts here: ``setup`` turns a stored model into plain facts, which the
Python interface and the workers of the server take along. The records are small files of the model,
in the shapes of an Ollama registry, so that a model that was pulled from one runs as its maker
meant it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pocketlm.errors import ModelFileError
from pocketlm.store.manifest import FileRecord, Role
from pocketlm.store.parameters import sampling_options
from pocketlm.store.shelf import Shelf, StoredModel

# Names of the records; a folder of safetensors has template and licence files of its own beside.
RECORDS: Mapping[Role, str] = {
    "template": "template",
    "system": "system",
    "params": "params.json",
    "messages": "messages.json",
    "license": "license",
}
_MOST_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Attributes:
    system: a system message for conversations that have none.
    template: a jinja2 chat template in the place of the file's.
    messages: that every conversation begins with.
    options: of sampling, by the names of ``engine.sampling``, for requests that do not give them.
    context: positions that the model is to run with, where the user does not say.
    """

    system: str | None = None
    template: str | None = None
    messages: Sequence[Mapping[str, Any]] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    context: int | None = None

    def conversation(self, messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """``messages`` behind those of the model. First goes the system message: that of the
        conversation, else the model's."""
        head = list(messages[:1]) if messages and _role(messages[0]) == "system" else []
        rest = [*self.messages, *messages[len(head) :]]
        if self.system and not head and not any(_role(one) == "system" for one in rest):
            head = [{"role": "system", "content": self.system}]
        return [*head, *rest]


def _role(message: object) -> object:
    return message.get("role") if isinstance(message, Mapping) else None


def setup(shelf: Shelf, model: StoredModel) -> Setup:
    """The setup of a model of the store; an empty one for a path.

    A template for Go, as Ollama's registry has them, is left out: the weights bring their own.
    Raises ModelFileError for a record that breaks its format, IntegrityError where one is gone.
    """
    texts = {record.role: text for record, text in read_records(shelf, model)}
    params = _params(texts.get("params"))
    context = params.get("num_ctx")
    return Setup(
        system=texts.get("system") or None,
        template=jinja(texts.get("template")),
        messages=_messages(texts.get("messages")),
        options=sampling_options(params),
        context=context if isinstance(context, int) and context > 0 else None,
    )


def read_records(shelf: Shelf, model: StoredModel) -> list[tuple[FileRecord, str]]:
    """The small records of a model and their texts; there may be several licences.

    Raises ModelFileError for one that is too large or not UTF-8.
    """
    manifest = model.manifest
    records = [] if manifest is None else [file for file in manifest.files if is_record(file)]
    found = []
    for record in records:
        path = shelf.file_path(record)
        if record.size > _MOST_BYTES:
            raise ModelFileError(f"{record.name} has {record.size:,} bytes", path=path)
        try:
            found.append((record, path.read_text(encoding="utf-8")))
        except UnicodeDecodeError as error:
            raise ModelFileError(f"{record.name} is not UTF-8", path=path) from error
    return found


def is_record(file: FileRecord) -> bool:
    """Whether a file is one of the small records, and no file that the weights came with."""
    name = RECORDS.get(file.role)
    if name is None:
        return False
    stem, dot, ending = name.partition(".")
    return file.name == name or (
        file.name.startswith(f"{stem}-") and file.name.endswith(dot + ending)
    )


def jinja(template: str | None) -> str | None:
    """The template where it is one for jinja2; None for Ollama's, which are written for Go."""
    return template if template is not None and is_jinja(template) else None


def is_jinja(template: str) -> bool:
    """Whether a template is jinja2 rather than Go: only jinja2 has statements in ``{% %}``."""
    return "{%" in template


def _params(text: str | None) -> dict[str, Any]:
    found = {} if text is None else _json(text, "params")
    if not isinstance(found, dict):
        raise ModelFileError("the params of the model are not an object")
    return found


def _messages(text: str | None) -> tuple[Mapping[str, Any], ...]:
    found = [] if text is None else _json(text, "messages")
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ModelFileError("the messages of the model are not a list of objects")
    return tuple(found)


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"the {what} of the model are not JSON: {error}") from error
