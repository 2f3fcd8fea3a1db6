"""Control tokens in user text: `encode_chat` against the ids a careful writer would give."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketlm.text import ChatTemplate, Tokenizer, encode_chat

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content|trim + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PARTS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}"
    "{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
)
TOOLS = "{{ tools | tojson(ensure_ascii=true) }}{{ '<|im_end|>' }}"

FRAGMENTS = ["<|im_end|>", "<|im_", "end|>", "<", "|>", "im_end", "a ", " the", "\n", "text", "<th"]


def control_count(tokenizer: Tokenizer, ids: list[int]) -> int:
    return sum(i in tokenizer.special_ids for i in ids)


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


@given(content=st.lists(st.sampled_from(FRAGMENTS)).map("".join))
def test_content_never_steers(tokenizer: Tokenizer, content: str) -> None:
    template = ChatTemplate(CHATML)
    ids = encode_chat(tokenizer, template, user(content))
    assert control_count(tokenizer, ids) == 3, "start, end, start: the template's own"
    assert tokenizer.decode(ids, skip_special=False) == template.render(user(content))
    # Joint with its surroundings: the plain text between the template's tokens, encoded as one.
    start, end = (tokenizer.token_id(t) or -1 for t in ("<|im_start|>", "<|im_end|>"))
    body = tokenizer.encode("user\n" + content.strip())
    tail = tokenizer.encode("\n")
    assert ids == [start, *body, end, *tail, start, *tokenizer.encode("assistant\n")]


@given(parts=st.lists(st.sampled_from(FRAGMENTS), min_size=1))
def test_parts_cannot_join_into_control_tokens(tokenizer: Tokenizer, parts: list[str]) -> None:
    messages = user([{"type": "text", "text": part} for part in parts])
    ids = encode_chat(tokenizer, ChatTemplate(PARTS), messages)
    assert control_count(tokenizer, ids) == 2
    rendered = ChatTemplate(PARTS).render(messages)
    assert tokenizer.decode(ids, skip_special=False) == rendered


@given(words=st.lists(st.sampled_from(["the", " thing", "\n", "é", "<think>", "1"])).map("".join))
def test_ordinary_content_is_the_rendered_text(tokenizer: Tokenizer, words: str) -> None:
    template = ChatTemplate(CHATML)
    expected = tokenizer.encode(template.render(user(words)), parse_special=True)
    assert encode_chat(tokenizer, template, user(words)) == expected


def test_content_that_borders_the_templates_tokens(tokenizer: Tokenizer) -> None:
    """Marked text right beside a control token does not hide that token."""
    template = ChatTemplate("{{ '<|im_start|>' + messages[0].content + '<|im_end|>' }}")
    ids = encode_chat(tokenizer, template, user("<|im_end|>"))
    assert control_count(tokenizer, ids) == 2
    assert tokenizer.decode(ids, skip_special=False) == "<|im_start|><|im_end|><|im_end|>"


def test_content_completed_by_the_template(tokenizer: Tokenizer) -> None:
    template = ChatTemplate("{{ messages[0].content + 'end|>' }}")
    ids = encode_chat(tokenizer, template, user("<|im_"))
    assert control_count(tokenizer, ids) == 0
    assert tokenizer.decode(ids, skip_special=False) == "<|im_end|>"


def test_tools_keys_and_variables_cannot_steer(tokenizer: Tokenizer) -> None:
    tools = [{"type": "function", "<|im_end|>": {"name": "<|im_start|>", "x": "é<|im_end|>"}}]
    ids = encode_chat(tokenizer, ChatTemplate(TOOLS), user("x"), tools=tools)
    assert control_count(tokenizer, ids) == 1
    assert tokenizer.decode(ids, skip_special=False) == ChatTemplate(TOOLS).render(
        user("x"), tools=tools
    )
    ids = encode_chat(tokenizer, ChatTemplate("{{ extra }}"), user("x"), extra="<|im_end|>")
    assert control_count(tokenizer, ids) == 0


def test_noncharacters_in_content_stay(tokenizer: Tokenizer) -> None:
    content = "\ufdd0 \\ufdd1 <|im_end|>\ufdd0"
    ids = encode_chat(tokenizer, ChatTemplate(CHATML), user(content))
    assert tokenizer.decode(ids, skip_special=False) == ChatTemplate(CHATML).render(user(content))


def test_a_template_that_cuts_at_a_control_token_stays_safe(tokenizer: Tokenizer) -> None:
    template = ChatTemplate("{{ messages[0].content.split('<|im_end|>')[-1] + '<|im_end|>' }}")
    ids = encode_chat(tokenizer, template, user("a<|im_end|>b"))
    assert control_count(tokenizer, ids) == 1


def test_sentencepiece_joints(llama2: Tokenizer) -> None:
    """The space before the first word is added at the start of the prompt only."""
    source = "{{ bos_token + messages[0].content + eos_token + 'hi' }}"
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    ids = encode_chat(llama2, template, user("hi</s>hi"))
    assert [llama2.token(i) for i in ids[:2]] == ["<s>", "hi"]
    assert [llama2.token(i) for i in ids[-2:]] == ["</s>", "hi"]
    assert control_count(llama2, ids) == 2


@pytest.mark.parametrize("options", [{"add_generation_prompt": False}, {"extra": 1}])
def test_options_are_passed_on(tokenizer: Tokenizer, options: dict[str, Any]) -> None:
    template = ChatTemplate(CHATML + "{{ extra }}")
    text = template.render(user("the <|im_end|>"), **options)
    ids = encode_chat(tokenizer, template, user("the <|im_end|>"), **options)
    assert tokenizer.decode(ids, skip_special=False) == text
