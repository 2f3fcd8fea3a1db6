"""Models that a subscription of Azure can deploy in a region, asked through Azure's own clients.

``azure-identity`` finds who the user is (environment, managed identity, the ``az`` command) and
``azure-mgmt-cognitiveservices`` lists what Azure AI Foundry offers that subscription: the light way
of the two there are, the other being a machine learning client with a dozen more packages.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pocketlm.errors import RequestError, SourceError, UnsupportedError
from pocketlm.search.answers import Answers
from pocketlm.search.azure_records import read_summary
from pocketlm.search.cache import Kept
from pocketlm.search.fields import items, mapping, text
from pocketlm.search.filters import fits, fits_parameters, order
from pocketlm.search.found import Found
from pocketlm.search.known import Known
from pocketlm.search.query import Query

_SUBSCRIPTION = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_LOCATION = re.compile(r"[a-z0-9]{2,40}")
_MOST = 5000
_TIMEOUT_S = 15


def search_subscription(query: Query, answers: Answers) -> tuple[list[Found], int]:
    """Models that fit, in the order that is wanted, and how many were looked at.

    Raises:
        UnsupportedError: the clients are not installed.
        RequestError: the subscription or the location cannot be one.
        SourceError: Azure refuses or cannot be reached, and nothing is kept.
    """
    subscription, location = query.subscription or "", query.location or ""
    for what, value, grammar in (
        ("subscription", subscription, _SUBSCRIPTION),
        ("location", location, _LOCATION),
    ):
        if not grammar.fullmatch(value):
            raise RequestError(f"'{value}' is no {what} of Azure")
    models = items(_kept(subscription, location, answers).body)
    known = Known.now()
    found = [one for model in models if (one := _found(mapping(model), known)) is not None]
    distinct = {one.ref: one for one in found}
    chosen = [one for one in distinct.values() if fits(one, query) and fits_parameters(one, query)]
    return sorted(chosen, key=order(query)), len(models)


def _kept(subscription: str, location: str, answers: Answers) -> Kept:
    key = f"azure {subscription} {location}"
    kept = answers.cache.get(key)
    if kept is not None and answers.is_fresh(kept):
        return answers.used(kept, cached=True)
    try:
        if answers.web.offline:
            raise SourceError(
                "Azure was not asked: PocketLM is offline",
                hint="Unset POCKETLM_OFFLINE and HF_HUB_OFFLINE to allow the network.",
            )
        found = Kept(_listed(client(subscription), location), datetime.now(UTC))
    except SourceError as error:
        if kept is None:
            raise
        answers.failures.append(str(error))
        return answers.used(kept, cached=True)
    answers.cache.put(key, found)
    return answers.used(found, cached=False)


def client(subscription: str) -> Any:
    """Azure's client for the account that the environment says. Nothing is asked yet."""
    try:
        identity = importlib.import_module("azure.identity")
        management = importlib.import_module("azure.mgmt.cognitiveservices")
    except ImportError as error:
        raise UnsupportedError(
            "searching a subscription needs Azure's clients, which are not installed",
            hint="Install them with: pip install 'pocketlm[azure]'.",
        ) from error
    # Waiting is up to us: a busy Azure may ask for minutes.
    patience: dict[str, Any] = {"retry_total": 0, "connection_timeout": _TIMEOUT_S}
    return management.CognitiveServicesManagementClient(
        identity.DefaultAzureCredential(), subscription, read_timeout=_TIMEOUT_S, **patience
    )


def _listed(client: Any, location: str) -> list[object]:
    """The models as JSON. Raises SourceError, whatever the clients raise."""
    failures = importlib.import_module("azure.core.exceptions")
    found: list[object] = []
    try:
        for model in client.models.list(location):
            found.append(model.serialize(keep_readonly=True))
            if len(found) >= _MOST:
                break
    except (failures.AzureError, TypeError, ValueError, AttributeError) as error:
        # The last three: an answer of another shape than the client expects.
        raise _refused(error) from error
    return found


def _refused(error: Any) -> SourceError:
    """With the status, how long to wait where Azure says so, and the first line of why."""
    why = str(getattr(error, "message", None) or error).strip().partition("\n")[0][:200]
    status = getattr(error, "status_code", None)
    if status is None:
        return SourceError(
            f"Azure could not be asked: {why}",
            hint="Log in with 'az login', and check the network.",
        )
    wait = getattr(error.response, "headers", {}).get("Retry-After")
    when = f" and wants the next request in {wait} seconds" if wait else ""
    role = "The account must be a reader of the subscription; 'az login' changes it."
    return SourceError(
        f"Azure answered {status}{when}: {why}", hint=role if status in (401, 403) else None
    )


def _found(model: Mapping[str, object], known: Known) -> Found | None:
    """A model in the words of the gallery, which ``read_summary`` knows."""
    facts = mapping(model.get("model"))
    capabilities = mapping(facts.get("capabilities"))
    tasks = {"chatCompletion": "chat-completion", "embeddings": "embeddings"}
    able = [task for name, task in tasks.items() if text(capabilities.get(name)) == "true"]
    summary: dict[str, object] = {
        "name": facts.get("name"),
        "assetId": facts.get("modelCatalogAssetId"),
        "publisher": facts.get("publisher") or facts.get("format"),
        "version": facts.get("version"),
        "createdTime": mapping(facts.get("systemData")).get("createdAt"),
        "deploymentSku": facts.get("skus"),
        "inferenceTasks": able,
        "modelLimits": {"textLimits": {"inputContextWindow": capabilities.get("maxContextToken")}},
    }
    if facts.get("finetuneCapabilities") is not None or "fineTune" in capabilities:
        tunable = bool(mapping(facts.get("finetuneCapabilities")))
        tunable = tunable or text(capabilities.get("fineTune")) == "true"
        summary["fineTuningTasks"] = ["fine-tuning"] if tunable else []
    return read_summary(summary, known)
