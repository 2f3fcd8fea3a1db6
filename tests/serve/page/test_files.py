"""The files of the page: to whom, with which headers, how large."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pocketlm.serve.page.files import read_files
from serve.page.site import Site

HTML = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}


@pytest.fixture(scope="module")
def client(shared_site: Site) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shared_site.url) as client:
        yield client


def test_a_browser_gets_the_page(client: httpx.Client) -> None:
    answer = client.get("/", headers=HTML)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "Accept" in answer.headers["vary"].split(", ")
    assert "<title>PocketLM</title>" in answer.text


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
def test_a_client_of_ollama_gets_its_greeting(client: httpx.Client, accept: str) -> None:
    answer = client.get("/", headers={"Accept": accept})
    assert answer.text == "Ollama is running"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["vary"] == "Accept"


@pytest.mark.parametrize("headers", [HTML, {}], ids=["browser", "client"])
def test_head_has_the_headers_of_get_and_no_body(
    client: httpx.Client, headers: dict[str, str]
) -> None:
    head, get = client.head("/", headers=headers), client.get("/", headers=headers)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]


def test_the_policy_lets_nothing_foreign_or_inline_run(client: httpx.Client) -> None:
    for path in ("/", "/page/static/app.js"):
        headers = client.get(path, headers=HTML).headers
        policy = dict(one.split(" ", 1) for one in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert policy["require-trusted-types-for"] == "'script'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_what_a_browser_has_already_is_not_sent_again(client: httpx.Client) -> None:
    first = client.get("/page/static/app.js")
    assert first.headers["cache-control"] == "no-cache"
    again = client.get(
        "/page/static/app.js", headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'}
    )
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    changed = client.get("/page/static/app.js", headers={"If-None-Match": '"other"'})
    assert changed.status_code == 200


def test_the_compressed_file_is_the_same_file(client: httpx.Client) -> None:
    zipped = client.get("/page/static/style.css", headers={"Accept-Encoding": "gzip"})
    plain = client.get("/page/static/style.css", headers={"Accept-Encoding": "identity"})
    assert zipped.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert zipped.text == plain.text
    assert zipped.headers["etag"] != plain.headers["etag"]


@pytest.mark.parametrize("name", ["nothing.js", "..%2Ffiles.py", "%2e%2e/routes.py"])
def test_only_the_files_of_the_page_are_served(client: httpx.Client, name: str) -> None:
    assert client.get(f"/page/static/{name}").status_code == 404


def test_the_page_is_small_and_names_only_itself() -> None:
    files = read_files()
    assert sum(len(file.compressed) for file in files.values()) < 60_000
    for name, file in files.items():
        text = file.content.decode()
        assert "innerHTML" not in text, name
        foreign = set(re.findall(r"https?://[^\s\"'`<>\\]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not {one for one in foreign if "." in one}, name


def test_every_module_that_is_imported_is_there_and_preloaded() -> None:
    files = read_files()
    page = files["index.html"].content.decode()
    for name in filter(lambda name: name.endswith(".js"), files):
        assert f"/page/static/{name}" in page, f"{name} would be found late"
        for wanted in re.findall(r'from "\./([^"]+)"', files[name].content.decode()):
            assert wanted in files


def test_nothing_in_the_package_is_left_out() -> None:
    static = Path(read_files.__code__.co_filename).parent / "static"
    assert {path.name for path in static.iterdir()} == set(read_files())
