"""A browser for the tests of the page: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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
    api.expect.set_options(timeout=15_000)  # the machine may be busy with other tests
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


@dataclass
class Tab:
    """A page of a browser and what it has complained of."""

    page: Any
    complaints: list[str] = field(default_factory=list)


@contextmanager
def opened_tab(browser: Any) -> Iterator[Tab]:
    """A tab of a browser that has never seen the page."""
    context = browser.new_context(viewport={"width": 1100, "height": 700})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(10_000)
    tab = Tab(context.new_page())
    tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.page.on("console", lambda message: _note(tab.complaints, message))
    yield tab
    context.close()


@pytest.fixture(scope="module")
def tab(browser: Any) -> Iterator[Tab]:
    """Shared, since a new one for each test takes longer than the tests."""
    with opened_tab(browser) as tab:
        yield tab


@pytest.fixture
def page(tab: Tab, site: Site) -> Iterator[Any]:
    """The page as one sees it for the first time; it must not complain of anything."""
    page = tab.page
    page.unroute_all()
    page.emulate_media(color_scheme="light", reduced_motion="no-preference")
    page.goto(f"{site.url}/page/static/icon.svg")  # of the same origin, and runs nothing
    page.evaluate("localStorage.clear(); sessionStorage.clear()")
    tab.complaints.clear()
    yield show(page, site)
    assert tab.complaints == []


def show(page: Any, site: Site) -> Any:
    """Opens the page and waits until it knows the models."""
    page.goto(site.url)
    page.wait_for_selector("#model option[value='tiny:latest']", state="attached")
    return page


def _note(complaints: list[str], message: Any) -> None:
    """What the browser says by itself of requests that are refused is expected by some tests."""
    if message.type == "error" and not message.text.startswith("Failed to load resource"):
        complaints.append(message.text)
