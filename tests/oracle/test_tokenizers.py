"""Token ids against transformers: the same vocabulary as GGUF metadata and in transformers' hands.

Small vocabularies are trained here, on the texts below and on PocketLM's own sources, so nothing is
downloaded; the real SmolLM2 and Gemma 3 files are compared too where they are in the store.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

import pocketlm
from pocketlm.text import ChatTemplate, Tokenizer, encode_chat, gguf_templates

pytestmark = pytest.mark.oracle

TEXTS = [
    "",
    " ",
    "  ",
    "\n",
    "\n\n\n",
    "\t\t x",
    "Hello, world!",
    "  leading and trailing  ",
    "It's we're THEY'LL don'T I'M 'twas rock'n'roll",
    "CamelCaseIdentifier snake_case SCREAMING",
    "1 12 123 1234 12345 3.14159 1,000,000 0x1F ٣٤٥ ½ Ⅷ ²",
    "a  b   c    d\n\n  e\r\n\r\nf \n \n",
    "Größe ünïcôde naïve Zoë",
    "u\u0308ni\u0308co\u0302de e\u0301",
    "日本語のテキスト、中文字符。한국어 텍스트",
    "Привет, мир! Что нового?",
    "مرحبا بالعالم ۱۲۳",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "Việt Nam ایران mektedir",
    "😀👍🏽👨‍👩‍👧‍👦🇨🇭 ok",
    "def f(x):\n    return {\"a\": [1, 2], 'b': x**2}  # done\n",
    "<b>bold</b> <table><tr><td>1</td></tr></table> &amp; <0x0A>",
    "https://example.org/a?b=c&d=%20#e",
    "==== ---- ____ .... ,,, ''' \"\"\" ```py\n```",
    "\u00a0nbsp\u2003em\u200bzero\ufeffbom \u2581under▁▁▁score",
    "\x00\x01\x7f\x1b[0m",
    "𝔘𝔫𝔦 𐍈 𒀀 \U0010ffff",
    "x" * 300,
    " " * 65 + "y",
    "=" * 77,
    "ab" * 50,
    "!?" * 40,
    "a qzwxly word",
]
# In the byte-level vocabulary, but no merge builds it: only `ignore_merges` finds it whole.
UNREACHABLE = "Ġqzwxly"
SPECIAL_TEXTS = [
    "<|im_start|>user\nhi<|im_end|>",
    " <|im_end|> a <|im_end|><|im_end|>",
    "<think>\nhm\n</think>\n\nx",
    "<bos><start_of_turn>user\nhi<end_of_turn>\n<eos>",
    "a<|endoftext|>b",
    "<s>x</s> <unk>",
]
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
USER_DEFINED = ["<think>", "</think>"]

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def corpus() -> Iterator[str]:
    """Lines: the texts above, several times so that every script gets merges, and some sources."""
    for _ in range(5):
        yield from TEXTS[:-1]
    for file in sorted((Path(pocketlm.__file__).parent / "text").glob("*.py")):
        yield from file.read_text("utf-8").splitlines(keepends=True)


@cache
def byte_level_vocabulary() -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens by id (control and user-defined ones last) and merges, 2,000 ordinary tokens.

    Trained on uncut lines: merges run across words, so that every cut shows in the ids.
    """
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(corpus(), trainer)
    vocab = trained.get_vocab()
    merges = [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]
    tokens = [*sorted(vocab, key=vocab.__getitem__), UNREACHABLE, *CONTROL, *USER_DEFINED]
    return tokens, merges


def byte_level_metadata(pre: str) -> dict[str, Any]:
    tokens, merges = byte_level_vocabulary()
    ordinary = len(tokens) - len(CONTROL) - len(USER_DEFINED)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * ordinary + [3] * len(CONTROL) + [4] * len(USER_DEFINED),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
        "tokenizer.ggml.eos_token_id": ordinary,
        "tokenizer.ggml.add_bos_token": False,
    }


