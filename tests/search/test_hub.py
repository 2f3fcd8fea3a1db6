"""Searching the hub: what is asked, what is let through, how it pages."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable
from datetime import date

import pytest

from pocketlm.errors import SourceError
from pocketlm.search import AtLeast, Query, Range, search
from pocketlm.search.hub import question
from search.fake_hub import FakeHub, record
from store.local_server import LocalServer

Run = Callable[..., tuple[int, str, str]]


def ids(query: Query) -> list[str]:
    return [found.id for found in search(query).found]


def test_the_facts_of_a_record(hub: FakeHub) -> None:
    hub.records = [
        record(
            "acme/tiny-1B",
            safetensors={"parameters": {"BF16": 1_100_000_000}, "total": 1_100_000_000},
            gated="manual",
            downloads=1234,
            cardData={"license": "other", "license_name": "acme-1", "language": "EN"},
        )
    ]
    (found,) = search(Query(count=False)).found
    assert (found.ref, found.publisher, found.downloads) == ("hf:acme/tiny-1B", "acme", 1234)
    assert (found.parameters, found.counted, found.size_class) == (1_100_000_000, "source", "Micro")
    assert (found.licence, found.languages, found.gated) == ("acme-1", ("en",), True)
    assert found.formats == ("safetensors",)
    assert found.created is not None
    assert found.created.date() == date(2026, 1, 2)


@pytest.mark.parametrize(
    "query",
    [
        Query(),
        Query(text="tiny", sort="trending", publisher="acme"),
        Query(gated=True, tasks=("text-generation",), sort="created", library="gguf"),
        Query(gated=False, licences=("mit",), languages=("es",), formats=("gguf",), sort="likes"),
        Query(parameters=Range(10**9, 2 * 10**9), sort="modified"),
    ],
)
def test_the_question_is_that_of_the_hubs_own_client(
    query: Query, hub: FakeHub, server: LocalServer
) -> None:
    """Read off the same server: both clients' requests, parameter by parameter."""
    from huggingface_hub import HfApi

    asked = question(query)
    one = dict(asked)
    sorts = {"trendingScore": "trending_score", "createdAt": "created_at"}
    sorts["lastModified"] = "last_modified"
    api = HfApi(endpoint=server.url, token=False)
    list(
        api.list_models(
            filter=[value for name, value in asked if name == "filter"],
            author=one.get("author"),
            gated=query.gated,
            search=one.get("search"),
            pipeline_tag=one.get("pipeline_tag"),
            num_parameters=one.get("num_parameters"),
            sort=sorts.get(one["sort"], one["sort"]),  # type: ignore[arg-type]
            limit=int(one["limit"]),
            expand=[value for name, value in asked if name == "expand"],  # type: ignore[misc]
        )
    )
    search(query)
    theirs, ours = (urllib.parse.parse_qs(r.path.partition("?")[2]) for r in hub.asked)
    assert ours == theirs


def test_a_licence_that_the_hub_does_not_know_is_looked_for_here(hub: FakeHub) -> None:
    """It files what has a name of its own under "other"."""
    hub.records = [
        record("LiquidAI/a", cardData={"license": "other", "license_name": "lfm1.0"}),
        record("acme/b"),
    ]
    assert ids(Query(licences=("lfm1.0",))) == ["LiquidAI/a"]
    assert "filter" not in urllib.parse.parse_qs(hub.asked[0].path.partition("?")[2])


def test_a_wider_range_is_asked_for_than_is_let_through(hub: FakeHub) -> None:
    hub.records = [
        record("acme/a", safetensors={"total": 3_000_000_000}),
        record("acme/b", safetensors={"total": 1_500_000_000}),
        record("acme/c"),
    ]
    assert ids(Query(parameters=Range(10**9, 2 * 10**9), count=False)) == ["acme/b"]
    asked = urllib.parse.parse_qs(hub.asked[0].path.partition("?")[2])
    assert asked["num_parameters"] == ["min:0.125000B,max:4.000000B"]


def test_the_catalogs_count_is_taken_for_models_it_knows(hub: FakeHub) -> None:
    """Whose head the hub counts twice."""
    hub.records = [record("Qwen/Qwen3-0.6B", safetensors={"total": 751_632_384})]
    (found,) = search(Query(parameters=Range(550_000_000, 650_000_000))).found
    assert (found.parameters, found.counted, found.stated) == (596_049_920, "catalog", 751_632_384)
    assert found.catalog == "qwen3:0.6b"


CARD = {
    "model-index": [
        {
            "name": "m",
            "results": [
                {
                    "task": {"type": "text-generation"},
                    "dataset": {"name": "MMLU-Pro", "type": "TIGER-Lab/MMLU-Pro"},
                    "metrics": [{"type": "acc", "value": 0.42}],
                    "source": {"url": "https://example.org/board"},
                }
            ],
        }
    ]
}
EVAL = {
    "evalResults": [
        {
            "filename": ".eval_results/gsm8k.yaml",
            "verified": False,
            "data": {"dataset": {"id": "openai/gsm8k", "task_id": "main"}, "value": 71.5},
        }
    ]
}


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        (Query(licences=("mit", "apache-2.0")), True),
        (Query(licences=("mit",)), False),
        (Query(languages=("es",)), True),
        (Query(languages=("fr",)), False),
        (Query(formats=("gguf", "safetensors")), True),
        (Query(formats=("onnx",)), False),
        (Query(library="Transformers"), True),
        (Query(library="mlx"), False),
        (Query(tasks=("text-generation",)), True),
        (Query(tasks=("fill-mask",)), False),
        (Query(publisher="ACME"), True),
        (Query(publisher="other"), False),
        (Query(gated=False), True),
        (Query(gated=True), False),
        (Query(min_downloads=100, min_likes=5), True),
        (Query(min_downloads=101), False),
        (Query(min_likes=6), False),
        (Query(since=date(2026, 6, 7)), True),
        (Query(since=date(2026, 6, 8)), False),
        (Query(since=date(2026, 6, 7), sort="created"), False),
        (Query(text="TINY one"), True),
        (Query(text="tiny two"), False),
        (Query(benchmarks=(AtLeast("mmlu_pro", 42),)), True),
        (Query(benchmarks=(AtLeast("MMLU-Pro", 0.43),)), False),
        (Query(benchmarks=(AtLeast("GSM8K main", 70),)), True),
        (Query(benchmarks=(AtLeast("MMLU", 1),)), False),
        (Query(device="cpu"), False),
    ],
)
def test_filters_are_held_against_what_the_hub_answers(
    query: Query, fits: bool, hub: FakeHub
) -> None:
    """This hub filters nothing."""
    hub.records = [record("acme/tiny-one", **CARD, **EVAL)]
    assert bool(search(query).found) == fits


