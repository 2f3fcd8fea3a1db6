"""Names and pages that may not ask, however they try."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.serve.guard.conftest import MESSAGE, Site

from pocketlm.errors import RequestError
from pocketlm.serve.guard.hosts import check_names, origin

JSON = {"Content-Type": "application/json"}
HERE = "http://127.0.0.1:11435"


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:11435", "localhost."]
)
def test_names_of_this_machine(site: Site, host: str) -> None:
    assert site.client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:11435",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "169.254.169.254",
        "10.0.0.1",
        "user@localhost",
        "localhost/evil",
        "0.0.0.0",
        "",
        "localhost, evil.example",
    ],
)
def test_a_rebound_name_reaches_nothing(site: Site, host: str) -> None:
    for path in ("/health", "/v1/models", "/"):
        assert site.client.get(path, headers={"Host": host}).status_code in (400, 403)
    assert site.refused() == {"host": 3}


def test_two_hosts_are_none(site: Site) -> None:
    headers = [("Host", "localhost"), ("Host", "evil.example")]
    assert site.client.get("/health", headers=headers).status_code == 400


def test_the_host_is_checked_on_other_addresses_too(make_site: Callable[..., Site]) -> None:
    site = make_site(host="0.0.0.0", insecure=True, hosts=("box.example",))
    assert site.client.get("/health", headers={"Host": "evil.example"}).status_code == 403
    assert site.client.get("/health", headers={"Host": "0.0.0.0"}).status_code == 403
    assert site.client.get("/health", headers={"Host": "Box.example:80"}).status_code == 200


@pytest.mark.parametrize(
    "asking",
    [
        "null",
        "http://evil.example",
        "https://127.0.0.1:11435",
        "http://127.0.0.1",
        "http://localhost:11435",
        "file://",
        "app://x",
        "vscode-webview://x",
        "*",
        "",
    ],
)
def test_other_origins_get_nothing(site: Site, asking: str) -> None:
    answer = site.client.post("/v1/messages", json=MESSAGE, headers={"Origin": asking})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    assert site.client.get("/health", headers={"Origin": asking}).status_code == 403
    assert not site.fleet.asked


def test_the_servers_own_page_may_ask(site: Site) -> None:
    headers = {"Origin": HERE, "Sec-Fetch-Site": "same-origin"}
    assert site.client.post("/v1/messages", json=MESSAGE, headers=headers).status_code == 200


def test_an_allowed_origin_may_ask_and_read(make_site: Callable[..., Site]) -> None:
    site = make_site(origins=("https://chat.example/",))
    asking = {"Origin": "https://chat.example"}
    answer = site.client.post("/v1/messages", json=MESSAGE, headers=asking)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://chat.example"
    assert answer.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in answer.headers
    preflight = asking | {"Access-Control-Request-Method": "POST"}
    answer = site.client.options("/v1/messages", headers=preflight)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "https://chat.example"
    preflight["Origin"] = "https://chat.example.evil.example"
    assert site.client.options("/v1/messages", headers=preflight).status_code == 403


@pytest.mark.parametrize("where", ["cross-site", "same-site", "nonsense"])
def test_a_browser_that_hides_the_origin_is_asked_where_it_is(site: Site, where: str) -> None:
    headers = {"Sec-Fetch-Site": where, "Sec-Fetch-Mode": "no-cors"}
    assert site.client.get("/v1/models", headers=headers).status_code == 403
    link = headers | {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert site.client.get("/", headers=link).status_code == 200
    assert site.client.get("/v1/models", headers=link).status_code == 403
    frame = link | {"Sec-Fetch-Dest": "iframe"}
    assert site.client.get("/", headers=frame).status_code == 403


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"]
)
def test_what_a_form_can_send_changes_nothing(site: Site, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = site.client.post("/admin/load", content=b'{"model": "tiny"}', headers=headers)
    assert answer.status_code == 415
    assert site.client.post("/admin/stop", headers=headers).status_code == 415
    assert not site.fleet.loaded_names


def test_json_kinds(site: Site) -> None:
    for kind in ("application/json; charset=utf-8", "Application/JSON"):
        headers = {"Content-Type": kind}
        answer = site.client.post("/admin/load", content=b'{"model": "tiny"}', headers=headers)
        assert answer.status_code == 200


def test_reading_changes_nothing(site: Site) -> None:
    """No route that is read changes anything, so none of those that change can be read."""
    changing = ["/admin/load", "/admin/unload", "/admin/stop", "/v1/messages", "/api/delete"]
    for path in changing:
        assert site.client.get(path).status_code in (404, 405)
        assert site.client.head(path).status_code in (404, 405)
    for method in ("PUT", "PATCH", "TRACE", "CONNECT", "FOO"):
        assert site.client.request(method, "/admin/load", json={}).status_code == 405


def test_sizes_of_url_and_headers(site: Site) -> None:
    assert site.client.get("/health?" + "a" * 9000).status_code == 414
    assert site.client.get("/health", headers={"X-Much": "a" * 70_000}).status_code == 431


def test_origins_and_names_are_checked_at_the_start() -> None:
    assert origin("HTTPS://Chat.Example:443") == "https://chat.example"
    assert origin("http://[::1]:8080") == "http://[::1]:8080"
    for bad in ("*", "https://*.example", "file://", "app://x", "null", "https://a/b", "a.example"):
        with pytest.raises(RequestError):
            origin(bad)
    check_names(["box.example", "10.0.0.7", "fe80::1"])
    for bad in ("*", "*.example", "a/b", "0.0.0.0", ""):
        with pytest.raises(RequestError):
            check_names([bad])
