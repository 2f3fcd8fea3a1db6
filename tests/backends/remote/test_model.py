"""A remote model: what is sent, what comes of an answer, and how each failure is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from backends.remote.endpoint import USAGE, Asked, Endpoint, Reply, delta, document, event, stream
from pocketlm.backends.remote import RemoteModel, collect
from pocketlm.backends.remote import connection as connections
from pocketlm.backends.remote.events import MAX_LINE
from pocketlm.errors import (
    BusyError,
    ContextError,
    NotFoundError,
    PocketLMError,
    RequestError,
    SourceError,
)
from pocketlm.store.remote_refs import parse_remote

EVENTS = {"Content-Type": "text/event-stream"}


def answer(endpoint: Endpoint, **options: object) -> str:
    with RemoteModel(endpoint.ref) as model:
        return collect(model.stream("hello", **options)).text


def test_an_answer_comes_in_pieces_with_its_cost(endpoint: Endpoint) -> None:
    with RemoteModel(endpoint.ref) as model:
        pieces = list(model.stream("hello", seed=7))
    assert [piece.text for piece in pieces if piece.text] == ["Hel", "lo"]
    assert pieces[-1].finish_reason == "stop"
    stats = pieces[-1].stats
    assert stats is not None
    assert (stats.prompt_tokens, stats.cached_tokens) == (11, 4)
    assert (stats.completion_tokens, stats.reasoning_tokens) == (3, 1)
    assert (stats.model, stats.seed) == ("phi-4-2025", 7)
    assert stats.ttft_s is not None
    assert 0 < stats.ttft_s <= stats.total_s


def test_what_is_sent_is_what_was_asked_and_no_more(endpoint: Endpoint) -> None:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    with RemoteModel(endpoint.ref) as model:
        collect(
            model.stream(messages, temperature=0.5, top_p=0.9, max_tokens=9, stop="x", top_k=None)
        )
    (asked,) = endpoint.asked
    assert (asked.method, asked.path) == ("POST", "/v1/chat/completions")
    assert asked.body == {
        "model": "phi-4", "messages": messages, "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5, "top_p": 0.9, "max_tokens": 9, "stop": ["x"],
    }  # fmt: skip
    assert "authorization" not in asked.headers
    assert "api-key" not in asked.headers


def test_nothing_is_sent_before_a_model_is_asked(endpoint: Endpoint) -> None:
    RemoteModel(endpoint.ref).close()
    assert endpoint.asked == []


def test_nothing_is_sent_offline(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETLM_OFFLINE", "1")
    with pytest.raises(SourceError, match="offline"):
        answer(endpoint)
    assert endpoint.asked == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"top_k": 4, "min_p": 0.1}, "no option top_k, min_p"),
        ({"logit_bias": {1: 2.0}}, "no option logit_bias"),
        ({"temprature": 1}, "no option 'temprature'"),
        ({"temperature": -1}, "temperature is -1"),
        ({"stop": list("abcde")}, "4 stop strings"),
    ],
)
def test_options_that_it_has_not_are_refused_before_anything_is_sent(
    endpoint: Endpoint, options: dict[str, object], said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        answer(endpoint, **options)
    assert endpoint.asked == []


def test_an_endpoint_may_answer_at_once(endpoint: Endpoint) -> None:
    """One that knows no streams sends a whole completion."""
    choice = {"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "length"}
    endpoint.answers = [document({"choices": [choice], "usage": USAGE})]
    with RemoteModel(endpoint.ref) as model:
        reply = collect(model.stream("hello"))
    assert (reply.text, reply.finish_reason) == ("Hello", "length")
    assert reply.stats.completion_tokens == 3


def test_what_an_endpoint_does_not_say_is_none(endpoint: Endpoint) -> None:
    endpoint.answers = [Reply(headers=EVENTS, parts=[delta("a", "stop", model=3, usage="x")])]
    with RemoteModel(endpoint.ref) as model:
        stats = collect(model.stream("hello")).stats
    assert (stats.prompt_tokens, stats.completion_tokens, stats.decode_tps) == (None, None, None)
    assert stats.model is None


def test_texts_may_be_cut_anywhere(endpoint: Endpoint) -> None:
    """Between the bytes of a character, of a line's end, of a field's name."""
    whole = b"".join(stream("Grüße, ", "日本").parts).replace(b"\n", b"\r\n")
    parts = [whole[i : i + 1] for i in range(len(whole))]
    endpoint.answers = [Reply(headers=EVENTS, parts=parts)]
    assert answer(endpoint) == "Grüße, 日本"


def test_fields_that_some_endpoints_refuse_are_sent_otherwise(endpoint: Endpoint) -> None:
    def refusing(name: str) -> Reply:
        error = {"message": f"Unsupported parameter: '{name}'", "param": name}
        return document({"error": error}, 400)

    endpoint.answers = [refusing("max_tokens"), refusing("stream_options"), stream("ok")]
    assert answer(endpoint, max_tokens=5) == "ok"
    body = endpoint.asked[-1].body
    assert body["max_completion_tokens"] == 5
    assert not {"max_tokens", "stream_options"} & set(body)


def test_an_option_that_is_refused_is_not_dropped(endpoint: Endpoint) -> None:
    error = {"message": "'temperature' does not support 0", "param": "temperature"}
    endpoint.answers = [document({"error": error}, 400)]
    with pytest.raises(RequestError, match="does not support 0"):
        answer(endpoint, temperature=0)
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (document({"error": {"message": "bad key"}}, 401), SourceError, "does not let us in"),
        (document({"error": "no"}, 403), SourceError, r"\(403\): no"),
        (document({"error": {"code": "DeploymentNotFound"}}, 404), NotFoundError, "'phi-4'"),
        (
            document({"error": {"code": "context_length_exceeded", "message": "long"}}, 400),
            ContextError, "too long",
        ),
        (Reply(500, {}, [b"<html>oops"]), SourceError, "answered 500$"),
        (document([1, 2], 400), RequestError, r"refused the request \(400\)$"),
        (document({"error": {"message": 7, "code": []}}, 422), RequestError, "422"),
        (Reply(302, {"Location": "https://evil.example.com/"}), SourceError, "answered 302"),
        (Reply(200, {"Content-Type": "text/html"}, [b"<html>"]), SourceError, "'text/html'"),
        (Reply(200, {}, [b"x"]), SourceError, "'nothing'"),
        (document([1]), SourceError, "no JSON object"),
        (document({}), SourceError, "broke off"),
        (Reply(200, EVENTS, [b"data: {nonsense\n\n"]), SourceError, "no JSON"),
        (Reply(200, EVENTS, [b"data: " + b"[" * 100_000 + b"\n\n"]), SourceError, "no JSON"),
        (Reply(200, EVENTS, [delta("half")]), SourceError, "broke off"),
        (Reply(200, EVENTS, [delta("half")], cut=True), SourceError, "could not be reached"),
        (Reply(200, EVENTS, []), SourceError, "broke off"),
        (Reply(200, EVENTS, [event({"error": {"message": "boom"}})]), SourceError, "boom"),
        (Reply(200, EVENTS, [b"data: " + b"x" * (MAX_LINE + 9)]), SourceError, "a line of"),
        (
            Reply(200, EVENTS, [event({"choices": c}) for c in (None, [], [3], [{"delta": 1}])]),
            SourceError, "broke off",
        ),
    ],
)  # fmt: skip
def test_every_failure_has_its_words(
    endpoint: Endpoint, reply: Reply, kind: type[PocketLMError], said: str
) -> None:
    endpoint.answers = [reply]
    with pytest.raises(kind, match=said) as caught:
        answer(endpoint)
    assert type(caught.value) is kind or kind is RequestError


def test_an_answer_without_end_is_bounded(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pocketlm.backends.remote.events.MAX_ANSWER", 5000)
    endpoint.answers = [Reply(200, EVENTS, [delta("x" * 100)] * 100)]
    with pytest.raises(SourceError, match="exceeds 5,000 bytes"):
        answer(endpoint)


def test_the_content_filter_says_for_what(endpoint: Endpoint) -> None:
    result = {"hate": {"filtered": True, "severity": "high"}, "sexual": {"filtered": False}}
    error = {
        "code": "content_filter", "message": "long words",
        "innererror": {"content_filter_result": result},
    }  # fmt: skip
    endpoint.answers = [document({"error": error}, 400)]
    with pytest.raises(RequestError, match=r"content filter .* for hate \(high\)$"):
        answer(endpoint)


def test_an_answer_may_be_filtered_half_way(endpoint: Endpoint) -> None:
    endpoint.answers = [stream("Once", finish="content_filter")]
    with RemoteModel(endpoint.ref) as model:
        reply = collect(model.stream("hello"))
    assert (reply.text, reply.finish_reason) == ("Once", "content_filter")


def in_an_hour() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry_After": "7"}, 7, 7),
        ({"retry_after_ms": "1500", "Retry_After": "9"}, 1.5, 1.5),
        ({"Retry_After": in_an_hour()}, 3500, 3600),
        ({"Retry_After": "soon"}, 1, 1),
        ({"Retry_After": "nan"}, 1, 1),
        ({}, 1, 1),
    ],
)
def test_too_many_requests_say_when_to_come_back(
    endpoint: Endpoint, headers: dict[str, str], least: float, most: float
) -> None:
    endpoint.answers = [document({"error": {"message": "rate limit"}}, 429, **headers)]
    with pytest.raises(BusyError, match="rate limit") as caught:
        answer(endpoint)
    assert least <= caught.value.retry_after <= most
    assert len(endpoint.asked) == 1


def test_it_waits_where_it_may(endpoint: Endpoint) -> None:
    busy = document({}, 429, retry_after_ms="10")
    endpoint.answers = [busy, busy, stream("ok")]
    assert answer(endpoint, patience_s=5) == "ok"
    endpoint.answers = [busy]
    with pytest.raises(BusyError):
        answer(endpoint, patience_s=0.25)


def test_an_endpoint_that_is_not_there_is_named() -> None:
    with pytest.raises(SourceError, match=r"127.0.0.1:1 could not be reached"):
        RemoteModel("openai:http://127.0.0.1:1/v1#m").stream("hello")


def test_a_silent_endpoint_is_given_up(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "READ_S", 0.2)
    hold = threading.Event()
    endpoint.answers = [Reply(200, EVENTS, [delta("a"), delta("b", "stop")], hold=hold)]
    with pytest.raises(SourceError, match="said nothing"):
        answer(endpoint)
    hold.set()


@pytest.mark.parametrize("way", ["cancel", "close"])
def test_an_answer_can_be_stopped_while_it_waits(endpoint: Endpoint, way: str) -> None:
    hold = threading.Event()
    endpoint.answers = [Reply(200, EVENTS, [delta("a"), delta("b", "stop")], hold=hold)]
    cancel = threading.Event()
    with RemoteModel(endpoint.ref) as model:
        pieces = model.stream("hello", cancel=cancel)
        assert next(p.text for p in pieces if p.text) == "a"
        if way == "close":
            pieces.close()  # type: ignore[attr-defined]
        else:
            cancel.set()
            assert collect(pieces).finish_reason == "cancelled"
    hold.set()


# Who we say we are


def sent_to(endpoint: Endpoint, ref: str) -> Asked:
    """What a request to an Azure ref has, sent to this machine instead."""
    model = RemoteModel(replace(parse_remote(ref), base=f"{endpoint.url}/openai/v1"))
    collect(model.stream("hello"))
    model.close()
    return endpoint.asked[-1]


def test_azure_gets_a_key_or_a_token(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "entra")
    asked = sent_to(endpoint, "azure:contoso/chat")
    assert asked.path == "/openai/v1/chat/completions"
    assert asked.headers["authorization"] == "Bearer entra"
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", " secret ")
    asked = sent_to(endpoint, "azure:contoso/chat")
    assert asked.headers["api-key"] == "secret"
    assert "authorization" not in asked.headers
    assert asked.body["model"] == "chat"


def test_azure_identity_is_asked_where_there_is_nothing_else(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Library:
        class DefaultAzureCredential:
            def get_token(self, scope: str) -> object:
                asked.append(scope)
                if "us" in scope.split("/")[2].split("."):
                    raise ValueError("a long list of all that was tried")
                return type("Token", (), {"token": f"token-{len(asked)}"})

    importing: Callable[[str], object] = {"azure.identity": Library}.__getitem__
    monkeypatch.setattr("pocketlm.backends.remote.credentials.importlib.import_module", importing)
    assert sent_to(endpoint, "azure:contoso/chat").headers["authorization"] == "Bearer token-1"
    from pocketlm.backends.remote.credentials import Credential

    credential = Credential(parse_remote("azure:contoso/shop/chat"))
    assert credential.headers() == {"Authorization": "Bearer token-2"}
    assert credential.headers(of_project=True) == {"Authorization": "Bearer token-3"}
    assert asked[-1] == "https://ai.azure.com/.default"
    with pytest.raises(SourceError, match=r"no login for x.openai.azure.us \(ValueError\)"):
        Credential(parse_remote("azure:x.openai.azure.us/chat")).headers()
    assert asked[-1] == "https://cognitiveservices.azure.us/.default"


def test_without_a_credential_nothing_is_sent(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr("pocketlm.backends.remote.credentials.importlib.import_module", missing)
    with pytest.raises(RequestError, match="no credential") as caught:
        sent_to(endpoint, "azure:contoso/chat")
    assert "AZURE_OPENAI_API_KEY" in str(caught.value)
    assert endpoint.asked == []


def test_other_endpoints_get_their_own_key_and_no_other(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-secret")
    monkeypatch.setenv("POCKETLM_ENDPOINT_KEY", "own")
    answer(endpoint)
    headers = endpoint.asked[-1].headers
    assert headers["authorization"] == "Bearer own"
    assert "azure-secret" not in str(headers)


def test_a_key_does_not_go_where_it_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETLM_ENDPOINT_KEY", "own-secret")
    with pytest.raises(RequestError, match="plain http") as caught:
        RemoteModel("openai:http://example.org/v1#m").stream("hello")
    assert "own-secret" not in str(caught.value)


def test_a_secret_that_comes_back_is_not_shown(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKETLM_ENDPOINT_KEY", "own-secret")
    endpoint.answers = [document({"error": {"message": "bad key own-secret!"}}, 401)]
    with pytest.raises(SourceError, match="bad key …!"):
        answer(endpoint)


def test_a_key_that_is_none_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETLM_ENDPOINT_KEY", "own\nsecret")
    with pytest.raises(RequestError) as caught:
        RemoteModel("openai:https://example.org/v1#m").stream("hello")
    assert "secret" not in str(caught.value).removeprefix("POCKETLM_ENDPOINT_KEY")


def test_two_answers_at_once_do_not_mix(endpoint: Endpoint) -> None:
    def echo(asked: Asked) -> Reply:
        time.sleep(0.01)
        return stream(asked.body["messages"][0]["content"])

    endpoint.answers = [echo]
    found: dict[str, str] = {}
    with RemoteModel(endpoint.ref) as model:

        def ask(text: str) -> None:
            found[text] = collect(model.stream(text)).text

        threads = [threading.Thread(target=ask, args=(str(i),)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {str(i): str(i) for i in range(8)}


@pytest.mark.parametrize("proxy", ["nonsense://x", "http://[bad"])
def test_wrong_network_settings_are_told(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(SourceError):
        answer(endpoint)


def test_bytes_that_are_no_text_are_not_sent(endpoint: Endpoint) -> None:
    with pytest.raises(RequestError, match="no text"), RemoteModel(endpoint.ref) as model:
        model.stream("a\udcff")
    assert endpoint.asked == []