def add_tokens(theirs: Any) -> Any:
    theirs.add_special_tokens(
        {
            "additional_special_tokens": [
                AddedToken(text, special=True, normalized=False) for text in CONTROL
            ]
        }
    )
    theirs.add_tokens([AddedToken(text, normalized=False) for text in USER_DEFINED])
    return theirs


def published(
    split: pre_tokenizers.PreTokenizer, *, nfc: bool = False, ignore_merges: bool = False
) -> Any:
    """A transformers tokenizer put together as the model's published tokenizer.json is."""
    from transformers import PreTrainedTokenizerFast

    tokens, merges = byte_level_vocabulary()
    vocab = {token: i for i, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(models.BPE(vocab, merges, ignore_merges=ignore_merges))
    backend.pre_tokenizer = split
    backend.decoder = decoders.ByteLevel()
    if nfc:
        backend.normalizer = normalizers.NFC()
    return add_tokens(PreTrainedTokenizerFast(tokenizer_object=backend))


def split(regex: str, behavior: str = "isolated", *, invert: bool = False) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(regex), behavior, invert),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def transformers_class(name: str) -> Any:
    import transformers

    tokens, merges = byte_level_vocabulary()
    vocab = {token: i for i, token in enumerate(tokens)}
    return add_tokens(getattr(transformers, name)(vocab=vocab, merges=merges))


BYTE_LEVEL: dict[str, Callable[[], Any]] = {
    "qwen2": lambda: transformers_class("Qwen2Tokenizer"),
    "deepseek-r1-qwen": lambda: transformers_class("Qwen2Tokenizer"),
    "qwen35": lambda: transformers_class("Qwen3_5Tokenizer"),
    "gpt-2": lambda: transformers_class("GPT2Tokenizer"),
    "llama-bpe": lambda: published(split(LLAMA3), ignore_merges=True),
    "smaug-bpe": lambda: published(split(LLAMA3)),
    # Phi-4-mini writes the same cut the other way round.
    "gpt-4o": lambda: published(split(O200K, "removed", invert=True)),
    "tekken": lambda: published(
        split(O200K.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "").replace(r"\p{N}{1,3}", r"\p{N}")),
        ignore_merges=True,
    ),
    "smollm": lambda: published(
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    ),
}


def assert_same(ours: Tokenizer, theirs: Any, texts: list[str]) -> None:
    for text in texts:
        ids = ours.encode(text, parse_special=True)
        assert ids == theirs.encode(text, add_special_tokens=False), repr(text)
        assert ours.decode(ids, skip_special=False) == theirs.decode(ids), repr(text)
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True), repr(text)


@pytest.mark.parametrize("pre", BYTE_LEVEL)
def test_byte_level_ids_equal_transformers(pre: str) -> None:
    ours = Tokenizer.from_gguf(byte_level_metadata(pre), "any")
    assert_same(ours, BYTE_LEVEL[pre](), TEXTS + SPECIAL_TEXTS)


@pytest.mark.parametrize("pre", BYTE_LEVEL)
def test_plain_text_equals_transformers_without_special_tokens(pre: str) -> None:
    ours, theirs = Tokenizer.from_gguf(byte_level_metadata(pre), "any"), BYTE_LEVEL[pre]()
    for text in SPECIAL_TEXTS:
        expected = theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert ours.encode(text) == expected, repr(text)


def test_the_families_differ_on_these_texts() -> None:
    """Guards the tests above: a wrong cut would be seen."""
    seen = {}
    for pre in ("qwen2", "qwen35", "gpt-2", "llama-bpe", "smaug-bpe", "gpt-4o", "tekken", "smollm"):
        ours = Tokenizer.from_gguf(byte_level_metadata(pre), "any")
        key = tuple(tuple(ours.encode(text)) for text in TEXTS)
        assert key not in seen, f"{pre} and {seen[key]} give the same ids everywhere"
        seen[key] = pre


# --- SentencePiece-style ---------------------------------------------------------------------


