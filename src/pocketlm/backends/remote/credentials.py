"""Who we say we are to an endpoint: from the environment, or from Azure's own library.

azure    ``AZURE_OPENAI_API_KEY``, a key of the resource; else ``AZURE_OPENAI_AD_TOKEN``, a token of
         Microsoft Entra ID; else whatever azure-identity finds (``az login``, a managed identity)
openai   ``POCKETLM_ENDPOINT_KEY``; nothing where it is not set. Keys meant for one company's server
         under other names are left alone: the ref may name any server

A secret is sent to the host of the ref alone, and only where nobody on the way can read it.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pocketlm.errors import RequestError, SourceError
from pocketlm.store.remote_refs import RemoteRef

# Audiences of Entra tokens: for inference in each cloud, and for Foundry projects.
_INFERENCE = "https://cognitiveservices.azure.{}/.default"
_PROJECTS = "https://ai.azure.com/.default"


@dataclass
class Credential:
    """Gives the headers of a request; asks again each time, since tokens end."""

    ref: RemoteRef
    _library: Any = field(default=None, repr=False)

    def headers(self, *, of_project: bool = False) -> Mapping[str, str]:
        """Raises RequestError where there is nothing to say, SourceError where a login failed."""
        if self.ref.scheme == "openai":
            key = _secret("POCKETLM_ENDPOINT_KEY", os.environ.get("POCKETLM_ENDPOINT_KEY", ""))
            if key and not self.ref.private:
                raise RequestError(
                    f"POCKETLM_ENDPOINT_KEY is not sent to {self.ref.host} over plain http",
                    hint="Use https, or unset it where the server wants no key.",
                )
            return _bearer(key) if key else {}
        if not of_project and (key := _azure("AZURE_OPENAI_API_KEY")):
            return {"api-key": key}
        return _bearer(_azure("AZURE_OPENAI_AD_TOKEN") or self._token(of_project))

    def _token(self, of_project: bool) -> str:
        scope = _PROJECTS if of_project else _INFERENCE.format(self.ref.host.rpartition(".")[2])
        hint = "Set AZURE_OPENAI_API_KEY, or install 'pocketlm[azure]' and run 'az login'."
        if of_project:
            hint = "Install 'pocketlm[azure]' and run 'az login', or set AZURE_OPENAI_AD_TOKEN."
        try:
            if self._library is None:
                identity = importlib.import_module("azure.identity")
                # Python would print its warnings, of all that it tried, where nobody handles them.
                logging.getLogger("azure").addHandler(logging.NullHandler())
                self._library = identity.DefaultAzureCredential()
        except ImportError as error:
            raise RequestError(f"there is no credential for {self.ref.host}", hint=hint) from error
        try:
            return str(self._library.get_token(scope).token)
        except Exception as error:  # its errors have no common base of ours to rely on
            # The library's message lists all that it tried, over many lines.
            raise SourceError(
                f"azure-identity found no login for {self.ref.host} ({type(error).__name__})",
                hint=hint,
            ) from error


def _azure(name: str) -> str | None:
    return _secret(name, os.environ.get(name, ""))


def _secret(name: str, value: str) -> str | None:
    value = value.strip()
    if value and not (value.isascii() and value.isprintable()):
        raise RequestError(f"{name} has characters that no key has")
    return value or None


def _bearer(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"}
