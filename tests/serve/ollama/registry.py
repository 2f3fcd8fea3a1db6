"""A registry that keeps what is pushed to it: the protocol of OCI distribution, in memory."""

from __future__ import annotations

import hashlib
import re
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


class Registry:
    """Listens on a free port of 127.0.0.1 while its block runs.

    Attributes:
        token: that it wants, None for everybody. realm: where it says that tokens are to be had.
        upload_to: where uploads are to go, instead of itself. requests: method and path of each.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.token: str | None = None
        self.realm: str | None = None
        self.upload_to = ""
        self.refuses: dict[str, int] = {}  # a part of a path: the status it gets
        self.logins: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                outer._answer(self, self.rfile.read(length))

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = answer

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> Registry:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        path, _, query = handler.path.partition("?")
        self.requests.append((handler.command, path))
        status, headers, content = self._result(handler, path, urllib.parse.parse_qs(query), body)
        for part, refusal in self.refuses.items():
            if part in path and handler.command in ("PUT", "POST"):
                status, headers, content = refusal, {}, b"no room"
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content)

    def _result(
        self, handler: BaseHTTPRequestHandler, path: str, query: dict[str, list[str]], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        given = handler.headers.get("Authorization")
        if path == "/token":
            self.logins.append(given)
            return 200, {}, f'{{"token": "{self.token}"}}'.encode()
        if self.token is not None and given != f"Bearer {self.token}":
            realm = self.realm or f"{self.url}/token"
            return 401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="reg"'}, b""
        if path.endswith("/blobs/uploads/"):
            return 202, {"Location": f"{self.upload_to}{path}42?state=x"}, b""
        if path.endswith("/blobs/uploads/42"):
            digest = query["digest"][0]
            found = f"sha256:{hashlib.sha256(body).hexdigest()}"
            if query["state"] != ["x"] or found != digest:
                return 400, {}, b"digest mismatch"
            self.blobs[digest] = body
            return 201, {}, b""
        if match := re.fullmatch(r".*/blobs/(sha256:[0-9a-f]{64})", path):
            blob = self.blobs.get(match[1])
            return (404, {}, b"") if blob is None else (200, {}, blob)
        if handler.command == "PUT":
            self.manifests[path] = body
            return 201, {}, b""
        manifest = self.manifests.get(path)
        return (404, {}, b"") if manifest is None else (200, {}, manifest)