@cache
def sentencepiece_vocabulary() -> list[str]:
    """Pieces in the order of their merges: 3 control, 256 bytes, characters and merged pieces."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=2500, max_token_length=16, show_progress=False)
    trained.train_from_iterator(corpus(), trainer)
    vocab = trained.get_vocab()
    pieces = [
        piece
        for piece in sorted(vocab, key=vocab.__getitem__)
        if len(piece.encode()) > 1 or piece.isprintable()
    ]
    whitespace = ["▁" * n for n in range(2, 9) if "▁" * n not in pieces]
    return [*(f"<0x{byte:02X}>" for byte in range(256)), *pieces, *whitespace]


def sentencepiece_metadata(control: list[str], user: list[str], **more: Any) -> dict[str, Any]:
    pieces = [piece for piece in sentencepiece_vocabulary() if piece not in {*control, *user}]
    tokens = [*control, *user, *pieces]
    types = [3] * len(control) + [4] * len(user) + [6] * 256 + [1] * (len(pieces) - 256)
    # Pieces are made of earlier ones; a shorter piece wins a tie by coming first.
    scores = [0.0] * (len(control) + len(user) + 256)
    scores += [-float(rank) for rank in range(len(pieces) - 256)]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.unknown_token_id": control.index("<unk>"),
        "tokenizer.ggml.bos_token_id": control.index("<s>" if "<s>" in control else "<bos>"),
        "tokenizer.ggml.eos_token_id": control.index("</s>" if "</s>" in control else "<eos>"),
        **more,
    }


@pytest.mark.parametrize("space_prefix", [True, False])
def test_llama_ids_equal_transformers(space_prefix: bool) -> None:
    from transformers import LlamaTokenizer
    from transformers.convert_slow_tokenizer import generate_merges

    metadata = sentencepiece_metadata(["<unk>", "<s>", "</s>"], [])
    metadata["tokenizer.ggml.add_space_prefix"] = space_prefix
    tokens, scores = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.scores"]
    vocab = {token: i for i, token in enumerate(tokens)}
    merges = generate_merges(vocab, list(zip(tokens, scores, strict=True)))
    theirs = LlamaTokenizer(vocab=vocab, merges=merges, add_prefix_space=space_prefix)
    ours = Tokenizer.from_gguf(metadata, "llama")
    assert_same(ours, theirs, TEXTS + SPECIAL_TEXTS)
    assert ours.encode("hi", add_special=True)[0] == ours.bos_id


def test_gemma_ids_equal_transformers() -> None:
    from transformers import GemmaTokenizer
    from transformers.convert_slow_tokenizer import generate_merges

    control = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    user = ["\n\n", "\n\n\n", "  ", "   ", "<b>", "</b>"]
    metadata = sentencepiece_metadata(control, user)
    spelled = ["▁" * len(t) if t.isspace() and " " in t else t for t in user]
    tokens = [*control, *spelled, *metadata["tokenizer.ggml.tokens"][len(control) + len(user) :]]
    keep = [i for i, t in enumerate(tokens) if tokens.index(t) == i]
    for key in ("tokens", "token_type", "scores"):
        metadata[f"tokenizer.ggml.{key}"] = [metadata[f"tokenizer.ggml.{key}"][i] for i in keep]
    vocab = {tokens[old]: new for new, old in enumerate(keep)}
    theirs = GemmaTokenizer(vocab=vocab, merges=generate_merges(vocab, None))
    theirs.add_special_tokens({"additional_special_tokens": control[5:]})
    theirs.add_tokens([AddedToken(text, normalized=False) for text in spelled])
    ours = Tokenizer.from_gguf(metadata, "gemma3")
    assert_same(ours, theirs, TEXTS + SPECIAL_TEXTS)


# --- Chat --------------------------------------------------------------------------------------

CHATS = [
    [{"role": "user", "content": "Hi"}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " What is 2 < 3?\n"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nTrue."},
        {"role": "user", "content": "Größe 😀 <b>x</b>"},
    ],
    [{"role": "user", "content": "ends with <"}],
    [{"role": "user", "content": "text"}],
]
TEMPLATES = {
    "chatml": (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
        "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "thinking": (
        "{%- set ns = namespace(last=0) %}\n"
        "{%- for message in messages[::-1] %}\n"
        "  {%- if message.role == 'user' %}{%- set ns.last = loop.index0 %}"
        "{%- break %}{% endif %}\n"
        "{%- endfor %}\n"
        "{%- for message in messages %}\n"
        "  {%- if '</think>' in message.content %}\n"
        "    {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}\n"
        "  {%- else %}\n    {%- set content = message.content|trim %}\n  {%- endif %}\n"
        "  {{- '<|im_start|>' ~ message.role ~ '\\n' ~ content }}\n"
        "  {%- generation %}{{ '<|im_end|>\\n' }}{% endgeneration %}\n"
        "{%- endfor %}\n"
        "{%- if tools %}{{ tools | tojson(indent=2) }}{% endif %}\n"
        "{%- if add_generation_prompt %}\n  {{- '<|im_start|>assistant\\n' }}\n"
        "  {%- if enable_thinking is defined and not enable_thinking %}"
        "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}\n{%- endif %}\n"
    ),
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("options", [{}, {"enable_thinking": False}])
def test_chat_equals_apply_chat_template(
    name: str, chat: list[dict[str, str]], options: dict[str, Any]
) -> None:
    theirs = BYTE_LEVEL["qwen2"]()
    theirs.chat_template = TEMPLATES[name]
    ours = Tokenizer.from_gguf(byte_level_metadata("qwen2"), "qwen2")
    template = ChatTemplate(TEMPLATES[name])
    tools = [{"type": "function", "function": {"name": "é<&>", "parameters": {}}}]
    for given in (None, tools):
        text = theirs.apply_chat_template(
            chat, tools=given, tokenize=False, add_generation_prompt=True, **options
        )
        assert template.render(chat, tools=given, **options) == text
        expected = theirs.encode(text, add_special_tokens=False)
        assert encode_chat(ours, template, chat, tools=given, **options) == expected


# --- Real files --------------------------------------------------------------------------------


def real_metadata(path: Path) -> dict[str, Any]:
    from pocketlm.gguf import GGUFFile

    with GGUFFile.open(path) as file:
        return dict(file.metadata)


def test_smollm2_equals_transformers(real_model: Callable[[str], Path]) -> None:
    from transformers import PreTrainedTokenizerFast

    metadata = real_metadata(real_model("smollm2:135m"))
    ours = Tokenizer.from_gguf(metadata, metadata["general.architecture"])
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    vocab = {token: i for i, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(models.BPE(vocab, merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(tokens[i], special=True) for i in range(17)])
    theirs = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert_same(ours, theirs, TEXTS + SPECIAL_TEXTS)
    assert ours.eos_ids == {0, 2}

    templates = gguf_templates(metadata)
    template = ChatTemplate.for_model(ours, templates)
    theirs.chat_template = templates["default"]
    for chat in CHATS:
        expected = theirs.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        assert encode_chat(ours, template, chat) == expected


def test_gemma3_equals_transformers(real_model: Callable[[str], Path]) -> None:
    from transformers import GemmaTokenizer
    from transformers.convert_slow_tokenizer import generate_merges

    metadata = real_metadata(real_model("gemma3:270m"))
    ours = Tokenizer.from_gguf(metadata, "gemma3")
    tokens = ["▁" * len(t) if set(t) == {" "} else t for t in metadata["tokenizer.ggml.tokens"]]
    vocab = {token: i for i, token in enumerate(tokens)}
    theirs = GemmaTokenizer(vocab=vocab, merges=generate_merges(vocab, None))
    types = list(metadata["tokenizer.ggml.token_type"])
    theirs.add_special_tokens(
        {
            "additional_special_tokens": [
                AddedToken(t, special=True, normalized=False)
                for t, kind in zip(tokens, types, strict=True)
                if kind == 3
            ]
        }
    )
    theirs.add_tokens(
        [AddedToken(t, normalized=False) for t, k in zip(tokens, types, strict=True) if k == 4]
    )
    assert_same(ours, theirs, TEXTS + SPECIAL_TEXTS)
    assert ours.eos_ids >= {1, 106}
