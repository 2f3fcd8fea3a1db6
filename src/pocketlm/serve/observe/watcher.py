"""What the fleet tells those who watch it. All calls are cheap, and made on the event loop."""

from __future__ import annotations

from typing import Literal, Protocol

Leave = Literal["idle", "room", "asked", "end"]


class Watcher(Protocol):
    """Models are named as ``ModelFacts.name`` has them."""

    def loaded(self, model: str, seconds: float) -> None:
        """A model is loaded; it took so long."""

    def unloaded(self, model: str, why: Leave) -> None:
        """A model has gone: unused, for the room of others, as was asked, or as the server ends."""

    def crashed(self, model: str) -> None:
        """The worker of a model has died unasked."""

    def stepped(self, model: str, tokens: int) -> None:
        """The engine has made a step over so many tokens, of prompts and of answers."""


class Nobody:
    """A watcher that looks away."""

    def loaded(self, model: str, seconds: float) -> None: ...

    def unloaded(self, model: str, why: Leave) -> None: ...

    def crashed(self, model: str) -> None: ...

    def stepped(self, model: str, tokens: int) -> None: ...
