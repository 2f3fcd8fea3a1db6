"""``push``: a model to a registry, in the layers that Ollama's clients and ours pull.

Blobs go first, each only where the registry has not got it, the manifest last; so a push that
breaks off leaves nothing that could be pulled. The weights are sent as they lie on the disk.
"""

from __future__ import annotations

import hashlib
import json
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketlm.errors import IntegrityError, RequestError, SourceError, UnsupportedError
from pocketlm.progress import Progress, ProgressCallback, silent
from pocketlm.store.files import chunks_of, hash_file
from pocketlm.store.manifest import FileRecord, Manifest, Role
from pocketlm.store.refs import OllamaRef
from pocketlm.store.registry import LAYER_TYPE, MANIFEST_TYPE, authorization, repository_url
from pocketlm.store.shelf import Shelf, StoredModel

if TYPE_CHECKING:
    import httpx

    from pocketlm.store.web import Web

_CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
_LAYERS: Mapping[Role, str] = {
    "weights": "model",
    "projector": "projector",
    "adapter": "adapter",
    "template": "template",
    "system": "system",
    "params": "params",
    "messages": "messages",
    "license": "license",
}


@dataclass(frozen=True)
class Pushed:
    """What was pushed where. ``digest`` is of the manifest, hex."""

    model: str
    target: str
    digest: str
    size: int


@dataclass(frozen=True)
class _Blob:
    name: str
    sha256: str
    size: int
    content: Path | bytes


def push(
    shelf: Shelf,
    model: StoredModel,
    target: OllamaRef,
    web: Web,
    progress: ProgressCallback = silent,
) -> Pushed:
    """Puts a model of the store onto a registry.

    Raises UnsupportedError for what its layers cannot hold, IntegrityError for a blob that is not
    what it was, SourceError where the registry refuses.
    """
    manifest = model.manifest
    if manifest is None:
        raise RequestError(
            f"{model.name} is a file, not a model of the store",
            hint=f"'pocketlm import {model.path}' gives it a name.",
        )
    if manifest.facts.format != "gguf":
        raise UnsupportedError(
            f"{manifest.name} is a folder of safetensors: a registry keeps GGUF",
            hint="'pocketlm convert' writes it as GGUF.",
        )
    config = _config(shelf, manifest)
    layers = [(_LAYERS[f.role], _blob(shelf, f)) for f in manifest.files if f.role in _LAYERS]
    document = _document(config, layers)
    registry = _Registry(target, web)
    for blob in (*(blob for _, blob in layers), config):
        registry.put_blob(blob, progress)
    digest = registry.put_manifest(document)
    return Pushed(manifest.name, str(target), digest, sum(blob.size for _, blob in layers))


def _blob(shelf: Shelf, file: FileRecord) -> _Blob:
    return _Blob(file.name, file.sha256, file.size, shelf.file_path(file))


def _config(shelf: Shelf, manifest: Manifest) -> _Blob:
    """The one that a pulled model came with, else one that says what the model is."""
    for file in manifest.files:
        if file.role == "other" and file.name == "config.json":
            return _blob(shelf, file)
    facts = manifest.facts
    layers = [f"sha256:{file.sha256}" for file in manifest.files if file.role in _LAYERS]
    data = _encoded(
        {
            "model_format": "gguf",
            "model_family": facts.family,
            "model_families": [facts.family],
            "model_type": f"{facts.parameters / 1e6:.2f}M",
            "file_type": facts.quantization,
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": layers},
        }
    )
    return _Blob("config.json", _hash(data), len(data), data)


def _document(config: _Blob, layers: list[tuple[str, _Blob]]) -> bytes:
    listed = [_entry(LAYER_TYPE + kind, blob) for kind, blob in layers]
    return _encoded(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _entry(_CONFIG_TYPE, config),
            "layers": listed,
        }
    )


def _entry(kind: str, blob: _Blob) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{blob.sha256}", "size": blob.size}


def _encoded(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Registry:
    """One repository, and the right to write to it once that was asked for."""

    def __init__(self, target: OllamaRef, web: Web) -> None:
        self._target = target
        self._web = web
        self._url = repository_url(target)
        self._rights: dict[str, str] = {}

    def put_blob(self, blob: _Blob, progress: ProgressCallback) -> None:
        """Sends a blob where the registry has not got it."""
        task = f"push {blob.name}"
        progress(Progress(task, 0, blob.size, blob.sha256))
        digest = f"sha256:{blob.sha256}"
        if self._ask("HEAD", f"{self._url}/blobs/{digest}", (200, 404)).status_code == 404:
            self._check(blob)
            begun = self._ask("POST", f"{self._url}/blobs/uploads/", (202,))
            where = self._location(begun)
            mark = "&" if urllib.parse.urlsplit(where).query else "?"
            url = f"{where}{mark}{urllib.parse.urlencode({'digest': digest})}"
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(blob.size),
                **self._rights,
            }
            sent = self._web.send("PUT", url, headers, _content(blob, task, progress))
            if sent.status_code != 201:
                raise self._refusal(sent, blob.name)
        progress(Progress(task, blob.size, blob.size, blob.sha256))

    def put_manifest(self, document: bytes) -> str:
        """Makes the model known; its digest."""
        url = f"{self._url}/manifests/{self._target.tag}"
        kind = {"Content-Type": MANIFEST_TYPE}
        self._ask("PUT", url, (200, 201, 202), headers=kind, content=document)
        return _hash(document)

    def _ask(
        self,
        method: str,
        url: str,
        expected: tuple[int, ...],
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
    ) -> httpx.Response:
        given = {**(headers or {})}
        response = self._web.send(method, url, {**given, **self._rights}, content)
        if response.status_code == 401:
            self._rights = authorization(self._target, response, self._web, actions="pull,push")
            response = self._web.send(method, url, {**given, **self._rights}, content)
        if response.status_code not in expected:
            raise self._refusal(response, str(self._target))
        return response

    def _location(self, response: httpx.Response) -> str:
        """Where the upload goes. It takes our rights along, so it has to be the same host."""
        here = response.request.url
        given = response.headers.get("Docker-Upload-Location") or response.headers.get("Location")
        if not given:
            raise SourceError(f"{here.host} does not say where the upload is to go")
        url = here.join(given)
        if (url.scheme, url.host, url.port) != (here.scheme, here.host, here.port):
            raise SourceError(f"{here.host} sends the upload to {url.host}: it is not followed")
        return str(url)

    def _check(self, blob: _Blob) -> None:
        if isinstance(blob.content, Path) and hash_file(blob.content) != blob.sha256:
            raise IntegrityError(
                f"{blob.name} is not what it was: it is not pushed",
                path=blob.content,
                hint="Run 'pocketlm verify'.",
            )

    def _refusal(self, response: httpx.Response, what: str) -> Exception:
        host, status = response.request.url.host, response.status_code
        said = " ".join(response.text[:200].split())
        return SourceError(
            f"{host} refused the push of {what} ({status}){': ' + said if said else ''}",
            hint=f"A login for it goes into ~/.netrc: machine {host} login … password …"
            if status in (401, 403)
            else None,
        )


def _content(blob: _Blob, task: str, progress: ProgressCallback) -> Iterator[bytes]:
    if isinstance(blob.content, bytes):
        yield blob.content
        return
    done = 0
    for chunk in chunks_of(blob.content):
        yield chunk
        done += len(chunk)
        progress(Progress(task, done, blob.size, blob.sha256))
