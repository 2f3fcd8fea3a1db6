"""A web server on this machine that speaks the sources' protocols, and misbehaves on demand.

Standard library only. A ``LocalServer`` serves ``Resource``s by path and logs every request; the
functions below put a hub repository, a registry model or a package index on it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from pocketlm.store.download import Patience

# A connection that breaks is tried again at once, and not for long.
QUICK = Patience(tries=4, first_wait_s=0.01, longest_wait_s=0.02)


@dataclass
class Resource:
    """What a path answers.

    Attributes:
        cuts: the n-th GET of the path ends the connection after that many bytes of its body.
        pause: after that many bytes the body waits until ``go`` is set; ``reached`` tells the test.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    etag: str | None = None
    ranges: bool = True
    sized: bool = True
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    pause: int | None = None
    reached: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    token: str | None = None


@dataclass(frozen=True)
class Request:
    path: str
    headers: Mapping[str, str]
    port: int
    content: bytes = b""


class LocalServer:
    """Listens on a free port of 127.0.0.1 while its block runs."""

    def __init__(self) -> None:
        self.resources: dict[str, Resource | Callable[[Request], Resource]] = {}
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two writes: 40 ms apart otherwise

            def do_GET(self) -> None:
                outer._answer(self)

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                outer._answer(self, self.rfile.read(length))

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                pass  # the client has gone: a test killed it, or gave up

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> LocalServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for resource in self.resources.values():
            if isinstance(resource, Resource):
                resource.go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def put(self, path: str, body: bytes = b"", **facts: object) -> Resource:
        resource = Resource(body, **facts)  # type: ignore[arg-type]
        self.resources[path] = resource
        return resource

    def asked(self, path: str) -> list[Request]:
        """The requests for a path, in order."""
        return [request for request in self.requests if request.path.partition("?")[0] == path]

    def _answer(self, handler: BaseHTTPRequestHandler, content: bytes = b"") -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        request = Request(handler.path, headers, self.port, content)
        with self._lock:
            self.requests.append(request)
        found = self.resources.get(handler.path.partition("?")[0], Resource(status=404))
        resource = found if isinstance(found, Resource) else found(request)
        try:
            self._send(handler, request, resource)
        except OSError:
            handler.close_connection = True  # the client has gone: a test killed it

    def _send(self, handler: BaseHTTPRequestHandler, request: Request, resource: Resource) -> None:
        status, body, headers = resource.status, resource.body, dict(resource.headers)
        if resource.token and request.headers.get("authorization") != resource.token:
            status, body = 401, b""
        elif resource.statuses:
            status, body = resource.statuses.pop(0), b""
        elif status == 200:
            status, body, extra = _ranged(request, resource)
            headers |= extra
        cut = resource.cuts.pop(0) if resource.cuts and body else None
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        if resource.sized:
            handler.send_header("Content-Length", str(len(body)))
        else:
            handler.send_header("Connection", "close")
            handler.close_connection = True
        handler.end_headers()
        if cut is not None:
            body = body[:cut]
            handler.close_connection = True
        if resource.pause is not None and len(body) > resource.pause:
            handler.wfile.write(body[: resource.pause])
            handler.wfile.flush()
            resource.reached.set()
            resource.go.wait(30)
            body = body[resource.pause :]
        handler.wfile.write(body)


def _ranged(request: Request, resource: Resource) -> tuple[int, bytes, dict[str, str]]:
    headers = {"ETag": resource.etag} if resource.etag else {}
    body, total = resource.body, len(resource.body)
    asked = request.headers.get("range")
    condition = request.headers.get("if-range")
    if not resource.ranges or asked is None or (condition and condition != resource.etag):
        return 200, body, headers
    start = int(asked.removeprefix("bytes=").partition("-")[0])
    if start >= total:
        return 416, b"", headers | {"Content-Range": f"bytes */{total}"}
    span = f"bytes {start}-{total - 1}/{total}"
    return 206, body[start:], headers | {"Content-Range": span}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# The hub


