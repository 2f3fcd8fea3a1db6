"""A hub on this machine for searches: it filters, sorts, pages and gives parts of files."""

from __future__ import annotations

import json
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from store.local_server import LocalServer, Request, Resource

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def record(repo: str, **facts: Any) -> dict[str, Any]:
    """What the hub says of a model, with everything that a search asks it to expand."""
    return {
        "_id": "65f0", "id": repo, "modelId": repo, "author": repo.partition("/")[0],
        "sha": COMMIT, "private": False, "gated": False, "downloads": 100, "likes": 5,
        "trendingScore": 1, "library_name": "transformers", "pipeline_tag": "text-generation",
        "createdAt": "2026-01-02T03:04:05.000Z", "lastModified": "2026-06-07T08:09:10.000Z",
        "tags": ["transformers", "safetensors", "license:apache-2.0", "region:us"],
        "cardData": {"license": "apache-2.0", "language": ["en", "es"]},
        "siblings": [{"rfilename": "README.md"}],
    } | facts  # fmt: skip


@dataclass
class FakeHub:
    """``records`` in the order of the answer, ``page`` of them at a time."""

    server: LocalServer
    records: list[Any] = field(default_factory=list)
    page: int = 100
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    statuses: list[int] = field(default_factory=list)
    etag: str | None = None
    token: str | None = None
    body: bytes | None = None

    def __post_init__(self) -> None:
        self.server.resources["/api/models"] = self._list

    @property
    def asked(self) -> list[Request]:
        return self.server.asked("/api/models")

    def put(self, repo: str, name: str, data: bytes, commit: str = COMMIT) -> list[Request]:
        """A file of a repository; the requests for it are in the list."""
        requests: list[Request] = []
        size = len(data)

        def part(request: Request) -> Resource:
            requests.append(request)
            start, _, end = request.headers["range"].removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end), size - 1)
            span = {"Content-Range": f"bytes {first}-{last}/{size}"}
            return Resource(data[first : last + 1], status=206, headers=span)

        self.server.resources[f"/{repo}/resolve/{commit}/{name}"] = part
        return requests

    def _list(self, request: Request) -> Resource:
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return Resource(b'{"error":"Invalid credentials"}', status=401)
        status = self.statuses.pop(0) if self.statuses else self.status
        if status != 200:
            return Resource(b"{}", status=status, headers=self.headers)
        if self.etag is not None and request.headers.get("if-none-match") == self.etag:
            return Resource(b"", status=304, headers={"ETag": self.etag})
        query = dict(urllib.parse.parse_qsl(request.path.partition("?")[2]))
        start = int(query.get("cursor", 0))
        shown = self.records[start : start + self.page]
        headers = dict(self.headers) | {"Content-Type": "application/json"}
        if self.etag is not None:
            headers["ETag"] = self.etag
        if start + self.page < len(self.records):
            url = f"{self.server.url}{request.path}&cursor={start + self.page}"
            headers["Link"] = f'<{url}>; rel="next"'
        body = json.dumps(shown).encode() if self.body is None else self.body
        return Resource(body, headers=headers)
