"""Models of the Hugging Face hub: one GGUF (all its shards) or a folder of safetensors.

huggingface_hub's client answers what a repository holds at which commit; the bytes come through our
own download, which resumes and checks what that client does not: the SHA-256 that the hub publishes
for large files, and git's own hash for small ones.
"""

from __future__ import annotations

import hashlib
import os
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from pocketlm.errors import IntegrityError, NotFoundError, RequestError, SourceError
from pocketlm.store.download import Remote
from pocketlm.store.files import chunks_of
from pocketlm.store.manifest import FileRecord, Role, Source
from pocketlm.store.refs import HubRef, is_label
from pocketlm.store.sources.base import Found, Intake, Pin

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

    from pocketlm.store.web import Web

DEFAULT_ENDPOINT = "https://huggingface.co"

_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})\.gguf", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SAFETENSORS_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_TERMS = re.compile(r"(?:licen[cs]e|notice|use_policy)[^/]*", re.IGNORECASE)
# What a folder needs beside its weights. Pickles are never asked for.
_BESIDE: dict[str, Role] = {
    "config.json": "config",
    "generation_config.json": "config",
    "model.safetensors.index.json": "config",
    "tokenizer.json": "tokenizer",
    "tokenizer.model": "tokenizer",
    "tokenizer_config.json": "tokenizer",
    "special_tokens_map.json": "tokenizer",
    "added_tokens.json": "tokenizer",
    "vocab.json": "tokenizer",
    "merges.txt": "tokenizer",
    "chat_template.jinja": "template",
    "chat_template.json": "template",
}


@dataclass(frozen=True)
class Entry:
    """One file of a repository. ``sha256`` of large files, ``git_id`` of small ones."""

    path: str
    size: int | None
    sha256: str | None
    git_id: str | None

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Listing:
    """What a ref means on the hub.

    Attributes:
        page: of the repository.
        commit: that its revision is at.
        base: URL of the files of that commit, with a slash at the end.
        headers: to ask for them with, such as the token.
        chosen: the files that the ref means, and what each is for.
        licence: as the repository says it.
        gated: whether its terms must be accepted first.
    """

    page: str
    commit: str
    base: str
    headers: Mapping[str, str]
    chosen: Sequence[tuple[Entry, Role]]
    licence: str | None
    gated: bool


def listing(ref: HubRef, web: Web) -> Listing:
    """Raises NotFoundError, RequestError (which file?), SourceError (network, terms to accept)."""
    endpoint = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
    if web.offline:
        raise SourceError(
            f"{ref} was not asked for: PocketLM is offline",
            hint="Unset POCKETLM_OFFLINE and HF_HUB_OFFLINE to allow the network.",
        )
    token = hub_token()
    if web.egress is not None:
        import httpx

        web.egress.check(httpx.URL(endpoint), first=True)
    info = _model_info(ref, endpoint, token)
    commit = info.sha
    if not _matches(_COMMIT, commit):
        raise SourceError(f"{endpoint} names no commit for {ref.repo_id}")
    page = f"{endpoint}/{ref.repo_id}"
    return Listing(
        page=page,
        commit=str(commit),
        base=f"{page}/resolve/{commit}/",
        headers={"Authorization": f"Bearer {token}"} if token else {},
        chosen=choose(ref, [_entry(sibling) for sibling in info.siblings or []]),
        licence=_licence(info),
        gated=info.gated in ("auto", "manual"),
    )


def fetch(ref: HubRef, pin: Pin, intake: Intake) -> Found:
    """Raises what ``listing`` does, and what the download of a file does."""
    listed = listing(ref, intake.web)
    records = tuple(
        _file(entry, role, listed, pin if role == "weights" else Pin(), intake)
        for entry, role in listed.chosen
    )
    source = Source(ref=str(ref), url=listed.page, revision=listed.commit)
    return Found(source, records, pin.licence or listed.licence)


