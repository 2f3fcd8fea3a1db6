"""What a model writes, as elements of the page: markdown is shown, everything else is text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from serve.page.site import Site
from serve.page.test_chat import ask, last

# Renders a text piece by piece, as it would stream in, and gives the markup that came of it.
RENDER = """async ([text, step]) => {
  const { render } = await import("/page/static/markdown.js");
  const box = document.createElement("div");
  for (let end = step; end < text.length + step; end += step) render(box, text.slice(0, end));
  for (const head of box.querySelectorAll(".code-head")) head.remove();
  for (const item of box.querySelectorAll("[tabindex]")) item.removeAttribute("tabindex");
  for (const code of box.querySelectorAll("pre code")) code.textContent = code.textContent;
  return box.innerHTML;
}"""
LINK = 'target="_blank" rel="noopener noreferrer nofollow"'

CASES = {
    "a\nb\n\nc": "<p>a<br>b</p><p>c</p>",
    "# A\n### B ##": "<h3>A</h3><h5>B</h5>",
    "#no heading": "<p>#no heading</p>",
    "**b** *i* __b__ _i_ ~~d~~ `c`": "<p><strong>b</strong> <em>i</em> <strong>b</strong> "
    "<em>i</em> <del>d</del> <code>c</code></p>",
    "***both***": "<p><strong><em>both</em></strong></p>",
    "**a *b* c**": "<p><strong>a <em>b</em> c</strong></p>",
    "2 * 3 * 4 and a_b_c and x*": "<p>2 * 3 * 4 and a_b_c and x*</p>",
    r"\*no\* \`no\`": "<p>*no* `no`</p>",
    "``a`b``": "<p><code>a`b</code></p>",
    "`unclosed": "<p>`unclosed</p>",
    "```py\nx = 1\n\n# y\n```\nz": '<div class="code"><pre><code>x = 1\n\n# y</code></pre></div>'
    "<p>z</p>",
    "```\n**open": '<div class="code"><pre><code>**open</code></pre></div>',
    "````\n```\n````": '<div class="code"><pre><code>```</code></pre></div>',
    "- a\n- b\n  - c\n- d": "<ul><li><span>a</span></li><li><span>b</span><ul><li><span>c</span>"
    "</li></ul></li><li><span>d</span></li></ul>",
    "3. a\n4. b": '<ol start="3"><li><span>a</span></li><li><span>b</span></li></ol>',
    "- a\n\n  more\n- b": "<ul><li><span>a</span><p>more</p></li><li><span>b</span></li></ul>",
    "1. a\n   ```\n   x\n   ```\n2. b": '<ol><li><span>a</span><div class="code"><pre><code>x'
    "</code></pre></div></li><li><span>b</span></li></ol>",
    "text\n- a": "<p>text</p><ul><li><span>a</span></li></ul>",
    "- a\n1. b": "<ul><li><span>a</span></li></ul><ol><li><span>b</span></li></ol>",
    "> a\n> b\n\nc": "<blockquote><p>a<br>b</p></blockquote><p>c</p>",
    "---": "<hr>",
    "* * *": "<hr>",
    "|a|b|\n|-|-:|\n|1|2 \\| 3|": '<div class="table"><table><thead><tr><th>a</th>'
    '<th class="right">b</th></tr></thead><tbody><tr><td>1</td><td class="right">2 | 3</td>'
    "</tr></tbody></table></div>",
    "a | b": "<p>a | b</p>",
    "[w](https://a.example/x)": f'<p><a href="https://a.example/x" {LINK}>w</a></p>',
    "see https://a.example/x.": f'<p>see <a href="https://a.example/x" {LINK}>'
    "https://a.example/x</a>.</p>",
}

HOSTILE = {
    "<script>window.pwned = 1</script>": "<p>&lt;script&gt;window.pwned = 1&lt;/script&gt;</p>",
    "<img src=x onerror=window.pwned=1>": "<p>&lt;img src=x onerror=window.pwned=1&gt;</p>",
    "[w](javascript:window.pwned=1)": "<p><span>w</span></p>",
    "[w](JaVaScRiPt:alert(1))": "<p><span>w</span>)</p>",
    "[w](data:text/html,x)": "<p><span>w</span></p>",
    "[w](//evil.example)": "<p><span>w</span></p>",
    "[w](/api/delete)": "<p><span>w</span></p>",
    "![w](https://evil.example/p.png)": f'<p><a href="https://evil.example/p.png" {LINK}>w</a></p>',
    '[w](https://a.example/"onclick="x)': f'<p><a href="https://a.example/&quot;onclick=&quot;x" '
    f"{LINK}>w</a></p>",
    '```"><script>\nx\n```': '<div class="code"><pre><code>x</code></pre></div>',
    "&lt;b&gt;": "<p>&amp;lt;b&amp;gt;</p>",
}


@pytest.fixture(scope="module")
def blank(browser: Any, shared_site: Site) -> Iterator[Any]:
    page = browser.new_page()
    page.goto(shared_site.url)
    yield page
    assert page.evaluate("window.pwned") is None
    page.close()


@pytest.mark.parametrize("step", [1, 1000], ids=["streamed", "whole"])
@pytest.mark.parametrize("text", [*CASES, *HOSTILE])
def test_markdown_becomes_elements(blank: Any, text: str, step: int) -> None:
    assert blank.evaluate(RENDER, [text, step]) == (CASES | HOSTILE)[text]


@pytest.mark.parametrize(
    "unit",
    [
        "*",
        "**a ",
        "_a",
        "`",
        "[",
        "[a](",
        "> ",
        "- ",
        "  - a\n",
        "|",
        "|-",
        "~~~\n",
        "\n",
        "#",
        "```c\n",
        '"\\',
        "/*",
    ],
)
def test_text_that_is_made_to_be_slow_or_deep_ends(blank: Any, unit: str) -> None:
    text = "```c\n" * (unit in ('"\\', "/*")) + unit * (20_000 // len(unit))
    blank.evaluate(RENDER, [text, len(text)])  # or the test runs into its time limit


COLOURED = {
    ("py", "x = 'a#b'  # c\nif x: y = 0x1f"): [
        ["string", "'a#b'"],
        ["comment", "# c"],
        ["keyword", "if"],
        ["number", "0x1f"],
    ],
    ("c++", "int n = 1.5e3; // <b>\n/* two\nlines */"): [
        ["keyword", "int"],
        ["number", "1.5e3"],
        ["comment", "// <b>"],
        ["comment", "/* two\nlines */"],
    ],
    ("sql", "SELECT a FROM t -- all"): [
        ["keyword", "SELECT"],
        ["keyword", "FROM"],
        ["comment", "-- all"],
    ],
    ("py", 'd = """open'): [["string", '"""open']],
    ("", "if x"): [],
    ("text", "if x"): [],
}


@pytest.mark.parametrize(("language", "code"), COLOURED)
def test_code_has_some_colour_and_stays_the_same_text(blank: Any, language: str, code: str) -> None:
    spans, text = blank.evaluate(
        """async ([code, language]) => {
          const { highlighted } = await import("/page/static/highlight.js");
          const box = document.createElement("code");
          box.append(...highlighted(code, language));
          const spans = [...box.children].map((one) => [one.className, one.textContent]);
          return [spans, box.textContent];
        }""",
        [code, language],
    )
    assert text == code
    assert spans == COLOURED[language, code]


def test_blocks_that_do_not_change_stay_the_same_elements(blank: Any) -> None:
    assert blank.evaluate("""async () => {
      const { render } = await import("/page/static/markdown.js");
      const box = document.createElement("div");
      render(box, "one\\n\\n```py\\nx");
      const [first, code] = box.children;
      render(box, "one\\n\\n```py\\nx = 1\\n```\\n\\ntwo");
      return box.children[0] === first && box.children[1] === code && box.children.length === 3;
    }""")


def test_a_hostile_answer_does_nothing(page: Any, site: Site) -> None:
    """In the page itself, where a violation of its policy would be an error of the fixture."""
    site.says(*"\n\n".join(HOSTILE))
    ask(page, "Attack")
    assert page.evaluate("window.pwned") is None
    links = last(page).locator("a").evaluate_all("all => all.map((one) => one.protocol)")
    assert set(links) == {"https:"}
    assert last(page).locator("script, img, iframe, object, form").count() == 0


def test_code_can_be_copied(page: Any, site: Site) -> None:
    site.says("```sh\necho '<hi>'\n", "ls\n```")
    ask(page, "Code")
    assert last(page).locator(".code-head span").inner_text() == "sh"
    last(page).get_by_role("button", name="Copy code").click()
    page.wait_for_selector("use[href='#i-check']", state="attached")
    assert page.evaluate("navigator.clipboard.readText()") == "echo '<hi>'\nls"
