"""API keys: ``plm_<id>_<secret>``, of which only the SHA-256 of the secret is kept.

The secret is 192 random bits, so a fast hash is enough: there is nothing to guess. All keys are in
one file of the store, ``keys.json``, written whole or not at all; a running server sees changes
with the next request. Revoked keys stay in the file: a server that had keys never becomes open
because the last one was revoked.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from pocketlm.errors import ModelFileError, NotFoundError, RequestError
from pocketlm.files import commit, write_all
from pocketlm.store.locks import locked

Scope = Literal["infer", "manage", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_FORM = re.compile(r"plm_([0-9a-f]{12})_([A-Za-z0-9_-]{32})")
_SECRET_BYTES = 24
_MOST_BYTES = 4 << 20
_VERSION = 1
_PERIODS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_DAYS = {"m": 1 / 1440, "h": 1 / 24, "d": 1.0, "w": 7.0, "y": 365.0}


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests in so many seconds."""

    requests: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """What is kept of a key.

    Attributes:
        id: names it, in logs and lists.
        name: what its owner calls it.
        hash: SHA-256 of the secret, hex.
        scopes: what it may do.
        models: patterns of the models it may use; none is all.
        concurrency: requests at once; None is any number.
    """

    id: str
    name: str
    hash: str
    scopes: tuple[Scope, ...] = ("infer",)
    models: tuple[str, ...] = ()
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    expires: datetime | None = None
    revoked: datetime | None = None
    rate: Rate | None = None
    concurrency: int | None = None

    def allows(self, scope: Scope) -> bool:
        return scope in self.scopes or "admin" in self.scopes

    def allows_model(self, name: str) -> bool:
        return not self.models or any(fnmatchcase(name, glob) for glob in self.models)

    def state(self, now: datetime) -> Literal["valid", "expired", "revoked"]:
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "valid"


_keys = TypeAdapter(tuple[Key, ...])


def make_key(
    name: str,
    *,
    scopes: Sequence[Scope] = ("infer",),
    models: Sequence[str] = (),
    lifetime: timedelta | None = None,
    rate: Rate | None = None,
    concurrency: int | None = None,
) -> tuple[Key, str]:
    """A new key and its text, which cannot be had again. Raises RequestError for a bad name."""
    if not (0 < len(name) <= 64 and name.isprintable()):
        raise RequestError(f"a key's name has 1 to 64 printable characters, {name!r} does not")
    id, secret = secrets.token_hex(6), secrets.token_urlsafe(_SECRET_BYTES)
    now = datetime.now(UTC)
    key = Key(
        id=id,
        name=name,
        hash=_hash(secret),
        scopes=tuple(dict.fromkeys(scopes)) or ("infer",),
        models=tuple(models),
        created=now,
        expires=None if lifetime is None else now + lifetime,
        rate=rate,
        concurrency=concurrency,
    )
    return key, f"plm_{id}_{secret}"


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class KeyFile:
    """The keys below a store's folder; any number of processes may read and write it.

    Args:
        home: the store's folder.
        locks: where it keeps its locks.
    """

    def __init__(self, home: Path, locks: Path) -> None:
        self.path = home / "keys.json"
        self._locks = locks
        self._seen: tuple[int, int, int] | None = None
        self._keys: Mapping[str, Key] = {}

    def all(self) -> Sequence[Key]:
        """Every key, revoked ones too, as the file has them now.

        Raises ModelFileError for a file that is broken, or that others may write.
        """
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self._seen, self._keys = None, {}
            return ()
        mark = (found.st_mtime_ns, found.st_size, found.st_ino)
        if mark != self._seen:
            self._keys = {key.id: key for key in _read(self.path, found)}
            self._seen = mark
        return tuple(self._keys.values())

    def find(self, text: str) -> Key | None:
        """The key that ``text`` is, whatever its state; None for a wrong one.

        Takes as long for an unknown id as for a wrong secret.
        """
        match = _FORM.fullmatch(text)
        id, secret = match.groups() if match else ("", "")
        self.all()
        key = self._keys.get(id)
        wanted = key.hash if key is not None else "0" * 64
        same = hmac.compare_digest(_hash(secret), wanted)
        return key if same else None

    def add(self, key: Key) -> None:
        with locked(self._locks, "keys"):
            self._write((*self.all(), key))

    def revoke(self, id_or_name: str) -> Key:
        """Ends a key for ever. Raises NotFoundError where there is no such key or several."""
        with locked(self._locks, "keys"):
            keys = self.all()
            found = [k for k in keys if k.revoked is None and id_or_name in (k.id, k.name)]
            if not found:
                raise NotFoundError(
                    f"there is no live key '{id_or_name}'", hint="'pocketlm key list' has them."
                )
            if len(found) > 1:
                ids = ", ".join(key.id for key in found)
                raise RequestError(f"several keys are called '{id_or_name}': {ids}; give the id")
            ended = replace(found[0], revoked=datetime.now(UTC))
            self._write([ended if key is found[0] else key for key in keys])
            return ended

    def _write(self, keys: Sequence[Key]) -> None:
        record = {"version": _VERSION, "keys": [_record(key) for key in keys]}
        data = json.dumps(record).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".keys-{secrets.token_hex(8)}")
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            descriptor = os.open(temporary, flags, 0o600)
            try:
                write_all(descriptor, data)
            finally:
                os.close(descriptor)
            commit(temporary, self.path, len(data))
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
        self._seen = None


