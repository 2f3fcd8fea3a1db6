"""Headers of weights that lie on the hub, by a few range requests, and what they count.

The hub's own totals count elements as they are stored: a tied head that is stored twice, packed
weights as bytes. Counted here is what the store counts when the model is here, by the same code.
A header is asked for in pieces, each no larger than it needs to be, and never more than
``MOST_HEADER`` of one file.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pocketlm.errors import BusyError, ModelFileError, SourceError, UnsupportedError
from pocketlm.gguf.prefix import TooShortError, parse_prefix
from pocketlm.gguf.reader import Part
from pocketlm.search.answers import retry_after
from pocketlm.store.facts import gguf_parameters, safetensors_parameters, safetensors_tensors
from pocketlm.store.refs import HubRef
from pocketlm.store.sources.hub import Entry, choose
from pocketlm.store.web import Web

MOST_HEADER = 32 << 20
MOST_FILES = 24
_FIRST_GGUF = 1 << 20
_MORE_GGUF = 2 << 20
_FIRST_SAFETENSORS = 128 << 10
_MOST_CONFIG = 4 << 20
_TOTAL = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_BESIDE = re.compile(r"adapter_|mmproj|imatrix|.*[-_.]imatrix", re.IGNORECASE)


class Repository:
    """Files of one commit of a repository, read in part.

    Args:
        base: URL of the folder ``resolve/COMMIT/``.
        headers: for the hub, such as the token.

    Attributes:
        received: bytes of files so far.
    """

    def __init__(self, web: Web, base: str, headers: Mapping[str, str]) -> None:
        self._web, self._base, self._headers = web, base, headers
        self.received = 0

    def read(self, name: str, start: int, end: int) -> tuple[bytes, int]:
        """Bytes ``start`` to before ``end`` of a file, fewer where it ends, and its size.

        Raises SourceError and NotFoundError, BusyError where the hub wants to be left alone.
        """
        url = self._base + urllib.parse.quote(name)
        asked = dict(self._headers) | {
            "Range": f"bytes={start}-{end - 1}",
            "Accept-Encoding": "identity",
        }

        def broken(error: Exception) -> Exception:
            return SourceError(f"{name} broke off: {error or type(error).__name__}")

        with self._web.stream(url, asked, broken) as response:
            if response.status_code == 429:
                wait = retry_after(response, datetime.now(UTC))
                raise BusyError("the hub has had too many requests (429)", retry_after=wait or 60.0)
            if response.status_code not in (200, 206):
                raise self._web.refusal(response, name)
            first, size = _place(response.status_code, response.headers, name)
            if first != start:
                raise SourceError(f"{name}: the server does not give parts of files")
            data = bytearray()
            for chunk in self._web.chunks(response, broken):
                data += chunk
                self.received += len(chunk)
                if len(data) >= end - start:
                    break
        return bytes(data[: end - start]), size


def _place(status: int, headers: Mapping[str, str], name: str) -> tuple[int, int]:
    """Where the answer begins in the file, and the file's size. A whole file begins at 0."""
    if status == 206:
        match = _TOTAL.fullmatch(headers.get("Content-Range", "").strip())
        if match is not None:
            return int(match[1]), int(match[3])
    else:
        length = headers.get("Content-Length", "")
        if length.isascii() and length.isdigit() and len(length) < 19:
            return 0, int(length)
    raise SourceError(f"the server does not say how large {name} is")


def count_parameters(repository: Repository, repo: str, files: Sequence[str]) -> int:
    """Parameters of the repository's model: its safetensors, else the first of its GGUF files.

    Raises PocketLMError that says why it cannot be counted.
    """
    weights = _weights(repo, files)
    if len(weights) > MOST_FILES:
        raise UnsupportedError(f"the weights are {len(weights)} files, more than {MOST_FILES}")
    if weights[0].lower().endswith(".gguf"):
        return sum(gguf_parameters(gguf_header(repository, name).tensors) for name in weights)
    config = read_config(repository)
    tensors: dict[str, tuple[str, int]] = {}
    for name in weights:
        tensors |= safetensors_tensors(safetensors_header(repository, name)[0], Path(name))
    return safetensors_parameters(config, tensors)[0]


def _weights(repo: str, files: Sequence[str]) -> list[str]:
    """The files that a pull without a choice would take; any one of several GGUFs."""
    org, _, name = repo.rpartition("/")
    named = [file for file in files if not _BESIDE.match(file.rpartition("/")[2])]
    entries = [Entry(file, None, None, None) for file in named]
    ggufs = sorted(file for file in named if file.lower().endswith(".gguf"))
    whole = "config.json" in files and any(
        e.path.endswith(".safetensors") and "/" not in e.path for e in entries
    )
    wanted = None if whole or not ggufs else ggufs[0]
    chosen = choose(HubRef(org, name, "main", wanted), entries)
    return [entry.path for entry, role in chosen if role == "weights"]


def read_config(repository: Repository) -> Mapping[str, object]:
    """config.json. Raises ModelFileError where it is not a JSON object."""
    text, size = repository.read("config.json", 0, _MOST_CONFIG)
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError("config.json is not JSON") from error
    if size > _MOST_CONFIG or not isinstance(config, dict):
        raise ModelFileError("config.json is not a JSON object")
    return config


def safetensors_header(repository: Repository, name: str) -> tuple[bytes, int]:
    """The header's JSON, behind 8 bytes of its length (safetensors README), and the file's size.

    Raises ModelFileError for a length that cannot be, SourceError where the file breaks off.
    """
    data, size = repository.read(name, 0, _FIRST_SAFETENSORS)
    end = 8 + int.from_bytes(data[:8], "little")
    if len(data) < 8 or end > min(size, MOST_HEADER):
        raise ModelFileError(f"{name} claims a header of {end - 8:,} bytes")
    if end > len(data):
        data += repository.read(name, len(data), end)[0]
    if end > len(data):
        raise SourceError(f"{name} broke off")
    return data[8:end], size


def gguf_header(repository: Repository, name: str) -> Part:
    """A GGUF file without its weights. Raises what ``parse_prefix`` does, and SourceError."""
    data, size = repository.read(name, 0, _FIRST_GGUF)
    while True:
        try:
            return parse_prefix(data, size, Path(name))
        except TooShortError:
            end = min(len(data) + _MORE_GGUF, size, MOST_HEADER)
            if end <= len(data):
                raise ModelFileError(f"the header of {name} does not end") from None
        more = repository.read(name, len(data), end)[0]
        if not more:
            raise SourceError(f"{name} broke off")
        data += more
