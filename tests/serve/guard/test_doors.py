"""Keys: which are taken, and what each may do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

import pytest
from tests.serve.guard.conftest import MESSAGE, Site

from pocketlm.serve.guard.doors import wanted
from pocketlm.serve.guard.keys import Rate
from pocketlm.serve.observe.requests import access


def status(site: Site, headers: dict[str, str] | None = None, path: str = "/v1/messages") -> int:
    return site.client.post(path, json=MESSAGE, headers=headers).status_code


def test_without_keys_this_machine_may_do_everything(site: Site) -> None:
    assert status(site) == 200
    assert status(site, {"Authorization": "Bearer anything"}) == 200
    assert site.client.get("/metrics").status_code == 200


def test_without_keys_other_machines_may_do_nothing(make_site: Callable[..., Site]) -> None:
    site = make_site(host="192.0.2.7")
    assert status(site) == 401
    assert site.client.get("/health").status_code == 200


def test_every_way_to_carry_a_key(site: Site) -> None:
    text = site.key()["Authorization"].removeprefix("Bearer ")
    assert status(site) == 401
    for headers in (
        {"Authorization": f"Bearer {text}"},
        {"Authorization": f"bearer {text}"},
        {"x-api-key": text},
        {"api-key": text},
        {"x-api-key": text, "Authorization": f"Bearer {text}"},
    ):
        assert status(site, headers) == 200


def test_what_is_no_key(site: Site) -> None:
    text = site.key()["Authorization"].removeprefix("Bearer ")
    wrong = text[:-1] + ("A" if text[-1] != "A" else "B")
    for headers in (
        {},
        {"Authorization": f"Bearer {wrong}"},
        {"Authorization": f"Bearer {text} "[:-2]},
        {"Authorization": f"Basic {text}"},
        {"Authorization": "Bearer"},
        {"Authorization": text},
        {"x-api-key": ""},
        {"Cookie": f"key={text}"},
        {"x-api-key": "plm__"},
        {"x-api-key": b"\xc3\xbc"},
    ):
        answer = site.client.post("/v1/messages", json=MESSAGE, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["error"]["type"] == "authentication_error"
    assert status(site, path=f"/v1/messages?api_key={text}") == 401
    assert not site.fleet.asked


def test_two_different_keys_are_refused(site: Site) -> None:
    one, two = site.key("one"), site.key("two")
    other = two["Authorization"].removeprefix("Bearer ")
    assert status(site, one | {"x-api-key": other}) == 400
    assert status(site, one | {"api-key": "x"}) == 400
    both = [("Authorization", one["Authorization"]), ("Authorization", two["Authorization"])]
    assert site.client.post("/v1/messages", json=MESSAGE, headers=both).status_code == 400


def test_expired_and_revoked_keys(site: Site) -> None:
    late, gone = site.key("late", lifetime=timedelta(0)), site.key("gone")
    assert status(site, late) == 401
    assert status(site, gone) == 200
    site.keys.revoke("gone")
    assert status(site, gone) == 401


def test_revoking_the_last_key_does_not_open_the_server(site: Site) -> None:
    site.key("only")
    site.keys.revoke("only")
    assert status(site) == 401


def test_a_broken_file_of_keys_closes_the_server(site: Site) -> None:
    key = site.key()
    site.keys.path.write_text("{")
    assert status(site, key) == 503
    assert status(site) == 503
    assert site.client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "need"),
    [
        ("GET", "/health", "open"),
        ("GET", "/ready", "open"),
        ("HEAD", "/", "open"),
        ("GET", "/page/static/app.js", "open"),
        ("GET", "/page/static/../models", "admin"),
        ("GET", "/metrics", "any"),
        ("GET", "/v1/models", "read"),
        ("GET", "/api/tags", "read"),
        ("GET", "/page/live", "read"),
        ("POST", "/api/show", "read"),
        ("POST", "/v1/chat/completions", "infer"),
        ("POST", "/v1/messages/count_tokens", "infer"),
        ("POST", "/api/generate", "infer"),
        ("POST", "/tokenize", "infer"),
        ("POST", "/api/pull", "manage"),
        ("POST", "/api/push", "manage"),
        ("POST", "/api/create", "manage"),
        ("POST", "/api/copy", "manage"),
        ("DELETE", "/api/delete", "manage"),
        ("HEAD", "/api/blobs/sha256:00", "manage"),
        ("POST", "/admin/load", "manage"),
        ("POST", "/admin/stop", "admin"),
        ("POST", "/health", "admin"),
        ("GET", "/anything/new", "admin"),
        ("POST", "/v1/chat/completions/", "admin"),
        ("POST", "//v1/chat/completions", "admin"),
        ("GET", "/v1/models\n", "admin"),
    ],
)
def test_scopes_of_routes(method: str, path: str, need: str) -> None:
    assert wanted(method, path) == need


@pytest.mark.filterwarnings("ignore:Duplicate Operation ID")
def test_every_route_is_decided(site: Site) -> None:
    """Only what ends the server is left to admins; a new route must be put into the tables."""
    undecided = {
        path
        for path, methods in site.app.openapi()["paths"].items()
        for method in methods
        if wanted(method.upper(), path.replace("{", "").replace("}", "")) == "admin"
    }
    assert undecided == {"/admin/stop"}


def test_scopes_are_kept_apart(site: Site) -> None:
    infer, manage = site.key("i"), site.key("m", scopes=("manage",))
    admin = site.key("a", scopes=("admin",))
    load = {"model": "tiny"}
    for key, answers, loads in ((infer, 200, 403), (manage, 403, 200), (admin, 200, 200)):
        assert status(site, key) == answers
        assert site.client.post("/admin/load", json=load, headers=key).status_code == loads
        assert site.client.get("/admin/models", headers=key).status_code == 200
        assert site.client.get("/metrics", headers=key).status_code == 200
    assert site.client.get("/metrics").status_code == 401
    assert site.client.post("/admin/stop", json={}, headers=manage).status_code == 403


def test_a_rate_is_kept(site: Site) -> None:
    key = site.key(rate=Rate(2, 3600.0))
    assert [status(site, key) for _ in range(3)] == [200, 200, 429]
    answer = site.client.post("/v1/messages", json=MESSAGE, headers=key)
    assert 1000 < int(answer.headers["retry-after"]) <= 1800
    assert site.refused()["rate"] == 2


def test_the_page_watches_for_free(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    key = site.key(rate=Rate(1, 3600.0))
    with caplog.at_level(logging.INFO, logger=access.name):
        for _ in range(5):
            assert site.client.get("/page/live", headers=key).status_code == 200
        assert not caplog.records
        assert site.client.get("/v1/models", headers=key).status_code == 200
        assert site.client.get("/v1/models", headers=key).status_code == 429
        assert len(caplog.records) == 2
    assert site.client.get("/page/live").status_code == 401


def test_requests_at_once_are_limited_and_given_back(site: Site) -> None:
    key = site.key(concurrency=1)
    assert [status(site, key) for _ in range(3)] == [200] * 3
    refused = site.client.post("/v1/messages", content=b"{", headers=key)
    assert refused.status_code == 415
    assert status(site, key) == 200
