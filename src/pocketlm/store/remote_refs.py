"""Refs of models that run elsewhere, behind an endpoint for chat completions.

    azure:RESOURCE/DEPLOYMENT           a deployment of an Azure AI Foundry resource
    azure:RESOURCE/PROJECT/DEPLOYMENT   the same, and the project that tells its facts
    openai:URL#MODEL                    a model of any server that speaks the OpenAI API

RESOURCE stands for https://RESOURCE.services.ai.azure.com/openai/v1; one with a dot is the host
itself, as in ``azure:contoso.openai.azure.com/chat``. Such refs stand apart from ``refs``: nothing
that keeps, serves or converts models can be made to send anything by being given one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NoReturn

from pocketlm.errors import RequestError

_SCHEMES = ("azure", "openai")
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])"
_RESOURCE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?")
_AZURE_HOST = re.compile(r"(?:[A-Za-z0-9-]{1,63}\.){1,6}azure\.(?:com|us|cn)")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?")
_URL = re.compile(rf"(https?)://({_HOST})(:\d{{1,5}})?((?:/[A-Za-z0-9._~-]+)*)/?")
_MODEL = re.compile(r"[!-~]{1,200}")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class RemoteRef:
    """A model behind an endpoint, or the endpoint itself.

    Attributes:
        text: as it was written.
        scheme: azure or openai, which differ in who they say they are.
        base: URL of the OpenAI API, without a slash at its end.
        model: the name that the endpoint knows; None for the endpoint itself.
        project: of Azure AI Foundry.
    """

    text: str
    scheme: Literal["azure", "openai"]
    base: str
    model: str | None
    project: str | None = None

    def __str__(self) -> str:
        return self.text

    @property
    def host(self) -> str:
        return self.base.split("/")[2]

    @property
    def on_this_machine(self) -> bool:
        return re.sub(r":\d+$", "", self.host) in _LOOPBACK

    @property
    def private(self) -> bool:
        """Whether what is sent cannot be read on the way: https, or this very machine."""
        return self.base.startswith("https:") or self.on_this_machine


def is_remote(text: str) -> bool:
    """Whether a ref names a model that runs elsewhere, rightly written or not."""
    return text.partition(":")[0] in _SCHEMES and ":" in text


def parse_remote(text: str) -> RemoteRef:
    """Reads the ref of a model. Raises RequestError for anything the grammar does not allow."""
    ref = _azure(text) if text.startswith("azure:") else _openai(text)
    if ref.model is None:
        _refuse(text, "the name of the model is missing")
    return ref


def parse_place(text: str) -> RemoteRef:
    """Reads ``azure:RESOURCE[/PROJECT]`` or ``openai:URL``, whose models can be listed."""
    if text.startswith("azure:"):
        resource, slash, project = text.removeprefix("azure:").partition("/")
        if slash and not _NAME.fullmatch(project):
            _refuse(text, f"'{project}' is not the name of a project")
        return RemoteRef(text, "azure", _azure_base(text, resource), None, project or None)
    ref = _openai(text)
    if ref.model is not None:
        _refuse(text, "a place has no model; 'pocketlm show' tells of one")
    return ref


def _azure(text: str) -> RemoteRef:
    resource, *names = text.removeprefix("azure:").split("/")
    base = _azure_base(text, resource)
    if len(names) > 2:
        _refuse(text, "expected azure:RESOURCE[/PROJECT]/DEPLOYMENT")
    for name in names:
        if not _NAME.fullmatch(name):
            _refuse(text, f"'{name}' is not a name (letters, digits, '.', '_' and '-')")
    model = names[-1] if names else None
    return RemoteRef(text, "azure", base, model, names[0] if len(names) > 1 else None)


def _azure_base(text: str, resource: str) -> str:
    if _AZURE_HOST.fullmatch(resource):
        return f"https://{resource.lower()}/openai/v1"
    if not _RESOURCE.fullmatch(resource):
        _refuse(text, f"'{resource}' is neither a resource nor a host below azure.com")
    return f"https://{resource.lower()}.services.ai.azure.com/openai/v1"


def _openai(text: str) -> RemoteRef:
    url, _, model = text.removeprefix("openai:").partition("#")
    found = _URL.fullmatch(url)
    if found is None:
        # What is not understood may hold a password: it is not repeated.
        _refuse("openai:…", "expected openai:URL#MODEL, a URL without user, query or escapes")
    if "#" in text and not _MODEL.fullmatch(model):
        _refuse(text, "the name of the model is missing or not plain")
    scheme, host, port, path = found.groups()
    base = f"{scheme}://{host.lower()}{port or ''}{path}"
    return RemoteRef(text, "openai", base, model or None)


def _refuse(text: str, why: str) -> NoReturn:
    raise RequestError(
        f"'{text}' is not a ref of a remote model: {why}",
        hint="Such refs look like azure:RESOURCE/DEPLOYMENT or openai:http://127.0.0.1:8080/v1#MODEL.",
    )
