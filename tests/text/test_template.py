from __future__ import annotations

import datetime
import time
from typing import Any

import pytest

from pocketlm.errors import ModelFileError, PocketLMError, RequestError
from pocketlm.text import ChatTemplate, Tokenizer
from pocketlm.text.template_sources import builtin_template, gguf_templates

USER = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"a": "<é>"}}}


def render(source: str, messages: list[dict[str, Any]] | None = None, **kwargs: Any) -> str:
    return ChatTemplate(source).render(messages or USER, **kwargs)


def test_messages_and_generation_prompt() -> None:
    source = (
        "{% for m in messages %}\n<{{ m.role }}>{{ m['content'] }}\n{% endfor %}\n"
        "{% if add_generation_prompt %}\n<assistant>{% endif %}"
    )
    assert render(source) == "<user>Hi\n<assistant>"
    assert render(source, add_generation_prompt=False) == "<user>Hi\n"


def test_tokens_are_variables() -> None:
    template = ChatTemplate("{{ bos_token }}|{{ eos_token }}|{{ pad_token }}", bos_token="<s>")
    assert template.render(USER) == "<s>||"


def test_dialect_of_transformers() -> None:
    assert render("{{ tools | tojson }}", tools=[TOOL]) == (
        '[{"type": "function", "function": {"name": "f", "parameters": {"a": "<é>"}}}]'
    )
    assert render("{{ {'b': 1, 'a': '<'} | tojson(indent=1, sort_keys=true) }}") == (
        '{\n "a": "<",\n "b": 1\n}'
    )
    year = str(datetime.datetime.now().year)
    assert render("{{ strftime_now('%Y') }}") == year
    assert (
        render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}")
        == "01"
    )
    assert render("a{% generation %}b{{ messages[0].content }}{% endgeneration %}c") == "abHic"
    assert render("{% set ns = namespace(x=1) %}{% set ns.x = 2 %}{{ ns.x }}") == "2"
    assert render("{{ dict(a=1).a }}{{ documents }}") == "1None"
    assert render("{{ enable_thinking }}", enable_thinking=False) == "False"
    assert (
        render(
            "{% for m in messages %}{{ loop.index }}/{{ loop.length }}{{ loop.last }}{% endfor %}"
        )
        == "1/1True"
    )
    assert render("{{ 'a' ~ 1 ~ none }}") == "a1None"


def test_documents_and_tools_reach_the_template() -> None:
    source = "{{ documents[0].text }} {{ tools[0].function.name }}"
    assert render(source, documents=[{"text": "doc"}], tools=[TOOL]) == "doc f"


def test_tool_template_is_used_with_tools_only() -> None:
    template = ChatTemplate("plain", tool_source="tools: {{ tools | length }}")
    assert template.render(USER) == "plain"
    assert template.render(USER, tools=[TOOL]) == "tools: 1"
    assert template.render(USER, tools=[]) == "plain"


def test_raise_exception_is_the_callers_fault() -> None:
    with pytest.raises(RequestError, match="refuses this conversation: only <one> message"):
        render("{{ raise_exception('only <one> message') }}")


def test_broken_templates_are_the_models_fault() -> None:
    with pytest.raises(ModelFileError, match=r"not valid jinja2: .* \(line 2\)"):
        ChatTemplate("\n{% if %}")
    with pytest.raises(ModelFileError, match="not valid jinja2"):
        ChatTemplate("{% unknown %}")
    with pytest.raises(ModelFileError, match="No filter named"):
        ChatTemplate("{{ 1 | nosuch }}")
    with pytest.raises(ModelFileError, match="is a int, not text"):
        ChatTemplate(3)  # type: ignore[arg-type]


def test_a_template_that_fails_on_a_message() -> None:
    with pytest.raises(RequestError, match="TypeError"):
        render("{{ messages[0].content + 1 }}")
    with pytest.raises(ModelFileError, match="has no attribute 'x'"):
        render("{{ messages[0].x.y }}")


@pytest.mark.parametrize(
    "escape",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__globals__['json'] }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ dict.__class__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{{ ('{0.__class__}').format_map({'0': ''}) }}",
        "{% set ns = namespace(__class__=1) %}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{{ (messages | map(attribute='__class__') | list)[0].__mro__ }}",
        "{{ messages | attr('__class__') | attr('__mro__') | list }}",
    ],
)
def test_sandbox_escapes_fail(escape: str) -> None:
    try:
        text = render(escape)
    except PocketLMError:
        return
    assert "class" not in text, text
    assert "uid=" not in text


@pytest.mark.parametrize(
    "bomb",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
        "{{ 'x' * 10000000000 }}",
        "{{ 10000000000 * [0] }}",
        "{{ 9 ** 999999999 }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '%*d' % (9999999999, 1) }}",
        "{{ 'x'.ljust(9999999999) }}",
        "{{ '{:>9999999999}'.format(1) }}",
        "{{ '{:>{}}'.format(1, 9999999999) }}",
        "{{ 'x' | center(9999999999) }}",
        "{{ 'x\\ny' | indent(9999999999) }}",
        "{{ '%9999999999d' | format(1) }}",
        "{{ range(99999999999) | list }}",
        "{{ lipsum(n=99999999) }}",
        "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(64) %}"
        "{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(64) %}"
        "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(64) %}"
        "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
        "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(64) %}"
        "{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}",
        "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(64) %}"
        "{% set ns.x = ns.x.replace('x', 'xx') %}{% endfor %}",
        "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(64) %}"
        "{% set ns.x = ns.x | replace('x', 'xx') %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for x in [[]] recursive %}{{ loop([[]]) }}{% endfor %}",
    ],
)
def test_bombs_are_stopped(bomb: str) -> None:
    started = time.monotonic()
    with pytest.raises(ModelFileError):
        render(bomb)
    assert time.monotonic() - started < 10