def _record(key: Key) -> dict[str, Any]:
    record: dict[str, Any] = _keys.dump_python((key,), mode="json")[0]
    return record


def _read(path: Path, found: os.stat_result) -> Sequence[Key]:
    hint = "Mend or remove the file; without it the server has no keys."
    if os.name != "nt" and stat.S_IMODE(found.st_mode) & 0o022:
        raise ModelFileError(
            "others may write the file of API keys", path=path, hint="chmod 600 it."
        )
    if found.st_size > _MOST_BYTES:
        raise ModelFileError(f"the file of API keys has {found.st_size:,} bytes", path=path)
    try:
        record = json.loads(path.read_bytes())
        if not isinstance(record, dict) or record.get("version") != _VERSION:
            raise ValueError("its version is not one of ours")
        return _keys.validate_python(record.get("keys"))
    except (ValueError, RecursionError, ValidationError) as error:
        why = "its fields are not those of keys" if isinstance(error, ValidationError) else error
        raise ModelFileError(
            f"the file of API keys is broken: {why}", path=path, hint=hint
        ) from error


def public_record(key: Key) -> dict[str, Any]:
    """A key as JSON, without its hash."""
    record = _record(key)
    del record["hash"]
    return record | {"state": key.state(datetime.now(UTC))}


def parse_rate(text: str) -> Rate:
    """``60/m``, ``5/s``, ``1000/h``. Raises RequestError."""
    match = re.fullmatch(r"([1-9]\d{0,8})/([smh])", text)
    if match is None:
        raise RequestError(f"the rate is '{text}', expected requests per time such as 60/m")
    return Rate(int(match[1]), _PERIODS[match[2]])


def parse_lifetime(text: str) -> timedelta:
    """``90d``, ``12h``, ``1y``. Raises RequestError."""
    match = re.fullmatch(r"([1-9]\d{0,4})([mhdwy])", text)
    if match is None:
        raise RequestError(f"the lifetime is '{text}', expected a time such as 90d or 12h")
    return timedelta(days=int(match[1]) * _DAYS[match[2]])


@dataclass(slots=True)
class Use:
    """How much a key is used: a bucket of requests that fills up again, and those under way."""

    left: float
    at: float
    open: int = 0


class Uses:
    """The limits of all keys. For one event loop."""

    def __init__(self) -> None:
        self._uses: dict[str, Use] = {}

    def begin(self, key: Key, now: float | None = None) -> float | None:
        """Counts a request in; otherwise the seconds after which to ask again.

        A request that is counted in must be given back with ``end``.
        """
        now = time.monotonic() if now is None else now
        use = self._uses.get(key.id)
        if use is None:
            use = self._uses[key.id] = Use(key.rate.requests if key.rate else 0, now)
        if key.concurrency is not None and use.open >= key.concurrency:
            return 1.0
        if key.rate is not None:
            speed = key.rate.requests / key.rate.seconds
            use.left = min(key.rate.requests, use.left + (now - use.at) * speed)
            use.at = now
            if use.left < 1:
                return (1 - use.left) / speed
            use.left -= 1
        use.open += 1
        return None

    def end(self, key: Key) -> None:
        self._uses[key.id].open -= 1
