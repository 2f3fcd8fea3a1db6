"""Registries of models: where one is reached, and how it lets one in.

They speak the protocol of container registries (OCI distribution, v2). A token is asked for only
where the registry wants one, and only from the registry's own host: a foreign realm could collect
what is sent to it (CVE-2025-51471). A name and a password come from ``.netrc`` and go to that host.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import netrc
import os
import re
import urllib.parse
from typing import TYPE_CHECKING

from pocketlm.errors import RequestError, SourceError
from pocketlm.store.refs import OLLAMA_HOST, OllamaRef

if TYPE_CHECKING:
    import httpx

    from pocketlm.store.web import Web

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
LAYER_TYPE = "application/vnd.ollama.image."

_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
# Registries whose token service is known to be elsewhere.
_REALMS = {"hf.co": "huggingface.co"}


def repository_url(ref: OllamaRef) -> str:
    """The URL of a model at its registry. Plain http is spoken to this machine only."""
    where = os.environ.get("POCKETLM_OLLAMA_REGISTRY") if ref.host == OLLAMA_HOST else None
    where = (where or ref.host).rstrip("/")
    if "://" not in where:
        host = urllib.parse.urlsplit(f"//{where}").hostname or ""
        where = f"{'http' if _is_loopback(host) else 'https'}://{where}"
    parts = urllib.parse.urlsplit(where)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RequestError(f"'{where}' is not the URL of a registry")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise RequestError(
            f"the registry {parts.hostname} would be spoken to over plain http",
            hint="Use https; http is for registries on this machine.",
        )
    return f"{where}/v2/{ref.namespace}/{ref.name}"


def authorization(
    ref: OllamaRef, response: httpx.Response, web: Web, *, actions: str = "pull"
) -> dict[str, str]:
    """The header that a registry wants, as its 401 describes it (RFC 6750, OCI distribution).

    actions: "pull" or "pull,push". Raises SourceError for a realm that is not trusted.
    """
    scheme, _, rest = response.headers.get("WWW-Authenticate", "").partition(" ")
    challenge = dict(_PARAMETER.findall(rest))
    here = response.request.url
    login = _login(here.host)
    if scheme.lower() == "basic" and login and "realm" in challenge:
        return {"Authorization": login}
    realm = urllib.parse.urlsplit(challenge.get("realm", ""))
    if scheme.lower() != "bearer" or not realm.hostname:
        raise SourceError(
            f"{here.host} wants a login that PocketLM does not know: {scheme!r}",
            hint=f"A name and a password for it go into ~/.netrc: machine {here.host} …",
        )
    own = realm.netloc.lower() == here.netloc.decode().lower()
    if not own and _REALMS.get(here.host) != realm.hostname:
        raise SourceError(
            f"{here.host} sends to {realm.hostname} for a token: a foreign realm is not trusted"
        )
    if realm.scheme != "https" and not (realm.scheme == "http" and here.scheme == "http"):
        raise SourceError(f"{here.host} wants a token to be asked for over plain http")
    query = {
        "service": challenge.get("service", ""),
        "scope": challenge.get("scope") or f"repository:{ref.namespace}/{ref.name}:{actions}",
    }
    url = urllib.parse.urlunsplit(realm._replace(query=urllib.parse.urlencode(query)))
    headers = {"Accept": "application/json"}
    if own and login:
        headers["Authorization"] = login
    answer, body = web.get(url, headers)
    try:
        facts = json.loads(body)
        token = facts.get("token") or facts.get("access_token")
    except (ValueError, AttributeError):
        token = None
    if answer.status_code != 200 or not isinstance(token, str) or not token.isascii():
        raise SourceError(f"{realm.hostname} gave no token for {ref} ({answer.status_code})")
    return {"Authorization": f"Bearer {token}"}


def _login(host: str) -> str | None:
    """What ``.netrc`` has for a host, as a header; never its default entry."""
    try:
        entries = netrc.netrc()
    except (OSError, netrc.NetrcParseError):
        return None
    entry = entries.hosts.get(host)
    if entry is None or entry[2] is None:
        return None
    pair = f"{entry[0]}:{entry[2]}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
