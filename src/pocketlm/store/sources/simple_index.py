"""Wheels of a package on a package index: the simple API as JSON (PEP 691) or HTML (PEP 503).

Also folders: an index on disk (``file:``), and the folders and pages of pip's ``find-links``.
Credentials come from the index URL or from ``.netrc`` and go to that host only.
"""

from __future__ import annotations

import base64
import html.parser
import json
import netrc
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from pocketlm.errors import NotFoundError, SourceError
from pocketlm.store.download import Remote
from pocketlm.store.sources.base import path_of

if TYPE_CHECKING:
    from pocketlm.store.sources.pip_settings import PipSettings
    from pocketlm.store.web import Web

_ACCEPT = (
    "application/vnd.pypi.simple.v1+json, "
    "application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Wheel:
    """One wheel that could be downloaded."""

    version: Version
    remote: Remote
    yanked: bool
    pure: bool


def find_wheel(package: str, version: str | None, settings: PipSettings, web: Web) -> Wheel:
    """The wheel of that version, or of the newest final one.

    A yanked wheel is taken only where its exact version is asked for (PEP 592). Raises
    NotFoundError where no index has it, SourceError where an index cannot be asked.
    """
    found: list[Wheel] = []
    for url in settings.indexes:
        found += _index(url, package, web)
    for link in settings.find_links:
        found += _links(link, package, web)
    if version is not None:
        usable = [wheel for wheel in found if _same(wheel.version, version)]
    else:
        usable = [wheel for wheel in found if not wheel.yanked]
        usable = [w for w in usable if not w.version.is_prerelease] or usable
    if not usable:
        asked = ", ".join(_shown(url) for url in (*settings.indexes, *settings.find_links))
        others = sorted({str(wheel.version) for wheel in found})
        have = f"; there are wheels of {', '.join(others)}" if others else ""
        raise NotFoundError(
            f"no wheel of {package}{f'=={version}' if version else ''} on {asked or 'no index'}"
            f"{have}",
            hint="The indexes are those that pip is configured with: see 'pip config list'.",
        )
    # Of equals the first index wins, as its wheel was found first.
    best = max((wheel.version, wheel.pure, not wheel.yanked) for wheel in usable)
    return next(w for w in usable if (w.version, w.pure, not w.yanked) == best)


def _same(version: Version, wanted: str) -> bool:
    try:
        return version == Version(wanted)
    except InvalidVersion:
        return False


def _index(url: str, package: str, web: Web) -> Iterator[Wheel]:
    page = url.rstrip("/") + f"/{package}/"
    if url.startswith("file:"):
        yield from _folder(path_of(page), package)
    else:
        yield from _page(page, package, web)


def _links(link: str, package: str, web: Web) -> Iterator[Wheel]:
    if link.startswith(("http:", "https:")):
        yield from _page(link, package, web)
    else:
        yield from _folder(path_of(link) if link.startswith("file:") else Path(link), package)


def _folder(path: Path, package: str) -> Iterator[Wheel]:
    """A folder of wheels, or one with an index.html, or a page."""
    page = path / "index.html" if path.is_dir() else path
    if page.is_file() and page.suffix in (".html", ".htm"):
        text = page.read_text("utf-8", errors="replace")
        yield from _from_html(text, page.absolute().as_uri(), package, {})
    elif path.is_dir():
        for file in sorted(path.glob("*.whl")):
            if wheel := _wheel(file.name, file.absolute().as_uri(), package):
                yield wheel


def _page(url: str, package: str, web: Web) -> Iterator[Wheel]:
    clean, headers = with_credentials(url)
    response, body = web.get(clean, {**headers, "Accept": _ACCEPT})
    if response.status_code == 404:
        return
    if response.status_code != 200:
        raise web.refusal(response, f"the page of {package}")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    base = str(response.request.url)
    if kind.endswith("json"):
        yield from _from_json(body, base, package, headers)
    else:
        yield from _from_html(body.decode("utf-8", errors="replace"), base, package, headers)


def _from_json(body: bytes, base: str, package: str, headers: Mapping[str, str]) -> Iterator[Wheel]:
    try:
        files = json.loads(body)["files"]
        for file in files:
            size, hashes = file.get("size"), file.get("hashes") or {}
            wheel = _wheel(
                file["filename"],
                urllib.parse.urljoin(base, file["url"]),
                package,
                sha256=hashes.get("sha256"),
                size=size if isinstance(size, int) else None,
                yanked=bool(file.get("yanked")),
                index=base,
                headers=headers,
            )
            if wheel:
                yield wheel
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"{_shown(base)} is not a page of the simple API: {error!r}") from error


