"""Models of an Ollama registry, which speaks the protocol of container registries (OCI, v2).

A manifest lists layers by digest: the weights, and beside them template, parameters, system message
and licence, which are kept. A token is asked for only where the registry wants one, and only from
the registry's own host: a foreign realm could collect what is sent to it (CVE-2025-51471).
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pocketlm.errors import (
    IntegrityError,
    NotFoundError,
    RequestError,
    SourceError,
    UnsupportedError,
)
from pocketlm.store.download import Remote
from pocketlm.store.manifest import Role, Source
from pocketlm.store.refs import OLLAMA_HOST, OllamaRef
from pocketlm.store.sources.base import Found, Intake, Pin

if TYPE_CHECKING:
    import httpx

_ACCEPT = "application/vnd.docker.distribution.manifest.v2+json"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_LAYER = "application/vnd.ollama.image."
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
# Registries whose token service is known to be elsewhere.
_REALMS = {"hf.co": "huggingface.co"}
_KEPT: dict[str, tuple[Role, str]] = {
    "model": ("weights", ".gguf"),
    "projector": ("projector", "-projector.gguf"),
    "adapter": ("adapter", "-adapter.gguf"),
    "template": ("template", "template"),
    "prompt": ("template", "template"),
    "params": ("params", "params.json"),
    "system": ("system", "system"),
    "messages": ("messages", "messages.json"),
    "license": ("license", "license"),
}


@dataclass(frozen=True)
class _Layer:
    role: Role
    name: str
    sha256: str
    size: int


def fetch(ref: OllamaRef, pin: Pin, intake: Intake) -> Found:
    """Raises NotFoundError, SourceError, UnsupportedError (not a GGUF), IntegrityError."""
    base = _base(ref)
    repository = f"{base}/v2/{ref.namespace}/{ref.name}"
    document, headers = _manifest(ref, repository, intake)
    layers = read_layers(ref, document)
    records = tuple(
        intake.file(
            Remote(
                f"{repository}/blobs/sha256:{layer.sha256}",
                layer.name,
                layer.size,
                layer.sha256,
                headers,
            ),
            layer.role,
        )
        for layer in layers
    )
    for record in records:
        if record.role == "weights" and pin.sha256 not in (None, record.sha256):
            raise IntegrityError(
                f"{ref} is {record.sha256} now, the catalog pins {pin.sha256}",
                hint="The registry has replaced the model since the catalog was written.",
            )
    digest = hashlib.sha256(document).hexdigest()
    source = Source(ref=str(ref), url=repository, revision=f"sha256:{digest}")
    return Found(source, records, pin.licence)


def read_layers(ref: OllamaRef, document: bytes) -> list[_Layer]:
    """The layers that are kept. Nothing is trusted: a digest becomes a file name."""
    try:
        manifest = json.loads(document)
        version, listed = manifest["schemaVersion"], manifest["layers"]
        if version != 2 or not isinstance(listed, list):
            raise ValueError(f"schemaVersion is {version!r}, expected 2")
        layers: list[_Layer] = []
        for layer in listed:
            kind = str(layer["mediaType"]).removeprefix(_LAYER)
            if kind in _KEPT:
                layers.append(_layer(ref, kind, layer, {known.name for known in layers}))
        if isinstance(manifest.get("config"), dict):
            sha256, size = _digest_and_size(manifest["config"])
            layers.append(_Layer("other", "config.json", sha256, size))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SourceError(f"the manifest of {ref} is not one: {error!r}") from error
    if not any(layer.role == "weights" for layer in layers):
        raise UnsupportedError(
            f"{ref} has no GGUF layer",
            hint="It may run in the cloud only, or be of another format.",
        )
    return layers


def _layer(ref: OllamaRef, kind: str, layer: Mapping[str, object], taken: set[str]) -> _Layer:
    role, ending = _KEPT[kind]
    stem = f"{ref.name}-{ref.tag}" if ending.endswith(".gguf") else ""
    head, dot, tail = ending.partition(".")
    name, count = stem + ending, 1
    while name in taken:
        count += 1
        name = f"{stem}{head}-{count}{dot}{tail}"
    return _Layer(role, name, *_digest_and_size(layer))


def _digest_and_size(entry: Mapping[str, object]) -> tuple[str, int]:
    digest, size = entry["digest"], entry["size"]
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if match is None:
        raise ValueError(f"{digest!r} is not a digest")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError(f"{size!r} is not a size")
    return match[1], size


# The registry


def _base(ref: OllamaRef) -> str:
    """The registry's URL. Plain http is spoken to this machine only."""
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
    return where


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _manifest(ref: OllamaRef, repository: str, intake: Intake) -> tuple[bytes, dict[str, str]]:
    """The manifest's bytes and the header that the blobs are asked for with."""
    url = f"{repository}/manifests/{ref.tag}"
    headers: dict[str, str] = {}
    response, body = intake.web.get(url, {"Accept": _ACCEPT})
    if response.status_code == 401:
        headers = {"Authorization": f"Bearer {_token(ref, response, intake)}"}
        response, body = intake.web.get(url, {**headers, "Accept": _ACCEPT})
    if response.status_code == 404:
        raise NotFoundError(f"the registry {response.request.url.host} has no model {ref}")
    if response.status_code != 200:
        raise intake.web.refusal(response, str(ref))
    return body, headers


def _token(ref: OllamaRef, response: httpx.Response, intake: Intake) -> str:
    """An anonymous token, as the challenge of a 401 describes it (RFC 6750, OCI distribution)."""
    scheme, _, rest = response.headers.get("WWW-Authenticate", "").partition(" ")
    challenge = dict(_PARAMETER.findall(rest))
    here = response.request.url
    realm = urllib.parse.urlsplit(challenge.get("realm", ""))
    if scheme.lower() != "bearer" or not realm.hostname:
        raise SourceError(f"{here.host} wants a login that PocketLM does not know: {scheme!r}")
    if realm.netloc.lower() != here.netloc.decode().lower() and (
        _REALMS.get(here.host) != realm.hostname
    ):
        raise SourceError(
            f"{here.host} sends to {realm.hostname} for a token: a foreign realm is not trusted"
        )
    if realm.scheme != "https" and not (realm.scheme == "http" and here.scheme == "http"):
        raise SourceError(f"{here.host} wants a token to be asked for over plain http")
    query = {
        "service": challenge.get("service", ""),
        "scope": challenge.get("scope") or f"repository:{ref.namespace}/{ref.name}:pull",
    }
    url = urllib.parse.urlunsplit(realm._replace(query=urllib.parse.urlencode(query)))
    answer, body = intake.web.get(url, {"Accept": "application/json"})
    try:
        facts = json.loads(body)
        token = facts.get("token") or facts.get("access_token")
    except (ValueError, AttributeError):
        token = None
    if answer.status_code != 200 or not isinstance(token, str) or not token.isascii():
        raise SourceError(f"{realm.hostname} gave no token for {ref} ({answer.status_code})")
    return token