def _file(entry: Entry, role: Role, listed: Listing, pin: Pin, intake: Intake) -> FileRecord:
    promised = pin.sha256 or entry.sha256
    if pin.sha256 and entry.sha256 and pin.sha256 != entry.sha256:
        raise IntegrityError(
            f"the hub has {entry.name} with SHA-256 {entry.sha256}, the catalog pins {pin.sha256}"
        )
    url = listed.base + urllib.parse.quote(entry.path)
    record = intake.file(Remote(url, entry.name, entry.size, promised, listed.headers), role)
    if promised is None and entry.git_id is not None:
        git_hash = hashlib.sha1(b"blob %d\0" % record.size, usedforsecurity=False)
        for chunk in chunks_of(intake.blobs.path(record.sha256)):
            git_hash.update(chunk)
        git_id = git_hash.hexdigest()
        if git_id != entry.git_id:
            intake.blobs.remove(record.sha256)
            raise IntegrityError(
                f"{entry.name} has the git hash {git_id}, the hub promised {entry.git_id}"
            )
    return record


# Which files


def choose(ref: HubRef, entries: Sequence[Entry]) -> list[tuple[Entry, Role]]:
    """The files that the ref means, and what each is for.

    Without FILE: the folder of safetensors if there is one, else the only GGUF.
    """
    ggufs = [e for e in entries if e.path.lower().endswith(".gguf")]
    tensors = [e for e in entries if e.path.endswith(".safetensors") and "/" not in e.path]
    if ref.file is None and tensors:
        chosen = _folder(ref, entries, tensors)
    elif ggufs:
        chosen = [(entry, "weights") for entry in _gguf(ref, ggufs)]
        chosen += [
            (e, "license") for e in entries if "/" not in e.path and _TERMS.fullmatch(e.path)
        ]
    else:
        raise NotFoundError(
            f"{ref.repo_id} has no GGUF file" + ("" if ref.file else " and no safetensors"),
            hint="Weights as PyTorch pickles (.bin, .pth) are never loaded: they can run code.",
        )
    for entry, _ in chosen:
        _check_path(entry.path)
    return chosen


def _folder(
    ref: HubRef, entries: Sequence[Entry], tensors: Sequence[Entry]
) -> list[tuple[Entry, Role]]:
    if not any(e.path == "config.json" for e in entries):
        raise NotFoundError(f"{ref.repo_id} has safetensors but no config.json")
    whole = [e for e in tensors if e.path == "model.safetensors"]
    shards = [e for e in tensors if _SAFETENSORS_SHARD.fullmatch(e.path)]
    # Some repositories hold the same weights a second time in their maker's own layout.
    others = [e for e in tensors if not e.path.startswith("consolidated")]
    chosen: list[tuple[Entry, Role]] = [(e, "weights") for e in whole or shards or others]
    for entry in entries:
        if entry.path in _BESIDE and not (whole and entry.path.endswith(".index.json")):
            chosen.append((entry, _BESIDE[entry.path]))
        elif "/" not in entry.path and _TERMS.fullmatch(entry.path):
            chosen.append((entry, "license"))
    return chosen


def _gguf(ref: HubRef, ggufs: Sequence[Entry]) -> list[Entry]:
    """The GGUF that FILE means, with all its shards; the only one where there is no FILE."""
    models: dict[str, list[Entry]] = {}
    for entry in ggufs:
        shard = _SHARD.fullmatch(entry.path)
        models.setdefault(shard[1] + ".gguf" if shard else entry.path, []).append(entry)
    plain = {k: v for k, v in models.items() if not k.rpartition("/")[2].startswith("mmproj")}
    if ref.file is None:
        fitting = plain
    elif is_label(ref.file):
        label = re.compile(rf"(?<![A-Za-z0-9]){re.escape(ref.file)}(?![A-Za-z0-9_])", re.IGNORECASE)
        fitting = {k: v for k, v in plain.items() if label.search(k)}
    else:
        fitting = {k: v for k, v in models.items() if ref.file in (k, *(e.path for e in v))}
    if len(fitting) != 1:
        _refuse_choice(ref, sorted(fitting), sorted(models))
    (shards,) = fitting.values()
    first = _SHARD.fullmatch(shards[0].path)
    if first and len(shards) != int(first[2]):
        raise NotFoundError(
            f"{ref.repo_id} has {len(shards)} of {int(first[2])} shards of {first[1]}"
        )
    return sorted(shards, key=lambda entry: entry.path)


