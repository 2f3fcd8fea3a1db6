"""The page on the server's own OpenAI API: what it sends is understood, what comes is shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pocketlm.errors import ModelFileError
from serve.page.site import Site, running_site
from serve.page.test_chat import ask, expect, last, text, wait_until


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("home"), real=True) as site:
        yield site


def test_settings_reach_the_model(page: Any, site: Site) -> None:
    page.get_by_role("button", name="Settings", exact=True).click()
    for name, value in (("Temperature", "0.3"), ("Top p", "0.9"), ("Top k", "7"), ("Seed", "5")):
        page.get_by_label(name).fill(value)
    page.get_by_label("Max tokens").fill("50")
    page.get_by_label("Thinking").select_option("off")
    ask(page, "Hi")
    assert text(page).inner_text() == "Hello world"
    assert "+ 11 tokens" in last(page).locator(".note").inner_text()
    (asked,) = site.fleet.asked
    wanted = {"temperature": 0.3, "top_p": 0.9, "top_k": 7, "seed": 5, "max_tokens": 50}
    assert {name: asked.options[name] for name in wanted} == wanted
    assert asked.prompt.variables["enable_thinking"] is False  # type: ignore[union-attr]


def test_an_answer_can_be_stopped_and_can_fail(page: Any, site: Site) -> None:
    site.says("So far.", *["more"] * 100, delay=0.1)
    ask(page, "Go on", wait=False)
    expect(text(page)).to_contain_text("So far.")
    page.keyboard.press("Escape")
    expect(last(page).locator(".note")).to_contain_text("stopped")
    wait_until(page, lambda: site.fleet.open == 0)
    site.says("Half", error=ModelFileError("the engine has ended"))
    last(page).get_by_role("button", name="Answer again").click()
    expect(page.get_by_role("alert")).to_contain_text("the engine has ended")