def test_long_conversations_are_within_the_budget() -> None:
    messages = [{"role": "user", "content": "x" * 1000}] * 5000
    source = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}\n{% endfor %}"
    assert len(render(source, messages)) > 5_000_000


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "at least one message"),
        ("Hi", "should be a list"),
        ({"role": "user"}, "should be a list"),
        (["Hi"], r"messages\[0\] should be an object"),
        ([{"content": "x"}], r"messages\[0\].role is None"),
        ([*USER, {"role": "end|><|system", "content": "x"}], r"messages\[1\].role is 'end"),
        ([{"role": "user"}], r"messages\[0\] has no content"),
        ([{"role": "user", "content": 3}], r"messages\[0\].content should be text"),
        ([{"role": "user", "content": [{"type": "image"}]}], r"content\[0\].* found 'image'"),
        ([{"role": "user", "content": [{"type": "text"}]}], r"content\[0\] should be a text part"),
        ([{"role": "assistant", "tool_calls": "f"}], r"messages\[0\].tool_calls should be a list"),
        ([{"role": "assistant", "tool_calls": [{}]}], r"tool_calls\[0\] should name a function"),
        ([{"role": "user", "content": "x", "extra": object()}], "only JSON data"),
    ],
)
def test_malformed_messages(messages: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        ChatTemplate("x").render(messages)


def test_deep_data_is_refused() -> None:
    deep: Any = "x"
    for _ in range(100):
        deep = [deep]
    with pytest.raises(RequestError, match="nested more than 64 deep"):
        render("x", [{"role": "user", "content": "x", "extra": deep}])


def test_none_is_absent_and_reasoning_has_two_names() -> None:
    source = (
        "{% set m = messages[0] %}{{ m.thinking }}{{ m.reasoning_content }}{{ m.x is defined }}"
    )
    message = {"role": "assistant", "content": "x", "reasoning": "r", "x": None}
    assert render(source, [message]) == "rrFalse"


def test_text_parts_are_joined_for_templates_that_want_text() -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}]
    assert render("{{ '' + messages[0].content }}", parts) == "a\nb"
    assert render("{{ messages[0].content }}", parts) == "a\nb"
    typed = (
        "{% if messages[0].content is string %}{{ messages[0].content }}{% else %}"
        "{% for part in messages[0].content %}{{ part.text }}{% endfor %}{% endif %}"
    )
    assert render(typed, parts) == "ab"


def test_probes() -> None:
    assert not ChatTemplate("{{ messages }}").supports_tools
    assert ChatTemplate(
        "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}"
    ).supports_tools
    assert not ChatTemplate("{{ messages }}").supports_thinking
    assert ChatTemplate("{% if enable_thinking %}x{% endif %}").supports_thinking
    failing = ChatTemplate("{{ raise_exception('no') }}")
    assert not failing.supports_tools
    assert not failing.supports_thinking


def test_for_model(tokenizer: Tokenizer, llama2: Tokenizer) -> None:
    template = ChatTemplate.for_model(tokenizer, {"default": "{{ bos_token }}{{ eos_token }}"})
    assert template.render(USER) == "<|im_start|><|im_end|>"
    builtin = ChatTemplate.for_model(tokenizer, {})
    assert builtin.render(USER) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(RequestError, match=r"no chat template.*--raw"):
        ChatTemplate.for_model(llama2, {})


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        (
            ["<start_of_turn>", "<end_of_turn>"],
            "<start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\n"
            "Yo<end_of_turn>\n<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
            "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nYo<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
            "<|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Yo<|end|><|user|>Hi<|end|>"
            "<|assistant|>",
        ),
    ],
)
def test_builtin_templates(byte_level_metadata: Any, control: list[str], expected: str) -> None:
    base = byte_level_metadata()
    metadata = byte_level_metadata(
        **{
            "tokenizer.ggml.tokens": [*base["tokenizer.ggml.tokens"][:263], *control],
            "tokenizer.ggml.token_type": [1] * 263 + [3] * len(control),
            "tokenizer.ggml.bos_token_id": None,
            "tokenizer.ggml.eos_token_id": None,
        }
    )
    tokenizer = Tokenizer.from_gguf(metadata, "llama")
    assert builtin_template(tokenizer) is not None
    messages = [
        {"role": "system", "content": "Be brief."},
        *USER,
        {"role": "assistant", "content": "Yo"},
        *USER,
    ]
    assert ChatTemplate.for_model(tokenizer, {}).render(messages) == expected


def test_gguf_templates() -> None:
    metadata = {
        "tokenizer.chat_template": "a",
        "tokenizer.chat_template.tool_use": "b",
        "tokenizer.chat_templates": ["tool_use"],
        "general.name": "x",
    }
    assert gguf_templates(metadata) == {"default": "a", "tool_use": "b"}
    with pytest.raises(ModelFileError, match=r"tokenizer\.chat_template should be text"):
        gguf_templates({"tokenizer.chat_template": 3})


def test_every_error_is_one_of_ours() -> None:
    for source in ("{{ 1 / 0 }}", "{{ [][5].x }}", "{{ x() }}", "{{ 'a' | int(1, 2, 3) }}"):
        with pytest.raises(PocketLMError):
            render(source)