class _Anchors(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found.append(dict(attrs))


def _from_html(text: str, base: str, package: str, headers: Mapping[str, str]) -> Iterator[Wheel]:
    parser = _Anchors()
    try:
        parser.feed(text)
        for anchor in parser.found:
            if wheel := _from_anchor(anchor, base, package, headers):
                yield wheel
    except (AssertionError, ValueError) as error:
        # AssertionError is html.parser's word for markup such as "<![x", ValueError for a bad URL.
        raise SourceError(f"{_shown(base)} is not a page of the simple API: {error}") from error


def _from_anchor(
    anchor: Mapping[str, str | None], base: str, package: str, headers: Mapping[str, str]
) -> Wheel | None:
    url = urllib.parse.urljoin(base, anchor.get("href") or "")
    address, _, fragment = url.partition("#")
    name = urllib.parse.unquote(urllib.parse.urlsplit(address).path.rpartition("/")[2])
    algorithm, _, digest = fragment.partition("=")
    return _wheel(
        name,
        address,
        package,
        sha256=digest if algorithm == "sha256" else None,
        yanked="data-yanked" in anchor,
        index=base,
        headers=headers,
    )


def _wheel(
    filename: str,
    url: str,
    package: str,
    *,
    sha256: str | None = None,
    size: int | None = None,
    yanked: bool = False,
    index: str = "",
    headers: Mapping[str, str] | None = None,
) -> Wheel | None:
    """None for anything that is not a wheel of that package."""
    if not filename.endswith(".whl"):
        return None
    try:
        name, version, _, tags = parse_wheel_filename(filename)
    except (InvalidWheelFilename, InvalidVersion):
        return None
    if name != canonicalize_name(package):
        return None
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise SourceError(f"the index gives '{sha256}' as SHA-256 of {filename}")
    if urllib.parse.urlsplit(url).netloc != urllib.parse.urlsplit(index).netloc:
        headers = {}
    clean, own = with_credentials(url) if url.startswith("http") else (url, {})
    remote = Remote(clean, filename, size, sha256, own or dict(headers or {}))
    return Wheel(version, remote, yanked, pure=any(tag.platform == "any" for tag in tags))


def with_credentials(url: str) -> tuple[str, dict[str, str]]:
    """The URL without user and password, and the header that carries them.

    Where the URL has none, those of ``.netrc`` for its host.
    """
    parts = urllib.parse.urlsplit(url)
    user, password = parts.username, parts.password
    clean = urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    if user is None:
        user, password = _from_netrc(parts.hostname or "")
    else:
        user, password = urllib.parse.unquote(user), urllib.parse.unquote(password or "")
    if user is None:
        return clean, {}
    token = base64.b64encode(f"{user}:{password or ''}".encode()).decode()
    return clean, {"Authorization": f"Basic {token}"}


def _from_netrc(host: str) -> tuple[str | None, str | None]:
    try:
        entry = netrc.netrc().authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return None, None
    return (entry[0], entry[2]) if entry else (None, None)


def _shown(url: str) -> str:
    """A URL as it may be printed: without its password."""
    parts = urllib.parse.urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
