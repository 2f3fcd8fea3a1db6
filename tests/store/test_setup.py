"""What stands beside a model's weights takes effect, whoever put it there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from local_server import LocalServer, registry_model
from tiny_models import gguf

from pocketlm.errors import ModelFileError
from pocketlm.store import Setup, Store
from pocketlm.store.parameters import sampling_options

MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


def setup_of(server: LocalServer, store: Store, **layers: bytes) -> Setup:
    registry_model(server, "m", "1", {"model": gguf(), **layers})
    return store.setup(store.pull("ollama:m:1"))


def test_records_of_a_registry_are_read(server: LocalServer, store: Store) -> None:
    params = {"stop": ["<|im_end|>"], "temperature": 0.1, "num_ctx": 512, "num_gpu": 3}
    found = setup_of(
        server,
        store,
        template=b"{% for m in messages %}{{ m.content }}{% endfor %}",
        system=b"Be brief.",
        params=json.dumps(params).encode(),
        messages=json.dumps(MESSAGES).encode(),
        license=b"MIT",
    )
    assert found == Setup(
        system="Be brief.",
        template="{% for m in messages %}{{ m.content }}{% endfor %}",
        messages=tuple(MESSAGES),
        options={"stop": ["<|im_end|>"], "temperature": 0.1},
        context=512,
    )


def test_templates_for_go_are_left_to_the_weights(server: LocalServer, store: Store) -> None:
    assert setup_of(server, store, template=b"{{ .Prompt }}").template is None


@pytest.mark.parametrize(
    ("layer", "content", "words"),
    [
        ("params", b"{", "not JSON"),
        ("params", b"[1]", "not an object"),
        ("params", b"[" * 100_000, "not JSON"),
        ("messages", b"{}", "not a list"),
        ("messages", b"[1]", "not a list"),
        ("system", b"\xff", "not UTF-8"),
        ("system", b"a" * (5 << 20), "bytes"),
    ],
)
def test_what_breaks_its_format_is_refused(
    server: LocalServer, store: Store, layer: str, content: bytes, words: str
) -> None:
    with pytest.raises(ModelFileError, match=words):
        setup_of(server, store, **{layer: content})


def test_a_path_has_no_setup(store: Store, tmp_path: Any) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf())
    assert store.setup(store.resolve(str(tmp_path / "m.gguf"))) == Setup()


def test_a_conversation_gets_what_it_does_not_bring() -> None:
    setup = Setup(system="Be brief.", messages=MESSAGES)
    asked = {"role": "user", "content": "and?"}
    system = {"role": "system", "content": "Be brief."}
    assert setup.conversation([asked]) == [system, *MESSAGES, asked]
    other = {"role": "system", "content": "Be long."}
    assert setup.conversation([other, asked]) == [other, *MESSAGES, asked]
    assert Setup().conversation([asked]) == [asked]


@pytest.mark.parametrize(
    ("params", "options"),
    [
        ({"num_predict": -1, "seed": -1, "repeat_last_n": -1}, {}),
        ({"num_predict": 0}, {}),
        ({"num_predict": 7, "seed": 0}, {"max_tokens": 7, "seed": 0}),
        ({"repeat_last_n": 64, "repeat_penalty": 1.1},
         {"penalty_window": 64, "repetition_penalty": 1.1}),
        ({"repeat_last_n": 0, "repeat_penalty": 1.1},
         {"repetition_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0}),
        ({"temperature": None, "mirostat": 2}, {}),
    ],
)  # fmt: skip
def test_options_by_our_names(params: dict[str, Any], options: dict[str, Any]) -> None:
    assert sampling_options(params) == options
