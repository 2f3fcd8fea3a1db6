"""Which package indexes the user has configured, read as pip reads them.

Settings come from pip's configuration files (global, user, virtual environment, PIP_CONFIG_FILE:
later ones win), sections ``[global]`` then ``[download]``, and then from ``PIP_*`` variables. The
order and the names are those of pip's manual, "Configuration". Where no index is configured, pip's
own default is asked for, so this file knows no registry; otherwise pip need not be installed.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pocketlm.errors import RequestError

_KEYS = ("index-url", "extra-index-url", "find-links", "no-index", "cert", "proxy")


@dataclass(frozen=True)
class PipSettings:
    """Indexes in the order they are asked, links to look at beside them, and how to connect."""

    indexes: tuple[str, ...]
    find_links: tuple[str, ...]
    certificates: str | None = None
    proxy: str | None = None


def read_pip_settings() -> PipSettings:
    """Raises RequestError where a file cannot be read or no index is known."""
    values: dict[str, str] = {}
    for path in _configuration_files():
        values |= _read(path)
    for key in _KEYS:
        name = "PIP_" + key.upper().replace("-", "_")
        if os.environ.get(name):
            values[key] = os.environ[name]
    indexes: tuple[str, ...] = ()
    if values.get("no-index", "").lower() not in ("1", "true", "yes", "on"):
        first = values.get("index-url") or _default_index()
        indexes = (first, *values.get("extra-index-url", "").split())
    return PipSettings(
        indexes=indexes,
        find_links=tuple(values.get("find-links", "").split()),
        certificates=values.get("cert"),
        proxy=values.get("proxy"),
    )


def _default_index() -> str:
    try:
        from pip._internal.models.index import PyPI
    except ImportError as error:
        raise RequestError(
            "no package index is configured, and pip is not here to name its own",
            hint="Set PIP_INDEX_URL, or index-url in pip.conf.",
        ) from error
    return str(PyPI.simple_url)


def _configuration_files() -> Iterator[Path]:
    chosen = os.environ.get("PIP_CONFIG_FILE")
    if chosen == os.devnull:  # pip's way to say: none at all
        return
    home = Path.home()
    if os.name == "nt":
        yield Path(os.environ.get("PROGRAMDATA", r"C:\ProgramData"), "pip", "pip.ini")
        yield home / "pip" / "pip.ini"
        yield Path(os.environ.get("APPDATA", str(home)), "pip", "pip.ini")
        yield Path(sys.prefix, "pip.ini")
    else:
        for folder in reversed(os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")):
            yield Path(folder, "pip", "pip.conf")
        yield Path("/etc/pip.conf")
        yield home / ".pip" / "pip.conf"
        if sys.platform == "darwin":
            yield home / "Library" / "Application Support" / "pip" / "pip.conf"
        yield Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config", "pip", "pip.conf")
        yield Path(sys.prefix, "pip.conf")
    if chosen:
        yield Path(chosen)


def _read(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise RequestError(f"pip's configuration cannot be read: {error}", path=path) from error
    values: dict[str, str] = {}
    for section in ("global", "download"):
        if parser.has_section(section):
            for key, value in parser.items(section):
                name = key.replace("_", "-").lower()
                if name in _KEYS and value.strip():
                    values[name] = value.strip()
    return values
