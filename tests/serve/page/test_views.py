"""Models, activity and the page as a whole in a browser: on a desk, on a phone, by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from serve.page.conftest import opened_tab, show
from serve.page.site import KEY, Site
from serve.page.test_chat import ask, done, wait_until

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect


def view(page: Any, name: str) -> None:
    page.locator(".views").get_by_role("link", name=name).click()
    page.wait_for_selector(f"#{name.lower()}:not([hidden])")


def row(page: Any, name: str) -> Any:
    return page.locator(".models tbody tr").filter(has=page.get_by_role("rowheader", name=name))


# Models


def test_models_show_their_facts(page: Any) -> None:
    view(page, "Models")
    expect(page.get_by_text("when loaded")).to_have_count(2)
    cells = row(page, "gemma3:270m").locator("td").all_inner_texts()
    assert cells[0].split("\n") == ["Micro", "268.1M"]
    assert cells[1:4] == ["Q4_K_M", "32,768", "164.2 MB"]
    assert cells[5] == "gemma"
    assert cells[4].split("\n") == ["134.5 MB", "when loaded"]
    assert page.locator("#catalog option[value='smollm2:135m']").count() == 1


def test_load_pin_unpin_unload(page: Any, site: Site) -> None:
    view(page, "Models")
    tiny = row(page, "tiny:latest")
    tiny.get_by_role("button", name="Load tiny:latest", exact=True).click()
    expect(tiny).to_contain_text("loaded")
    expect(tiny).to_contain_text("200.0 MB")
    expect(tiny).to_contain_text("4,096 in use")
    tiny.get_by_role("button", name="Pin tiny:latest", exact=True).click()
    expect(tiny).to_contain_text("loaded and pinned")
    assert site.fleet.pinned == {"tiny:latest"}
    tiny.get_by_role("button", name="Unpin tiny:latest", exact=True).click()
    expect(tiny).not_to_contain_text("pinned")
    tiny.get_by_role("button", name="Unload tiny:latest", exact=True).click()
    expect(tiny).to_contain_text("on disk")
    assert site.fleet.loaded_names == {}


def test_the_focus_stays_where_it_was_when_the_table_changes(page: Any) -> None:
    view(page, "Models")
    page.get_by_role("button", name="Load tiny:latest", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Unload tiny:latest")).to_be_focused()


def test_an_error_of_a_model_is_said(page: Any, site: Site) -> None:
    view(page, "Models")
    del site.fleet.names["tiny:latest"]  # type: ignore[union-attr]
    try:
        row(page, "tiny:latest").get_by_role("button", name="Load").click()
        expect(page.get_by_role("alert")).to_contain_text("there is no model tiny:latest")
    finally:
        site.fleet.names["tiny:latest"] = site.fleet.facts  # type: ignore[index]


def test_a_model_is_deleted_after_a_question(page: Any, site: Site) -> None:
    view(page, "Models")
    page.once("dialog", lambda dialog: dialog.dismiss())
    row(page, "tiny:latest").get_by_role("button", name="Delete").click()
    assert site.deleted == []
    page.once("dialog", lambda dialog: dialog.accept())
    row(page, "tiny:latest").get_by_role("button", name="Delete").click()
    expect(page.locator(".models tbody tr")).to_have_count(1)
    assert site.deleted == ["tiny:latest"]


def pulling(*completed: int) -> list[dict[str, Any] | None]:
    digest = {"status": "pulling ab12", "digest": "sha256:ab12", "total": 100_000_000}
    return [{"status": "pulling manifest"}, *({**digest, "completed": one} for one in completed)]


def test_a_pull_shows_how_far_it_is(page: Any, site: Site) -> None:
    site.pulls = [*pulling(0, 25_000_000, 50_000_000), None, {"status": "success"}]
    view(page, "Models")
    page.get_by_label("Get a model").fill("qwen3:0.6b")
    page.keyboard.press("Enter")
    bar = page.get_by_role("progressbar", name="Pull of qwen3:0.6b")
    expect(bar).to_have_js_property("value", 0.5)
    expect(page.locator("#pulls")).to_contain_text("50.0 MB of 100.0 MB")
    site.go.set()
    expect(page.locator(".notice")).to_contain_text("qwen3:0.6b is here.")
    assert bar.count() == 0
    expect(row(page, "qwen3:0.6b")).to_contain_text("Q8_0")


def test_a_pull_can_be_stopped(page: Any, site: Site) -> None:
    site.pulls = [*pulling(0, 1_000_000), None]
    view(page, "Models")
    page.get_by_label("Get a model").fill("qwen3:0.6b")
    page.get_by_role("button", name="Pull", exact=True).click()
    expect(page.locator("#pulls")).to_contain_text("of 100.0 MB")
    page.get_by_role("button", name="Stop the pull of qwen3:0.6b").click()
    expect(page.locator("#pulls li")).to_have_count(0)
    wait_until(page, lambda: site.stopped == ["pull"])


FULL = "no space left: 100 MB are wanted, 3 MB are free"


@pytest.mark.parametrize(
    ("end", "why"),
    [([{"error": FULL}], FULL), ([], "The connection ended before the pull did.")],
    ids=["error", "cut off"],
)
def test_a_pull_that_fails_says_why(
    page: Any, site: Site, end: list[dict[str, Any]], why: str
) -> None:
    site.pulls = [*pulling(0), *end]
    view(page, "Models")
    page.get_by_label("Get a model").fill("qwen3:0.6b")
    page.keyboard.press("Enter")
    expect(page.locator("#pulls").get_by_role("alert")).to_have_text(why)
    page.locator("#pulls").get_by_role("button", name="Dismiss").click()
    expect(page.locator("#pulls li")).to_have_count(0)


# Activity


@pytest.fixture
def timed(browser: Any, site: Site) -> Iterator[Any]:
    """The page with a clock that stands still until the test moves it."""
    with opened_tab(browser) as tab:
        tab.page.clock.install(time=0)
        tab.page.clock.pause_at(1000)
        show(tab.page, site).wait_for_selector("#pulse .on")  # the first sample is there
        yield tab.page
        assert tab.complaints == []


def test_charts_follow_the_server(timed: Any, site: Site) -> None:
    site.fleet.loaded_names["tiny:latest"] = None
    site.fleet.running, site.fleet.waiting = 3, 2
    view(timed, "Activity")
    timed.clock.run_for(1000)
    requests = timed.locator("#chart-requests")
    expect(requests.locator(".legend")).to_have_text("3 running2 waiting")
    picture = requests.get_by_role("img")
    expect(picture).to_have_attribute("aria-label", "Requests now: 3 running, 2 waiting")
    site.fleet.running = 4
    timed.clock.run_for(1000)
    expect(requests.locator(".legend")).to_contain_text("4 running")
    assert "L" in requests.locator(".line-0").get_attribute("d")
    expect(timed.locator("#activity-models tbody tr")).to_have_text("tiny:latest42200.0 MB")
    expect(timed.locator("#pulse")).to_contain_text("2 waiting")


def test_models_that_others_load_and_unload_are_seen(timed: Any, site: Site) -> None:
    view(timed, "Models")
    expect(row(timed, "tiny:latest")).to_contain_text("on disk")
    site.fleet.loaded_names["tiny:latest"] = None
    timed.clock.run_for(1000)
    expect(row(timed, "tiny:latest")).to_contain_text("loaded")
    expect(timed.locator("#model option[value='tiny:latest']")).to_have_text("tiny:latest · loaded")


def test_rates_come_from_counters(timed: Any) -> None:
    samples = iter([(0.0, 100), (2.0, 180), (3.0, 40)])  # the last: a model was unloaded

    def live(route: Any) -> None:
        time, tokens = next(samples)
        route.fulfill(
            json={
                "time": time,
                "output_tokens": tokens,
                "prompt_tokens": 0,
                "running": 1,
                "waiting": 0,
                "memory": 0,
                "kv_usage": 0.25,
                "models": [],
            }
        )

    timed.route("**/page/live", live)
    timed.reload()
    view(timed, "Activity")
    written = timed.locator("#chart-tokens .legend span").first
    expect(timed.locator("#pulse")).to_have_text("1 running")
    expect(written).to_have_text("– written")
    timed.clock.run_for(1000)
    expect(written).to_have_text("40 written")
    expect(timed.locator("#pulse")).to_contain_text("40 tokens/s")
    expect(timed.locator("#chart-kv .legend")).to_contain_text("25")
    timed.clock.run_for(1000)
    expect(written).to_have_text("0 written")


def test_nothing_is_asked_while_nobody_looks(timed: Any) -> None:
    asked: list[str] = []

    def note(request: Any) -> None:
        if "/static/" not in request.url:  # the icon comes when it likes
            asked.append(request.url.rpartition("/")[2])

    timed.on("request", note)
    timed.clock.run_for(1000)
    wait_until(timed, lambda: asked == ["live"])
    hide = """(state) => {
      Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    timed.evaluate(hide, "hidden")
    timed.clock.run_for(10_000)
    assert asked == ["live"]
    timed.evaluate(hide, "visible")
    wait_until(timed, lambda: asked == ["live", "live"])


def test_a_server_that_is_gone_or_locked_is_said_so(timed: Any, site: Site) -> None:
    pulse = timed.locator("#pulse")
    site.locked = True
    timed.clock.run_for(1000)
    expect(pulse).to_have_text("a key is needed")
    assert not timed.get_by_role("dialog").is_visible()
    timed.route("**/page/live", lambda route: route.abort())
    timed.clock.run_for(1000)
    expect(pulse).to_have_text("no connection")
    timed.unroute("**/page/live")
    slower = {"status": 429, "headers": {"Retry-After": "5"}, "body": "{}"}
    timed.route("**/page/live", lambda route: route.fulfill(**slower))
    timed.clock.run_for(1000)
    expect(pulse).to_have_text("asked too often")
    timed.unroute("**/page/live")
    timed.evaluate(f"sessionStorage.setItem('pocketlm.key', '{KEY}')")
    timed.clock.run_for(4000)
    expect(pulse).to_have_text("asked too often")
    timed.clock.run_for(1000)
    expect(pulse).to_have_text("ready, no model loaded")


# The page as a whole


def test_the_page_is_there_before_any_answer_of_the_server(browser: Any, site: Site) -> None:
    page = browser.new_page()
    page.route("**/page/models", lambda route: None)  # never answered
    page.route("**/page/live", lambda route: None)
    page.goto(site.url)
    expect(page.locator("#prompt")).to_be_focused()
    expect(page.get_by_text("What would you like to know?")).to_be_visible()
    page.close()


def test_nothing_comes_from_elsewhere(browser: Any, site: Site) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(site.url)
    for name in ("Models", "Activity"):
        view(page, name)
    assert asked
    assert {one for one in asked if not one.startswith(site.url)} == set()
    page.close()


@pytest.fixture
def phone(browser: Any, site: Site) -> Iterator[Any]:
    context = browser.new_context(
        viewport={"width": 360, "height": 640}, is_mobile=True, has_touch=True
    )
    page = context.new_page()
    page.goto(site.url)
    yield page
    context.close()


def overflow(page: Any) -> list[str]:
    """What reaches beyond the width of the screen, apart from what scrolls by itself."""
    found: list[str] = (
        page.evaluate("""() => [...document.querySelectorAll("main *")].filter((one) =>
      one.getBoundingClientRect().right > innerWidth + 1 && !one.closest("pre, .table, .unseen"))
      .map((one) => one.outerHTML.slice(0, 80))""")
    )
    width = page.evaluate("document.documentElement.scrollWidth")
    return [*found, *([f"{width} px wide"] if width > 360 else [])]


def test_a_phone_shows_all_without_scrolling_sideways(phone: Any, site: Site) -> None:
    site.says(
        "A table:\n\n|" + "|".join("abcdefghijkl" * 2) + "|\n|" + "-|" * 24 + "\n\n```\n",
        "x" * 200 + "\n```\n" + "y" * 200,
    )
    expect(phone.locator("#model option")).to_have_count(2)
    ask(phone, "W" * 100)
    assert overflow(phone) == []
    phone.get_by_role("button", name="Settings", exact=True).tap()
    assert phone.get_by_label("Seed").is_visible()
    assert overflow(phone) == []
    phone.get_by_role("button", name="Close the settings").tap()
    for name in ("Models", "Activity"):
        phone.locator("section:not([hidden]) > header .open-side").tap()
        view(phone, name)
        expect(phone.locator("body")).not_to_have_class("side-open")
        assert overflow(phone) == []


def test_the_side_of_a_phone_is_out_of_reach_until_it_is_opened(phone: Any) -> None:
    side = phone.locator("#side")
    assert not side.is_visible()
    button = phone.locator("#chat .open-side")
    button.tap()
    expect(side).to_be_visible()
    assert button.get_attribute("aria-expanded") == "true"
    phone.keyboard.press("Escape")
    expect(side).not_to_be_visible()


def test_all_is_reached_by_keyboard_and_the_focus_is_seen(page: Any, site: Site) -> None:
    ask(page, "Hi")
    reached = set()
    for _ in range(25):
        page.keyboard.press("Tab")
        name, outline = page.evaluate("""() => {
          const one = document.activeElement;
          const style = getComputedStyle(one.id === "prompt" ? one.parentElement : one);
          return [one.getAttribute("aria-label") ?? one.id ?? "",
                  style.outlineStyle !== "none" || one === document.body || one.id === "prompt"];
        }""")
        assert outline, f"{name} does not show that it has the focus"
        reached.add(name)
    assert {"Model", "Clear this conversation", "Settings", "Answer again", "Send"} <= reached


def test_everything_that_can_be_used_has_a_name(page: Any) -> None:
    page.get_by_role("button", name="Settings", exact=True).click()
    nameless = page.evaluate("""() => [...document.querySelectorAll(
      "button, input, select, textarea, a")]
      .filter((one) => !(one.ariaLabel || one.labels?.length || one.textContent.trim()))
      .map((one) => one.outerHTML)""")
    assert nameless == []
    assert page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(page: Any, scheme: str) -> None:
    """WCAG 2: 4.5 : 1 for text, in both schemes."""
    page.emulate_media(color_scheme=scheme)
    ratios = page.evaluate("""() => {
      const style = getComputedStyle(document.documentElement);
      const light = (name) => {
        const parts = style.getPropertyValue(name).trim().replace("#", "");
        const hex = parts.length === 3 ? [...parts].map((one) => one + one).join("") : parts;
        const [r, g, b] = [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255)
          .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const ratio = (a, b) => [light(a), light(b)].sort((one, other) => other - one)
        .map((one) => one + 0.05).reduce((high, low) => high / low);
      const pairs = [["--on-accent", "--accent"]];
      for (const ground of ["--paper", "--side", "--soft"])
        for (const text of ["--ink", "--muted", "--accent", "--bad", "--second", "--third"])
          pairs.push([text, ground]);
      return pairs.map(([a, b]) => [a + " on " + b, ratio(a, b)]);
    }""")
    assert [pair for pair in ratios if pair[1] < 4.5] == []


def test_motion_stops_for_those_who_asked(page: Any, site: Site) -> None:
    page.emulate_media(reduced_motion="reduce")
    site.says("a", delay=0.5)
    ask(page, "Hi", wait=False)
    assert (
        page.locator(".dots i").first.evaluate("e => getComputedStyle(e).animationName") == "none"
    )
    done(page)
