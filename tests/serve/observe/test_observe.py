"""What is counted, logged and traced of requests; and what never is."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.serve.scripted import ScriptedFleet

from pocketlm.serve.app import make_app
from pocketlm.serve.config import ServeConfig
from pocketlm.serve.observe import requests
from pocketlm.serve.observe.logs import JsonLines, PlainLines
from pocketlm.serve.observe.metrics import FIRST_TOKEN, LATENCY, Metrics
from pocketlm.serve.observe.tracing import Tracing, open_tracing
from pocketlm.serve.services import Services
from pocketlm.store import Store

ASK = {"model": "tiny", "max_tokens": 20, "messages": [{"role": "user", "content": "a secret"}]}


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    fleet = ScriptedFleet(loaded_names={"tiny:latest": None})
    app = make_app(Services(fleet, Store(tmp_path), ServeConfig()))
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def lines() -> Callable[[logging.Formatter], io.StringIO]:
    def start(formatter: logging.Formatter) -> io.StringIO:
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        requests.access.handlers = [handler]
        requests.access.setLevel(logging.INFO)
        return stream

    yield start
    requests.access.handlers = []
    requests.access.setLevel(logging.NOTSET)


def test_an_answer_is_counted_under_vllms_names(client: TestClient) -> None:
    assert client.post("/v1/messages", json=ASK).status_code == 200
    text = client.get("/metrics").text
    of = '{engine="0",model_name="tiny:latest"}'
    assert f"vllm:generation_tokens_total{of} 11.0" in text
    assert f"vllm:time_to_first_token_seconds_count{of} 1.0" in text
    assert f"vllm:inter_token_latency_seconds_count{of} 1.0" in text
    assert f"vllm:e2e_request_latency_seconds_count{of} 1.0" in text
    assert f"vllm:num_requests_running{of} 0.0" in text
    assert 'finished_reason="stop"' in text
    assert 'route="/v1/messages",status="200"} 1.0' in text


def test_buckets_are_vllms() -> None:
    assert (LATENCY[0], LATENCY[-1], len(LATENCY)) == (0.3, 7680, 21)
    assert (FIRST_TOKEN[0], FIRST_TOKEN[-1], len(FIRST_TOKEN)) == (0.001, 2560, 22)


def test_what_the_fleet_tells_is_counted() -> None:
    metrics = Metrics()
    metrics.loaded("a", 2.0)
    metrics.unloaded("a", "room")
    metrics.crashed("a")
    metrics.stepped("a", 17)
    text = metrics.render().decode()
    for line in (
        'pocketlm_model_loads_total{model_name="a"} 1.0',
        'pocketlm_model_evictions_total{model_name="a"} 1.0',
        'pocketlm_worker_crashes_total{model_name="a"} 1.0',
        'vllm:iteration_tokens_total_sum{engine="0",model_name="a"} 17.0',
    ):
        assert line in text


def test_unknown_paths_make_one_series(client: TestClient) -> None:
    for number in range(20):
        client.get(f"/nowhere/{number}")
    assert 'route="none",status="404"} 20.0' in client.get("/metrics").text


def test_sane_request_ids_are_kept(client: TestClient) -> None:
    def given(id: str) -> str:
        return client.get("/health", headers={"X-Request-Id": id}).headers["x-request-id"]

    assert given("a-1.b:c_d") == "a-1.b:c_d"
    for bad in ("", "a b", "a\tb", "x" * 129, '"', "<script>"):
        assert given(bad) != bad
    refused = client.get("/health", headers={"Host": "evil.example"})
    assert refused.status_code == 403
    assert refused.headers["x-request-id"]


def test_a_line_has_what_helps_and_no_secret(
    client: TestClient, lines: Callable[[logging.Formatter], io.StringIO]
) -> None:
    stream = lines(JsonLines())
    client.post("/v1/messages?key=plm_x", json=ASK, headers={"x-api-key": "plm_secret"})
    record = json.loads(stream.getvalue())
    assert record["path"] == "/v1/messages"
    assert (record["status"], record["model"], record["output_tokens"]) == (200, "tiny:latest", 11)
    assert record["ttft_ms"] >= 0
    for secret in ("a secret", "plm_", "Hello"):
        assert secret not in stream.getvalue()


def test_no_path_forges_a_line(
    client: TestClient, lines: Callable[[logging.Formatter], io.StringIO]
) -> None:
    stream = lines(PlainLines())
    client.get("/a%0a2026-01-01 info forged%1b[31m")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


def test_spans_and_metrics_of_the_conventions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    traces = TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(spans))
    tracing = Tracing(traces, MeterProvider([reader]))
    monkeypatch.setattr(requests, "open_tracing", lambda: tracing)
    client = TestClient(make_app(Services(ScriptedFleet(), Store(tmp_path), ServeConfig())))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    client.post("/v1/messages", json=ASK, headers={"traceparent": parent})
    client.get("/health")
    (span,) = spans.get_finished_spans()
    assert span.name == "chat tiny:latest"
    assert f"{span.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert span.attributes["gen_ai.usage.output_tokens"] == 11
    assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert "a secret" not in span.to_json()
    data = json.loads(reader.get_metrics_data().to_json())
    found = data["resource_metrics"][0]["scope_metrics"][0]["metrics"]
    assert {one["name"] for one in found} >= {
        "gen_ai.server.request.duration",
        "gen_ai.server.time_to_first_token",
    }


def test_nothing_is_traced_unless_the_user_says_where() -> None:
    assert open_tracing({}) is None