def hub_repo(
    server: LocalServer,
    repo: str,
    files: Mapping[str, bytes],
    *,
    commit: str = "0123456789abcdef0123456789abcdef01234567",
    revision: str = "main",
    large: tuple[str, ...] = (".gguf", ".safetensors"),
    tags: tuple[str, ...] = ("license:apache-2.0",),
    token: str | None = None,
) -> None:
    """Model info as JSON and every file under resolve/COMMIT."""
    siblings = []
    for name, data in files.items():
        git_id = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": git_id}
        if name.endswith(large):
            entry["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 134}
        siblings.append(entry)
        facts = {
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{sha256(data)}"',
            "X-Linked-Size": str(len(data)),
            "Accept-Ranges": "bytes",
        }
        path = f"/{repo}/resolve/{commit}/{name}"
        server.put(path, data, etag=f'"{sha256(data)}"', headers=facts, token=token)
    info = {
        "id": repo, "modelId": repo, "sha": commit, "private": False, "tags": list(tags),
        "downloads": 1, "likes": 0, "siblings": siblings,
    }  # fmt: skip
    for path in (f"/api/models/{repo}", f"/api/models/{repo}/revision/{revision}"):
        server.put(
            path,
            json.dumps(info).encode(),
            headers={"Content-Type": "application/json", "X-Repo-Commit": commit},
            token=token,
        )


def hub_error(server: LocalServer, path: str, status: int, code: str, message: str = "") -> None:
    """An error as the hub gives it, with its kind in a header."""
    server.put(
        path,
        json.dumps({"error": message or code}).encode(),
        status=status,
        headers={
            "X-Error-Code": code,
            "X-Error-Message": message or code,
            "Content-Type": "application/json",
        },
    )


# An Ollama registry

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
LAYER = "application/vnd.ollama.image."


def registry_model(
    server: LocalServer,
    name: str,
    tag: str,
    layers: Mapping[str, bytes],
    *,
    token: str | None = None,
) -> bytes:
    """Manifest and blobs of ``library/NAME:TAG``; the manifest's bytes."""
    config = b'{"model_format":"gguf"}'
    listed = [
        {"mediaType": LAYER + kind, "digest": f"sha256:{sha256(data)}", "size": len(data)}
        for kind, data in layers.items()
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": f"sha256:{sha256(config)}",
            "size": len(config),
        },
        "layers": listed,
    }
    document = json.dumps(manifest).encode()
    base = f"/v2/library/{name}"
    server.put(f"{base}/manifests/{tag}", document, headers={"Content-Type": MANIFEST}, token=token)
    for data in (config, *layers.values()):
        server.put(f"{base}/blobs/sha256:{sha256(data)}", data, token=token)
    return document


# Package indexes


def wheel(
    package: str,
    members: Mapping[str, bytes],
    *,
    version: str = "1.0",
    requires: tuple[str, ...] = (),
    record: Mapping[str, bytes] | None = None,
) -> tuple[str, bytes]:
    """File name and bytes of a wheel. ``record`` gives other contents for RECORD to vouch for."""
    module = package.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}"]
    metadata += [f"Requires-Dist: {line}" for line in requires]
    all_members = {
        **members,
        f"{info}/METADATA": "\n".join(metadata).encode() + b"\n\nText.\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for name, data in {**all_members, **(record or {})}.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}")
    rows.append(f"{info}/RECORD,,")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in all_members.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "\n".join(rows))
    return f"{module}-{version}-py3-none-any.whl", buffer.getvalue()


def simple_index(
    server: LocalServer,
    package: str,
    *wheels: tuple[str, bytes],
    html: bool = False,
    yanked: tuple[str, ...] = (),
    root: str = "/simple",
    hashes: bool = True,
) -> None:
    """The page of a package and its files, as JSON (PEP 691) or HTML (PEP 503)."""
    entries = []
    anchors = []
    for name, data in wheels:
        path = f"/files/{name}"
        server.put(path, data, etag=f'"{sha256(data)[:16]}"')
        entry: dict[str, object] = {"filename": name, "url": f"../..{path}", "size": len(data)}
        entry["hashes"] = {"sha256": sha256(data)} if hashes else {}
        entry["yanked"] = name in yanked
        entries.append(entry)
        fragment = f"#sha256={sha256(data)}" if hashes else ""
        mark = ' data-yanked=""' if name in yanked else ""
        anchors.append(f'<a href="../..{path}{fragment}"{mark}>{name}</a>')
    page = f"{root}/{package}/"
    if html:
        text = "<!DOCTYPE html><html><body>" + "<br>".join(anchors) + "</body></html>"
        server.put(page, text.encode(), headers={"Content-Type": "text/html; charset=utf-8"})
    else:
        document = {"meta": {"api-version": "1.1"}, "name": package, "files": entries}
        kind = "application/vnd.pypi.simple.v1+json"
        server.put(page, json.dumps(document).encode(), headers={"Content-Type": kind})