def _refuse_choice(ref: HubRef, fitting: list[str], names: list[str]) -> NoReturn:
    listed = ", ".join(fitting or names)
    example = HubRef(ref.org, ref.repo, ref.revision, (fitting or names)[0])
    if fitting:
        raise RequestError(
            f"{ref} could be any of {len(fitting)} files: {listed}",
            hint=f"Choose one, such as '{example}'.",
        )
    raise NotFoundError(
        f"{ref.repo_id} has no file that '{ref.file}' names; it has {listed}",
        hint=f"Choose one, such as '{example}'.",
    )


def _check_path(path: str) -> None:
    parts = path.split("/")
    bad = any(p in ("", ".", "..") or p.startswith(".") for p in parts)
    if bad or any(c in '\\:*?"<>|' or not c.isprintable() for c in path):
        raise IntegrityError(f"the hub lists a file with an unsafe path: {path!r}")


# What the client says


def hub_token() -> str | None:
    from huggingface_hub import get_token

    return get_token()


def _model_info(ref: HubRef, endpoint: str, token: str | None) -> ModelInfo:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # The client reads its environment once, when it is imported: hence all by argument.
    api = HfApi(endpoint=endpoint, token=token or False, library_name="pocketlm")
    page = f"{endpoint}/{ref.repo_id}"
    try:
        return api.model_info(ref.repo_id, revision=ref.revision, files_metadata=True, timeout=30.0)
    except GatedRepoError as error:
        raise SourceError(
            f"{ref.repo_id} is gated: its terms must be accepted first",
            hint=f"Accept them at {page} and set HF_TOKEN to a token of that account.",
        ) from error
    except RevisionNotFoundError as error:
        raise NotFoundError(f"{ref.repo_id} has no revision '{ref.revision}'") from error
    except RepositoryNotFoundError as error:
        raise NotFoundError(
            f"there is no repository {ref.repo_id} at {endpoint}, or it is private",
            hint="For a private one set HF_TOKEN.",
        ) from error
    except HfHubHTTPError as error:
        raise SourceError(f"{endpoint} refused to describe {ref.repo_id}: {error}") from error
    except Exception as error:
        # The client's transport, and with it the classes it raises, differ between its versions.
        raise SourceError(
            f"{endpoint} could not be reached: {error}",
            hint="Check the network and the proxy settings.",
        ) from error


def _entry(sibling: object) -> Entry:
    lfs = getattr(sibling, "lfs", None)
    sha256 = getattr(lfs, "sha256", None)
    if sha256 is not None and not _matches(_SHA256, sha256):
        raise SourceError(f"the hub gives '{sha256}' as a SHA-256")
    git_id = getattr(sibling, "blob_id", None)
    size = getattr(sibling, "size", None)
    return Entry(
        path=str(getattr(sibling, "rfilename", "")),
        size=size if isinstance(size, int) and size >= 0 else None,
        sha256=sha256,
        git_id=git_id if lfs is None and _matches(_COMMIT, git_id) else None,
    )


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    """The client hands on whatever type the answer had."""
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _licence(info: ModelInfo) -> str | None:
    for tag in info.tags if isinstance(info.tags, list) else []:
        if isinstance(tag, str) and tag.startswith("license:"):
            return tag.removeprefix("license:")
    licence = getattr(info.card_data, "license", None)
    return licence if isinstance(licence, str) else None
