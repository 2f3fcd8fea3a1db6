"""Settings that come from the environment, read in one place and passed down as plain facts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from pocketlm.errors import RequestError

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"", "0", "false", "no", "off"}


def _flag(name: str) -> bool:
    value = os.environ.get(name, "").strip().lower()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise RequestError(f"{name} is {value!r}, expected 1 or 0")


@dataclass(frozen=True)
class Settings:
    """Where things live and whether the network may be used.

    Attributes:
        home: the store's folder (``POCKETLM_HOME``).
        offline: no network at all (``POCKETLM_OFFLINE`` or ``HF_HUB_OFFLINE``).
    """

    home: Path
    offline: bool

    @classmethod
    def from_environment(cls) -> Settings:
        home = os.environ.get("POCKETLM_HOME") or platformdirs.user_data_dir("pocketlm")
        return cls(
            home=Path(home).expanduser().absolute(),
            offline=_flag("POCKETLM_OFFLINE") or _flag("HF_HUB_OFFLINE"),
        )
