"""A browser for the tests of the page: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from serve.page.site import Site, running_site


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One for each module: while it is there its thread has an event loop running."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no Chromium is installed; 'apt-get install chromium' brings one")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("home")) as site:
        yield site


@pytest.fixture
def site(shared_site: Site) -> Site:
    """The server of the module, as if it had just been started."""
    shared_site.reset()
    return shared_site


@pytest.fixture
def page(browser: Any, site: Site) -> Iterator[Any]:
    """The page, opened in a browser that has never seen it; it must not complain of anything."""
    context = browser.new_context(viewport={"width": 1100, "height": 700})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(10_000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: _note(complaints, message))
    page.goto(site.url)
    page.wait_for_selector("#model option[value='tiny:latest']", state="attached")
    yield page
    context.close()
    assert complaints == []


def _note(complaints: list[str], message: Any) -> None:
    """What the browser says by itself of requests that are refused is expected by some tests."""
    if message.type == "error" and not message.text.startswith("Failed to load resource"):
        complaints.append(message.text)
