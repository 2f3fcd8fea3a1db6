"""The chat in a browser: streaming, stopping, what a model writes, what is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from pocketlm.errors import BusyError, ContextError, ModelFileError
from pocketlm.serve.generation import Generation
from serve.page.site import KEY, REASONING, Site
from serve.scripted import Script

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect


def ask(page: Any, question: str, *, wait: bool = True) -> None:
    page.fill("#prompt", question)
    page.press("#prompt", "Enter")
    if wait:
        done(page)


def done(page: Any) -> None:
    page.wait_for_selector("#composer:not(.answering)")
    page.wait_for_selector("article.assistant:last-child footer")


def wait_until(page: Any, true: Callable[[], bool]) -> None:
    """Waits some seconds for the server."""
    for _ in range(100):
        if true():
            return
        page.wait_for_timeout(50)
    raise AssertionError("it did not become true")


def last(page: Any) -> Any:
    return page.locator("article.assistant").last


def text(page: Any) -> Any:
    """What the last answer says, without its thoughts."""
    return page.locator("article.assistant > .body").last


def test_an_answer_streams_in_and_tells_what_it_took(page: Any, site: Site) -> None:
    page.evaluate("""() => {
      window.seen = [];
      const watch = () => seen.push(document.querySelector("article.assistant > .body")?.textContent
        + document.getElementById("send").title);
      new MutationObserver(watch).observe(document.body, { childList: true, subtree: true });
    }""")
    site.says("One, ", "two, ", "three.", delay=0.15)
    ask(page, "Count")
    seen = page.evaluate("seen")
    assert "One, Stop" in seen
    assert "One, two, Stop" in seen
    assert text(page).inner_text() == "One, two, three."
    note = last(page).locator(".note").inner_text()
    assert "11 + 16 tokens" in note
    assert "tokens/s" in note
    assert "first after" in note
    assert page.get_by_role("button", name="Send").is_visible()
    assert site.bodies == [
        {
            "model": "gemma3:270m",
            "messages": [{"role": "user", "content": "Count"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


def test_the_next_question_carries_what_was_said(page: Any, site: Site) -> None:
    site.says("Blue.")
    ask(page, "A colour?")
    ask(page, "Another?")
    assert [one["content"] for one in site.bodies[-1]["messages"]] == [
        "A colour?",
        "Blue.",
        "Another?",
    ]


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stopping_frees_the_model_and_keeps_the_text(page: Any, site: Site, how: str) -> None:
    site.says("So far.", *["more"] * 50, delay=0.2)
    ask(page, "Go on", wait=False)
    expect(text(page)).to_contain_text("So far.")
    if how == "button":
        page.click("#send")
    else:
        page.keyboard.press("Escape")
    done(page)
    assert text(page).inner_text().startswith("So far.")
    assert "stopped" in last(page).locator(".note").inner_text()
    wait_until(page, lambda: site.stopped == ["chat"])
    assert site.fleet.open == 0


def test_thoughts_are_folded(page: Any, site: Site) -> None:
    site.says(REASONING + "Let me see.", "42.")
    ask(page, "Why?")
    thoughts = last(page).locator("details.thoughts")
    assert thoughts.get_attribute("open") is None
    assert not thoughts.get_by_text("Let me see.").is_visible()
    thoughts.locator("summary").click()
    assert thoughts.get_by_text("Let me see.").is_visible()
    ask(page, "And?")
    assert "Let me see." not in json.dumps(site.bodies[-1])


def test_settings_go_with_the_request(page: Any, site: Site) -> None:
    page.get_by_role("button", name="Settings", exact=True).click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("0.3")
    page.get_by_label("Top p").fill("0.9")
    page.get_by_label("Top k").fill("7")
    page.get_by_label("Max tokens").fill("5")
    page.get_by_label("Seed").fill("0")
    page.get_by_label("Thinking").select_option("off")
    page.select_option("#model", "tiny:latest")
    ask(page, "Hi")
    body = site.bodies[-1]
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert {name: body[name] for name in ("temperature", "top_p", "top_k", "max_tokens")} == {
        "temperature": 0.3,
        "top_p": 0.9,
        "top_k": 7,
        "max_tokens": 5,
    }
    assert (body["seed"], body["model"]) == (0, "tiny:latest")
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert "the limit of tokens was reached" in last(page).locator(".note").inner_text()
    page.get_by_label("Temperature").fill("")
    page.get_by_label("Top p").fill("7")  # no valid one
    ask(page, "Hi")
    assert not {"temperature", "top_p"} & set(site.bodies[-1])


def test_edit_retry_clear_and_undo(page: Any, site: Site) -> None:
    def echo(generation: Generation) -> Script:
        said = generation.prompt.messages[-1]["content"]  # type: ignore[union-attr]
        return Script((f"{said}! {len(site.bodies)}",))

    site.answers(echo)
    ask(page, "one")
    ask(page, "two")
    last(page).get_by_role("button", name="Answer again").click()
    expect(last(page)).to_contain_text("two! 3")
    done(page)
    assert [one["content"] for one in site.bodies[-1]["messages"]] == ["one", "one! 1", "two"]
    page.locator("article.user").first.get_by_role("button", name="Edit").click()
    page.get_by_label("Your message").fill("three")
    page.get_by_label("Your message").press("Enter")
    expect(last(page)).to_contain_text("three! 4")
    done(page)
    assert page.locator("article").count() == 2
    page.get_by_role("button", name="Clear this conversation").click()
    assert page.locator("article").count() == 0
    page.get_by_role("button", name="Undo").click()
    assert text(page).inner_text() == "three! 4"


def test_conversations_stay_in_the_browser(page: Any, site: Site) -> None:
    site.says("Kept.")
    ask(page, "First thing")
    page.get_by_role("button", name="New chat").click()
    ask(page, "Second thing")
    page.reload()
    chats = page.locator("#chats .chat")
    assert chats.all_inner_texts() == ["Second thing", "First thing"]
    chats.nth(1).click()
    assert page.locator("article.user .body").inner_text() == "First thing"
    page.get_by_role("button", name="Delete Second thing").click()
    assert chats.all_inner_texts() == ["First thing"]
    page.get_by_role("button", name="Undo").click()
    assert len(chats.all_inner_texts()) == 2


def test_many_conversations_can_be_searched(page: Any, site: Site) -> None:
    site.says("An answer with a Needle in it.")
    ask(page, "Odd one")
    page.evaluate("""() => {
      const [name] = Object.keys(localStorage);
      const chat = JSON.parse(localStorage[name]);
      for (let at = 0; at < 8; at++) {
        chat.id = "copy" + at;
        chat.messages = [{ role: "user", content: "Hay " + at }];
        localStorage["pocketlm.chat." + chat.id] = JSON.stringify(chat);
      }
    }""")
    page.reload()
    chats = page.locator("#chats .chat")
    expect(chats).to_have_count(9)
    page.get_by_label("Search the conversations").fill("needle")
    assert chats.all_inner_texts() == ["Odd one"]


def test_conversations_leave_and_come_back_as_json(page: Any, site: Site) -> None:
    site.says("Taken along.")
    ask(page, "Where to?")
    page.get_by_role("button", name="Settings", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export this one").click()
    exported = download.value.path().read_text()
    assert json.loads(exported)["chats"][0]["messages"][1]["content"] == "Taken along."
    page.evaluate("localStorage.clear()")
    page.reload()
    assert page.locator("#chats li").count() == 0
    page.get_by_role("button", name="Settings", exact=True).click()
    field = page.locator("#import")
    field.set_input_files(
        {"name": "c.json", "mimeType": "application/json", "buffer": exported.encode()}
    )
    page.wait_for_selector("article.assistant")
    assert text(page).inner_text() == "Taken along."
    for bad in (b"{", b"{}", b'{"pocketlm":"conversations","version":1,"chats":[{"id":3}]}'):
        field.set_input_files({"name": "c.json", "mimeType": "application/json", "buffer": bad})
        page.wait_for_selector(".notice.error")
        page.locator(".notice.error").get_by_role("button", name="Dismiss").click()
    assert page.locator("#chats li").count() == 1


def test_errors_are_shown_as_the_api_words_them(page: Any, site: Site) -> None:
    site.says(refuses=ContextError("the prompt has 9,000 tokens, but the context has 4,096"))
    ask(page, "Long")
    alert = page.get_by_role("alert")
    assert alert.inner_text() == "the prompt has 9,000 tokens, but the context has 4,096"
    site.says("Half", error=ModelFileError("the engine of tiny:latest has ended"))
    last(page).get_by_role("button", name="Answer again").click()
    done(page)
    assert text(page).inner_text() == "Half"
    assert alert.inner_text() == "the engine of tiny:latest has ended"
    site.says(refuses=BusyError("too many wait"))
    ask(page, "Again")
    assert alert.last.inner_text() == "too many wait"
    assert [one["content"] for one in site.bodies[-1]["messages"]] == ["Long", "Again"]


def test_a_key_is_asked_for_and_kept_for_the_tab_only(page: Any, site: Site) -> None:
    site.locked = True
    ask(page, "Hi", wait=False)
    dialog = page.get_by_role("dialog")
    assert "this server wants an API key" in dialog.inner_text()
    page.get_by_label("API key").fill("wrong")
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_label("API key")).to_have_value("")
    page.get_by_label("API key").fill(KEY)
    page.keyboard.press("Enter")
    done(page)
    assert text(page).inner_text() == "Hello world"
    assert page.evaluate("sessionStorage.getItem('pocketlm.key')") == KEY
    assert KEY not in page.evaluate("JSON.stringify(localStorage)")


def test_no_key_is_an_error_like_any_other(page: Any, site: Site) -> None:
    site.locked = True
    ask(page, "Hi", wait=False)
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    done(page)
    assert page.get_by_role("alert").inner_text() == "this server wants an API key"


def test_shift_enter_begins_a_line_and_an_empty_message_is_none(page: Any, site: Site) -> None:
    page.press("#prompt", "Enter")
    assert page.locator("article").count() == 0
    page.fill("#prompt", "a")
    page.press("#prompt", "Shift+Enter")
    page.keyboard.type("b")
    page.press("#prompt", "Enter")
    done(page)
    assert site.bodies[0]["messages"][0]["content"] == "a\nb"


def test_files_of_text_become_blocks_of_code(page: Any, site: Site) -> None:
    page.fill("#prompt", "Explain:")
    field = page.get_by_label("Attach a file of text")
    code = {"name": "a.py", "mimeType": "text/x-python", "buffer": b"x = 1\n# ```\n"}
    field.set_input_files(code)
    expect(page.locator("#prompt")).to_have_value("Explain:\n\na.py:\n````\nx = 1\n# ```\n````\n")
    field.set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"\x89PNG\xff"})
    expect(page.get_by_role("alert")).to_contain_text("a.png: it is not text")
    page.locator("#chat").evaluate("""(chat) => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File(["dropped"], "b.txt"));
      chat.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
    }""")
    expect(page.locator("#prompt")).to_have_value(re.compile("\nb.txt:\n```\ndropped\n```\n$"))


def test_a_reader_who_has_gone_up_is_left_there(page: Any, site: Site) -> None:
    site.says("line\n\n" * 60)
    ask(page, "Long")
    scroll, to_end = page.locator("#scroll"), page.get_by_role("button", name="To the end")
    assert not to_end.is_visible()
    scroll.evaluate("one => one.scrollTop = 0")
    expect(to_end).to_be_visible()
    to_end.click()
    expect(to_end).not_to_be_visible()
    assert scroll.evaluate("one => one.scrollHeight - one.scrollTop - one.clientHeight") < 40


def test_a_question_with_markup_stays_text(page: Any) -> None:
    ask(page, "<b>bold</b> & **stars**")
    assert page.locator("article.user .body").inner_text() == "<b>bold</b> & **stars**"
