"""Refs of models that run elsewhere: what they mean, and what is refused."""

from __future__ import annotations

import pytest

from pocketlm.errors import RequestError, UnsupportedError
from pocketlm.store import parse
from pocketlm.store.remote_refs import is_remote, parse_place, parse_remote

FOUNDRY = "https://contoso.services.ai.azure.com/openai/v1"


@pytest.mark.parametrize(
    ("text", "base", "project", "model"),
    [
        ("azure:Contoso/Phi-4", FOUNDRY, None, "Phi-4"),
        ("azure:contoso/shop/gpt-4.1_mini", FOUNDRY, "shop", "gpt-4.1_mini"),
        (
            "azure:contoso.openai.azure.com/chat",
            "https://contoso.openai.azure.com/openai/v1", None, "chat",
        ),
        (
            "azure:x.openai.azure.us/chat", "https://x.openai.azure.us/openai/v1", None, "chat",
        ),
        ("openai:http://127.0.0.1:8080/v1#a/B:c", "http://127.0.0.1:8080/v1", None, "a/B:c"),
        ("openai:https://Example.org/#m", "https://example.org", None, "m"),
        ("openai:http://[::1]:9/v1#m", "http://[::1]:9/v1", None, "m"),
    ],
)  # fmt: skip
def test_what_a_ref_means(text: str, base: str, project: str | None, model: str) -> None:
    ref = parse_remote(text)
    assert (ref.base, ref.project, ref.model, str(ref)) == (base, project, model, text)
    assert is_remote(text)


@pytest.mark.parametrize(
    "text",
    [
        "azure:", "azure:contoso", "azure:contoso/", "azure:/x", "azure:a/b/c/d", "azure:a/../b",
        "azure:evil.example.com/x", "azure:azure.com.evil.com/x", "azure:a@b/x", "azure:a b/x",
        "azure:x.azure.com:8080/x", "azure:-a/x", "azure:a/b?c", "azure:xazure.com/x",
        "openai:", "openai:#m", "openai:ftp://x#m", "openai:http://x", "openai:http://x#",
        "openai:http://x?y=1#m", "openai:http://x#m n", "openai:http://x/a%2fb#m", "openai:http://x:port#m",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="not a ref of a remote model"):
        parse_remote(text)


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(RequestError) as caught:
        parse_remote("openai:https://me:hunter2@example.org/v1#m")
    assert "hunter2" not in str(caught.value)


def test_places_have_no_model() -> None:
    assert parse_place("azure:contoso").base == FOUNDRY
    assert parse_place("azure:contoso/shop").project == "shop"
    assert parse_place("openai:http://127.0.0.1:1/v1").base == "http://127.0.0.1:1/v1"
    for text in ("azure:contoso/a/b", "azure:contoso/", "openai:http://x/v1#m"):
        with pytest.raises(RequestError):
            parse_place(text)


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("azure:contoso/x", True),
        ("openai:https://example.org/v1#m", True),
        ("openai:http://127.0.0.1:80/v1#m", True),
        ("openai:http://[::1]/v1#m", True),
        ("openai:http://localhost:1#m", True),
        ("openai:http://example.org/v1#m", False),
        ("openai:http://127.0.0.1.example.org/v1#m", False),
    ],
)
def test_which_can_be_overheard(text: str, private: bool) -> None:
    assert parse_remote(text).private == private


def test_the_store_has_no_use_for_them() -> None:
    """So nothing that keeps, converts or serves models can be made to reach out by one."""
    with pytest.raises(UnsupportedError, match="runs elsewhere"):
        parse("azure:contoso/x")
    assert not is_remote("azure")
    assert not is_remote("smollm2:135m")
