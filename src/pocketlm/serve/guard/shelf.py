"""The store as requests may use it: the models of their key, and pulls from few hosts only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pocketlm.errors import NotFoundError, PocketLMError, RequestError
from pocketlm.progress import ProgressCallback, silent
from pocketlm.serve.config import ServeConfig
from pocketlm.serve.guard.doors import asking
from pocketlm.store import Store
from pocketlm.store.creating import Additions, Base
from pocketlm.store.egress import Egress
from pocketlm.store.refs import NameRef, PathRef, parse
from pocketlm.store.shelf import Removed, StoredModel


class ForbiddenError(RequestError):
    """The key may not use the model. Says the same whether the model is there or not."""

    http_status = 403


@dataclass(frozen=True)
class Permits:
    """Which models the key of this request may use.

    Attributes:
        store: says what a short name stands for.
        aliases: other names of models, of the server's configuration.
    """

    store: Store
    aliases: Mapping[str, str] = field(default_factory=dict)

    def limited(self) -> bool:
        """Whether there is anything that it may not use."""
        key = asking.get()
        return key is not None and bool(key.models)

    def sees(self, name: str) -> bool:
        """Whether it may use a model by its full name, or an alias."""
        key = asking.get()
        return key is None or key.allows_model(name)

    def require(self, name: str) -> None:
        """Raises ForbiddenError. What counts is the model that the name stands for."""
        if not self.limited():
            return
        if name in self.aliases and self.sees(name):
            return
        if not self.sees(self._full(self.aliases.get(name, name))):
            raise ForbiddenError(f"this API key may not use the model '{name}'")

    def _full(self, name: str) -> str:
        try:
            return self.store.full_name(name)
        except PocketLMError:
            return name  # no name of the store: one of a file that the server was started with


class GuardedStore(Store):
    """The store for requests. A model that the key may not use is as forbidden here as to run."""

    def __init__(self, inner: Store, config: ServeConfig) -> None:
        super().__init__(
            inner.home,
            offline=inner.offline,
            patience=inner.patience,
            egress=Egress.of(config.registries),
        )
        self.permits = Permits(inner, config.aliases)

    def list(self) -> Sequence[StoredModel]:
        return [model for model in super().list() if self.permits.sees(model.name)]

    def resolve(
        self, ref: str, *, pull: bool = False, progress: ProgressCallback = silent
    ) -> StoredModel:
        self._permit(ref)
        return super().resolve(ref, pull=pull, progress=progress)

    def pull(self, ref: str, progress: ProgressCallback = silent) -> StoredModel:
        self._permit(ref)
        return super().pull(ref, progress)

    def import_path(
        self,
        path: Path,
        name: str | None = None,
        *,
        copy: bool = False,
        progress: ProgressCallback = silent,
    ) -> StoredModel:
        if name is not None:
            self.permits.require(name)
        return super().import_path(path, name, copy=copy, progress=progress)

    def create(self, name: NameRef, base: Base, additions: Additions) -> StoredModel:
        self.permits.require(str(name))
        return super().create(name, base, additions)

    def copy(self, source: str, target: str) -> StoredModel:
        self._permit(source)
        self._permit(target)
        return super().copy(source, target)

    def remove(self, ref: str) -> Removed:
        self._permit(ref)
        return super().remove(ref)

    def _permit(self, ref: str) -> None:
        """Raises for a path, which no request may name, and for a model the key may not use."""
        if isinstance(parse(ref), PathRef):
            raise NotFoundError(f"there is no model '{ref}' here")
        self.permits.require(ref)
