"""What a client calls a model, turned into what a worker is to open.

A client names models of the store, and aliases; never a path, but for those that the server was
started with. What the model's maker put beside the weights (a system message, a template, options)
goes into the order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pocketlm.errors import ModelFileError, NotFoundError, RequestError
from pocketlm.serve.config import ServeConfig
from pocketlm.serve.worker.order import Order
from pocketlm.store import Manifest, Store, StoredModel, parse
from pocketlm.store.refs import PathRef

_MOST_BYTES = 4 << 20  # of what stands beside the weights


@dataclass(frozen=True)
class Wanted:
    """A model as it was asked for.

    Attributes:
        name: what it is called in answers.
        key: equal for names of the same files, which one worker serves.
        pinned: whether the server was started with it.
    """

    name: str
    key: str
    pinned: bool
    order: Order


class Names:
    """Looks models up; every look sees the store as it is now. Thread-safe."""

    def __init__(self, store: Store, config: ServeConfig) -> None:
        self._store = store
        self._config = config
        self._paths = {_path_name(ref): ref for ref in config.models if _is_path(ref)}

    def find(self, name: str) -> Wanted:
        """Raises NotFoundError for a name that is not here; RequestError for what is no name."""
        ref = self._ref(name)
        model = self._store.resolve(ref)
        shown = model.name if model.manifest is not None else _path_name(ref)
        order = _order(shown, model, asdict(self._config.engine))
        pinned = any(self._is(ref, given) for given in self._config.models)
        return Wanted(shown, _key(model), pinned, order)

    def _ref(self, name: str) -> str:
        if not name:
            if not self._config.models:
                raise RequestError("the request names no model")
            return self._config.models[0]
        ref = self._config.aliases.get(name, name)
        if ref in self._config.models:
            return ref
        if ref in self._paths:
            return self._paths[ref]
        if _is_path(ref):
            raise NotFoundError(
                f"there is no model '{name}' here", hint="GET /v1/models has those that are."
            )
        return ref

    def _is(self, ref: str, given: str) -> bool:
        if ref == given:
            return True
        if _is_path(ref) or _is_path(given):
            return False
        return ref.removesuffix(":latest") == given.removesuffix(":latest")


def _is_path(ref: str) -> bool:
    try:
        return isinstance(parse(ref), PathRef)
    except RequestError:
        return False


def _path_name(ref: str) -> str:
    return Path(ref).stem if ref.lower().endswith(".gguf") else Path(ref).name


def _key(model: StoredModel) -> str:
    """The weights and all that is put beside them."""
    if model.manifest is None:
        return str(model.path.absolute())
    return " ".join(sorted(f"{file.role} {file.sha256}" for file in model.manifest.files))


def _order(name: str, model: StoredModel, engine: dict[str, Any]) -> Order:
    manifest = model.manifest
    if manifest is None:
        return Order(name=name, path=str(model.path), engine=engine)
    weights = next(file for file in manifest.files if file.role == "weights")
    beside = _beside(model, manifest) if manifest.facts.format == "gguf" else {}
    return Order(
        name=name,
        path=str(model.path),
        digest=weights.sha256,
        quantization=manifest.facts.quantization,
        engine=engine,
        system=beside.get("system"),
        template=_jinja(beside.get("template")),
        messages=_messages(beside.get("messages")),
        options=_options(beside.get("params")),
    )


def _beside(model: StoredModel, manifest: Manifest) -> dict[str, str]:
    """The texts of a model by their role."""
    found: dict[str, str] = {}
    for file in manifest.files:
        if file.role not in ("system", "template", "messages", "params"):
            continue
        path = Path(file.reference.path) if file.reference else model.path.parent / file.name
        if file.size > _MOST_BYTES:
            raise ModelFileError(f"the {file.role} has {file.size:,} bytes", path=path)
        try:
            found[file.role] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ModelFileError(f"the {file.role} is not UTF-8", path=path) from error
    return found


def _jinja(template: str | None) -> str | None:
    """A template that is one of ours; those of Ollama are for Go, and the file has its own."""
    return template if template is not None and "{%" in template else None


def _messages(text: str | None) -> list[Mapping[str, Any]]:
    found = [] if text is None else _json(text, "messages")
    if not isinstance(found, list):
        raise ModelFileError("the messages of the model are not a list")
    return found


# Options of a Modelfile by our names.
_RENAMED = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repeat_penalty": "repetition_penalty",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "seed": "seed",
    "stop": "stop",
    "num_predict": "max_tokens",
}


def _options(text: str | None) -> dict[str, Any]:
    """Options that the model's maker set, under our names; those that say nothing are left out."""
    found = {} if text is None else _json(text, "params")
    if not isinstance(found, dict):
        raise ModelFileError("the params of the model are not an object")
    options = {ours: found[theirs] for theirs, ours in _RENAMED.items() if theirs in found}
    if isinstance(options.get("max_tokens"), int) and options["max_tokens"] < 1:
        del options["max_tokens"]  # -1 is without a limit
    return options


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"the {what} of the model are not JSON: {error}") from error
