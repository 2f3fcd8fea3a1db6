"""Every error that PocketLM raises on purpose, as one small tree.

    PocketLMError
    ├── SourceError        bytes could not be got (network, 404, no permission)   exit 1, HTTP 502
    ├── IntegrityError     not the bytes that were promised (hash, size)          exit 1, HTTP 500
    ├── ModelFileError     a file breaks its format                               exit 1, HTTP 422
    ├── UnsupportedError   valid, but not something we do                         exit 1, HTTP 501
    ├── RequestError       the caller's fault                                     exit 2, HTTP 400
    │   └── NotFoundError  the name asked for does not exist                      exit 1, HTTP 404
    ├── CapacityError      would not fit (memory, disk)                           exit 1, HTTP 507
    │   ├── ContextError   a prompt longer than the context                       exit 1, HTTP 400
    │   └── BusyError      more is asked at once than can wait                    exit 1, HTTP 503
    ├── WorkerError        the process that runs a model has ended                exit 1, HTTP 502
    └── Cancelled          stopped on request                                     exit 130, HTTP 499

A message says what, where, found and wanted; the hint says what to do. ``assert`` is for our own
bugs only.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class PocketLMError(Exception):
    """Base of the tree.

    Args:
        message: what happened, where, what was found and what was wanted.
        hint: what the user can do about it, as a full sentence.
        path: the file concerned, where there is one.
        offset: byte offset in that file, where there is one.
    """

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        path: str | Path | None = None,
        offset: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.path = Path(path) if path is not None else None
        self.offset = offset

    def __str__(self) -> str:
        where = ""
        if self.path is not None:
            at = f", byte {self.offset:,}" if self.offset is not None else ""
            where = f" ({self.path}{at})"
        hint = f" {self.hint}" if self.hint else ""
        return f"{self.message}{where}.{hint}" if (where or hint) else self.message


class SourceError(PocketLMError):
    """Bytes could not be got: no network, no such repository, no permission."""

    http_status = 502


class IntegrityError(PocketLMError):
    """The bytes are not the bytes that were promised: a hash or a size differs."""


class ModelFileError(PocketLMError):
    """A model file breaks its format; the message names the field."""

    http_status = 422


class UnsupportedError(PocketLMError):
    """Valid input that PocketLM does not handle: an architecture, a block type, a tokenizer."""

    http_status = 501


class RequestError(PocketLMError):
    """The caller asked for something that makes no sense: a bad ref, option or message."""

    exit_code = 2
    http_status = 400


class NotFoundError(RequestError):
    """The model, file or name that was asked for does not exist."""

    exit_code = 1
    http_status = 404


class CapacityError(PocketLMError):
    """It would not fit: memory, context, queue or disk; the message has the numbers."""

    http_status = 507


class ContextError(CapacityError):
    """A prompt, with the answer asked for, is longer than the context."""

    http_status = 400


class BusyError(CapacityError):
    """More is asked at once than can wait.

    Args:
        retry_after: seconds after which it is worth asking again.
    """

    http_status = 503

    def __init__(self, message: str, *, retry_after: float = 1.0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class WorkerError(PocketLMError):
    """The process that runs a model has ended while it was needed."""

    http_status = 502


class Cancelled(PocketLMError):  # noqa: N818 - it is no error of anybody
    """Stopped because the user or the client asked for it."""

    exit_code = 130
    http_status = 499
