"""What a client calls a model, turned into what a worker is to open.

A client names models of the store, and aliases; never a path, but for those that the server was
started with. What the model's maker put beside the weights (a system message, a template, options)
goes into the order.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pocketlm.engine.options import EngineOptions
from pocketlm.errors import NotFoundError, RequestError
from pocketlm.serve.config import ServeConfig
from pocketlm.serve.worker.order import Order
from pocketlm.store import Store, StoredModel, parse
from pocketlm.store.refs import PathRef


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
        order = self._order(shown, model)
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

    def _order(self, name: str, model: StoredModel) -> Order:
        engine, manifest = self._config.engine, model.manifest
        if manifest is None:
            return Order(name=name, path=str(model.path), engine=asdict(engine))
        setup = self._store.setup(model)
        if engine.context is None and setup.context is not None:
            engine = _with_context(engine, setup.context)
        weights = next(file for file in manifest.files if file.role == "weights")
        return Order(
            name=name,
            path=str(model.path),
            digest=weights.sha256,
            quantization=manifest.facts.quantization,
            engine=asdict(engine),
            setup=asdict(setup),
        )

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


def _with_context(engine: EngineOptions, context: int) -> EngineOptions:
    """What a model's maker wants it to run with, as far as the server's cache allows."""
    most = engine.kv_tokens
    return replace(engine, context=context if most is None else min(context, most))