def test_pages_follow_the_hubs_links(hub: FakeHub) -> None:
    hub.records = [record(f"acme/m{i}", likes=i % 2) for i in range(10)]
    hub.page = 3
    assert ids(Query(limit=2, min_likes=1)) == ["acme/m1", "acme/m3"]
    second = search(Query(limit=2, page=2, min_likes=1))
    assert [found.id for found in second.found] == ["acme/m5", "acme/m7"]
    assert second.origins[0].more
    last = search(Query(limit=2, page=3, min_likes=1))
    assert [found.id for found in last.found] == ["acme/m9"]
    assert not last.origins[0].more


def test_no_more_pages_are_fetched_than_are_needed_and_never_more_than_ten(hub: FakeHub) -> None:
    hub.records = [record(f"acme/m{i}") for i in range(30)]
    hub.page = 2
    search(Query(limit=1))
    assert len(hub.asked) == 1
    results = search(Query(text="nothing has this name"))
    assert len(hub.asked) == 11
    assert "only the first 20 models" in results.notes[0]


def test_a_next_page_on_another_host_is_not_followed(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token would go there."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.records = [record("acme/a")]
    hub.headers = {"Link": '<http://127.0.0.1:9/api/models?cursor=1>; rel="next"'}
    results = search(Query())
    assert "another host" in results.notes[0]


def test_the_token_is_sent(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "hf_secret"
    hub.records = [record("acme/a")]
    with pytest.raises(SourceError, match=r"refuses to tell its models \(401\).*HF_TOKEN"):
        search(Query())
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert ids(Query()) == ["acme/a"]


def test_the_table(hub: FakeHub, pocketlm: Run) -> None:
    hub.records = [
        record("acme/tiny-1B", safetensors={"total": 1_400_000_000}, gated="auto"),
        record("Qwen/Qwen3-0.6B", safetensors={"total": 751_632_384}, downloads=9),
    ]
    code, out, _ = pocketlm("search", "--no-count")
    assert code == 0
    head, first, second, *more = out.splitlines()
    assert head.split() == [
        "MODEL", "PARAMETERS", "CLASS", "LICENCE", "FORMATS", "DOWNLOADS", "NOTE",
    ]  # fmt: skip
    assert first.split()[:6] == [
        "hf:acme/tiny-1B", "1.4B?", "Micro", "apache-2.0", "safetensors", "100",
    ]  # fmt: skip
    assert "gated" in first
    assert "its name says 1.0B" in first
    assert "596.0M" in second
    assert "the hub says 751.6M" in second
    assert "catalog: qwen3:0.6b" in second
    assert "own count" in more[0]


def test_json(hub: FakeHub, pocketlm: Run) -> None:
    hub.records = [record("acme/tiny-1B", **CARD)]
    code, out, _ = pocketlm("search", "tiny", "--json", "--no-count")
    answer = json.loads(out)
    assert code == 0
    (found,) = answer["found"]
    assert found["ref"] == "hf:acme/tiny-1B"
    assert found["scores"][0]["value"] == 0.42
    assert found["modified"] == "2026-06-07T08:09:10+00:00"
    assert answer["origins"][0]["source"] == "hub"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--sort", "download"), "--sort is 'download'.*Did you mean 'downloads'"),
        (("--format", "guff"), "--format is 'guff'.*Did you mean 'gguf'"),
        (("--source", "hugging"), "--source is 'hugging'"),
        (("--class", "smal"), "--class is 'smal'.*Did you mean 'small'"),
        (("--params", "4B..1B"), "ends before it begins.*1B..4B"),
        (("--params", "big"), "'big' is no range"),
        (("--params", "1B..2B", "--class", "micro"), "Use one of them"),
        (("--benchmark", "MMLU"), "'MMLU' is no limit"),
        (("--since", "yesterday"), "'yesterday' is no date"),
        (("--limit", "0"), "limit is 0"),
        (("--page", "99"), "page is 99"),
        (("--location", "eastus"), "needs the subscription"),
    ],
)
def test_wrong_options_say_what_is_right(
    arguments: tuple[str, ...], says: str, pocketlm: Run
) -> None:
    import re

    code, _, err = pocketlm("search", *arguments)
    assert code == 2
    assert re.search(says, err), err


def test_what_a_record_says_does_not_steer_the_terminal(hub: FakeHub, pocketlm: Run) -> None:
    hub.records = [record("acme/a", cardData={"license": "\x1b[31mred"})]
    _, out, _ = pocketlm("search", "--no-count")
    assert "\x1b" not in out
