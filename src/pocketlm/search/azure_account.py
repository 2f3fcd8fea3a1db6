"""What a subscription of Azure has deployed, or can deploy in a region, by Azure's own clients.

``azure-identity`` finds who the user is (environment, managed identity, the ``az`` command) and
``azure-mgmt-cognitiveservices`` lists what Azure AI Foundry has for that subscription: the light
way of the two there are, the other being a machine learning client with a dozen more packages. What
is deployed is found by the ref that ``run``, ``eval`` and ``compare`` take.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from pocketlm.errors import RequestError, SourceError, UnsupportedError
from pocketlm.search.answers import Answers
from pocketlm.search.azure_records import deployments, read_summary
from pocketlm.search.cache import Kept
from pocketlm.search.fields import items, mapping, text
from pocketlm.search.filters import fits, fits_parameters, order
from pocketlm.search.found import Found
from pocketlm.search.known import Known
from pocketlm.search.query import Query
from pocketlm.store.remote_refs import parse_remote

_SUBSCRIPTION = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_LOCATION = re.compile(r"[a-z0-9]{2,40}")
_GROUP = re.compile(r"/resourceGroups/([^/]+)/", re.IGNORECASE)
_MOST = 5000
_MOST_ACCOUNTS = 50
_TIMEOUT_S = 15


def search_subscription(query: Query, answers: Answers) -> tuple[list[Found], int]:
    """Models that fit, in the order that is wanted, and how many were looked at.

    Raises:
        UnsupportedError: the clients are not installed.
        RequestError: the subscription or the location cannot be one.
        SourceError: Azure refuses or cannot be reached, and nothing is kept.
    """
    subscription, location = query.subscription or "", query.location
    if not _SUBSCRIPTION.fullmatch(subscription):
        raise RequestError(f"'{subscription}' is no subscription of Azure, expected its id")
    if location is not None and not _LOCATION.fullmatch(location):
        raise RequestError(f"'{location}' is no location of Azure, expected one such as eastus")
    models = items(_kept(subscription, location, answers).body)
    known, read = Known.now(), _deployed if location is None else _offered
    found = [one for model in models if (one := read(mapping(model), known)) is not None]
    distinct = {one.ref: one for one in found}
    chosen = [one for one in distinct.values() if fits(one, query) and fits_parameters(one, query)]
    return sorted(chosen, key=order(query)), len(models)


def _kept(subscription: str, location: str | None, answers: Answers) -> Kept:
    key = f"azure {subscription} {location or 'deployed'}"
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


def _listed(client: Any, location: str | None) -> list[object]:
    """The models or deployments as JSON. Raises SourceError, whatever the clients raise."""
    failures = importlib.import_module("azure.core.exceptions")
    try:
        if location is None:
            return list(islice(_deployments(client), _MOST))
        offered = islice(client.models.list(location), _MOST)
        return [model.serialize(keep_readonly=True) for model in offered]
    except (failures.AzureError, TypeError, ValueError, AttributeError) as error:
        # The last three: an answer of another shape than the client expects.
        raise _refused(error) from error


def _deployments(client: Any) -> Iterator[object]:
    """Each deployment, beside the account that it is in."""
    for account in islice(client.accounts.list(), _MOST_ACCOUNTS):
        group = _GROUP.search(account.id)
        if group is not None:
            owner = account.serialize(keep_readonly=True)
            for deployment in client.deployments.list(group[1], account.name):
                yield {"account": owner, "deployment": deployment.serialize(keep_readonly=True)}


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


def _deployed(found: Mapping[str, object], known: Known) -> Found | None:
    """A deployment, by the ref that it is used by."""
    account, deployment = mapping(found.get("account")), mapping(found.get("deployment"))
    properties = mapping(deployment.get("properties"))
    model = dict(mapping(properties.get("model")))
    one = _offered({"model": model | {"capabilities": properties.get("capabilities")}}, known)
    resource = text(mapping(account.get("properties")).get("customSubDomainName"))
    resource = resource or text(account.get("name"))
    if one is None or resource is None:
        return None
    host = f"{resource}.openai.azure.com" if account.get("kind") == "OpenAI" else resource
    ref = f"azure:{host}/{text(deployment.get('name'))}"
    try:
        parse_remote(ref)
    except RequestError:
        return None
    sku = mapping(deployment.get("sku")).get("name")
    return replace(one, ref=ref, title=ref, deployments=deployments({"deploymentTypes": sku}))


def _offered(model: Mapping[str, object], known: Known) -> Found | None:
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
