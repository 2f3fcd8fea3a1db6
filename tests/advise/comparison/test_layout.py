"""A comparison as text: the terminal's tables and Markdown, to the letter."""

from __future__ import annotations

from dataclasses import replace

from advise.comparison.example import EXAMPLE, HERE, KNOWN, REMOTE
from pocketlm.advise.comparison.console import console_text
from pocketlm.advise.comparison.layout import chunks, in_type, tables, types_of
from pocketlm.advise.comparison.markdown import answers_text, markdown_text
from pocketlm.advise.comparison.records import Comparison
from pocketlm.advise.comparison.trying import Cost, Tried

MARKDOWN = """\
## Facts

|  | here\\|\\<b\\>:1b | known:9b | azure:contoso/phi-4 |
| --- | --- | --- | --- |
| where | here, Q4\\_0, 600.0 MB | not here | runs elsewhere |
| family | llama | not said | not said |
| parameters | 1,000,000,000 | 9,000,000,000 | not said |
| class | Micro | Small | not said |
| context | 8,192 tokens | 131,072 tokens | not said |
| licence | apache-2.0 | gemma, gated | not said |
| languages | en, de | l0, l1, l2, l3, l4, l5, l6, l7, l8, l9, l10, l11 and 8 more | not said |
| trained to | answer | continue text (base) | not said |
| layers × width | 16 × 2,048 | not said | not said |
| vocabulary | 32,000 tokens | not said | not said |

## File size

|  | here\\|\\<b\\>:1b | known:9b | azure:contoso/phi-4 |
| --- | ---: | ---: | ---: |
| Q8\\_0 | 1.10 GB | 9.50 GB | – |
| Q4\\_0 | 600.0 MB\\* | – | – |

\\* is the file here.

## Memory

|  | here\\|\\<b\\>:1b | known:9b | azure:contoso/phi-4 |
| --- | ---: | ---: | ---: |
| Q8\\_0 | 2.20 GB | 19.00 GB | – |
| Q4\\_0 | 1.20 GB\\* | – | – |

A process with 4,096 tokens of context, KV cache f16. \\* is the file here.

## Decode, tokens/s

|  | here\\|\\<b\\>:1b | known:9b | azure:contoso/phi-4 |
| --- | ---: | ---: | ---: |
| Q8\\_0 | 11.2 | 1.5 | – |
| Q4\\_0 | 20.5\\* | – | – |

Predicted for this device. \\* is the file here.

## Prefill, tokens/s

|  | here\\|\\<b\\>:1b | known:9b | azure:contoso/phi-4 |
| --- | ---: | ---: | ---: |
| Q8\\_0 | 112.5 | 15.0 | – |
| Q4\\_0 | 205.0\\* | – | – |

Predicted for this device. \\* is the file here.

## Measured on this device

|  | here\\|\\<b\\>:1b | known:9b | azure:contoso/phi-4 |
| --- | ---: | ---: | ---: |
| prefill 256, tokens/s | 1,234.5 | – | – |
| decode 64, tokens/s | 21.0 | – | – |
| first token of a new process, s | 0.25 | – | – |
| peak memory | 700.0 MB | – | – |
| perplexity | 12.35 | – | – |
| bits per byte | 0.988 | – | – |

Medians, of the files that are here. Perplexity and bits per byte on prose.txt: perplexity is of \
each model's own tokens, so models compare by bits per byte; less is better.

## Published scores: makers

|  | here\\|\\<b\\>:1b | known:9b | azure:contoso/phi-4 |
| --- | ---: | ---: | ---: |
| MMLU | 40.0 | 71.2 | – |
| GSM8K (CoT) | 5.5 | 80.0 | – |

The Makers; 0-shot, chat. Source: https://example.org/report

- here\\|\\<b\\>:1b: Q4\\_0 is quantized already
- a note
"""

CONSOLE = """\
Facts

              known:9b                  azure:contoso/phi-4
 ──────────────────────────────────────────────────────────
 where        not here                  runs elsewhere
 parameters   9,000,000,000             not said
 class        Small                     not said
 context      131,072 tokens            not said
 licence      gemma, gated              not said
 languages    l0, l1, l2, l3, l4, l5,   not said
              l6, l7, l8, l9, l10,
              l11 and 8 more
 trained to   continue text (base)      not said


File size

        known:9b   azure:contoso/phi-4
 ─────────────────────────────────────
 Q8_0    9.50 GB                     –

"""


def test_markdown() -> None:
    assert markdown_text(EXAMPLE) == MARKDOWN


def test_a_terminal() -> None:
    two = replace(EXAMPLE, subjects=(KNOWN, REMOTE), scores=(), notes=())
    text = console_text(two, 60)
    assert text.startswith(CONSOLE)
    assert all(len(line) <= 60 for line in text.splitlines())


def test_a_narrow_terminal_puts_models_below_each_other() -> None:
    many = replace(EXAMPLE, subjects=(HERE, KNOWN, REMOTE) * 4, scores=())
    for width in (20, 40, 57, 100, 400):
        text = console_text(many, width)
        assert max(map(len, text.splitlines())) <= max(width, 38)
        folded = text.replace("\n", "").replace(" ", "")
        assert folded.count("runselsewhere") == 4 or width < 45
    assert console_text(many, 400).count("where") == 4 + 1


def test_what_nobody_says_has_no_row() -> None:
    facts, *rest = tables(Comparison((REMOTE,), 4096, "f16", None))
    assert [label for label, _ in facts.rows] == ["where"]
    assert rest == []


def test_the_file_that_is_here_stands_for_its_type() -> None:
    made, own = HERE.sizes[1], replace(HERE.sizes[0], type="Q8_0")
    both = replace(HERE, sizes=(made, own))
    assert in_type(both, "Q8_0") == own
    assert in_type(both, "Q2_K") is None
    assert types_of(EXAMPLE) == ["Q8_0", "Q4_0"]


def test_columns_are_never_none() -> None:
    assert chunks("abcde", 2) == [range(2), range(2, 4), range(4, 5)]
    assert chunks("ab", 0) == [range(1), range(1, 2)]


def test_answers_as_markdown() -> None:
    tried = [
        Tried("a*b", "# one\n\n<two>", Cost(5, 0.5, 20.0, "stop")),
        Tried("c", "", None, "no memory"),
        Tried("d", "x", Cost(None, None, None, "length")),
    ]
    assert answers_text("Say\n*it*", tried) == (
        "\n## Answers to: Say \\*it\\*\n\n### a\\*b\n\n> \\# one\n>\n> \\<two\\>\n\n"
        "first token after 0.50 s, 5 tokens at 20.0 tokens/s\n\n### c\n\n\nfailed: no memory\n\n"
        "### d\n\n> x\n\ntokens not said, ended by length\n"
    )
