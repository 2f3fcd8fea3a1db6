"""OpenTelemetry, only where the user says where to send it (``OTEL_EXPORTER_OTLP_ENDPOINT``) and
has installed the extra: ``pip install "pocketlm[otel]"``.

One span for each request of a model, with the names of the GenAI conventions (status: development),
under the caller's span where a W3C ``traceparent`` comes with the request; and the conventions'
server metrics. No text of a prompt or an answer is ever sent.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.types import Scope

from pocketlm.serve.observe.entry import Entry

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

_log = logging.getLogger(__name__)

PROVIDER = "pocketlm"
_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/api/chat": "chat",
    "/v1/completions": "text_completion",
    "/api/generate": "text_completion",
    "/v1/embeddings": "embeddings",
    "/api/embed": "embeddings",
    "/api/embeddings": "embeddings",
}
# Seconds, of the conventions.
_DURATION = [0.01 * 2**i for i in range(14)]
_FIRST = [
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
]
_PER_TOKEN = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5]


def open_tracing(environment: Mapping[str, str] = os.environ) -> Tracing | None:
    """Tracing to where the user's environment says; None where it says nothing."""
    if not environment.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        _log.warning("OTEL_EXPORTER_OTLP_ENDPOINT is set, but pocketlm[otel] is not installed")
        return None
    resource = Resource.create({"service.name": environment.get("OTEL_SERVICE_NAME", PROVIDER)})
    traces = TracerProvider(resource=resource)
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    return Tracing(traces, MeterProvider([reader], resource=resource))


class Tracing:
    """Spans and metrics of requests, to whatever exporter the providers have."""

    def __init__(self, traces: TracerProvider, metrics: MeterProvider) -> None:
        self._tracer = traces.get_tracer("pocketlm")
        meter = metrics.get_meter("pocketlm")
        self._duration, self._first, self._per_token = (
            meter.create_histogram(
                f"gen_ai.server.{name}", unit="s", explicit_bucket_boundaries_advisory=buckets
            )
            for name, buckets in (
                ("request.duration", _DURATION),
                ("time_to_first_token", _FIRST),
                ("time_per_output_token", _PER_TOKEN),
            )
        )

    def begin(self, scope: Scope) -> Span | None:
        """A span for a request of a model; None for other requests."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        operation = _OPERATIONS.get(scope["path"])
        if operation is None or scope["method"] != "POST":
            return None
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in (b"traceparent", b"tracestate")
        }
        return self._tracer.start_span(
            operation,
            context=TraceContextTextMapPropagator().extract(headers),
            kind=SpanKind.SERVER,
            attributes={"gen_ai.operation.name": operation, "gen_ai.provider.name": PROVIDER},
        )

    def end(self, span: Span, scope: Scope, status: int, entry: Entry) -> None:
        """Says how the request ended."""
        from opentelemetry.trace import StatusCode

        operation = _OPERATIONS[scope["path"]]
        labels: dict[str, Any] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": PROVIDER,
        }
        if entry.model is not None:
            labels["gen_ai.request.model"] = labels["gen_ai.response.model"] = entry.model
            span.update_name(f"{operation} {entry.model}")
        if status >= 400:
            labels["error.type"] = str(status)
            if status >= 500:
                span.set_status(StatusCode.ERROR)
        span.set_attributes(labels)
        span.set_attribute("http.response.status_code", status)
        span.set_attributes(_usage(entry))
        span.end()
        self._duration.record(time.perf_counter() - entry.began, labels)
        if entry.ttft is not None:
            self._first.record(entry.ttft, labels)
        ended = entry.ended
        if ended is not None and ended.completion_tokens > 1:
            self._per_token.record(ended.decode_s / (ended.completion_tokens - 1), labels)


def _usage(entry: Entry) -> dict[str, Any]:
    """What the request took, by the conventions' names."""
    found: dict[str, Any] = {}
    if entry.prompt_tokens:
        found["gen_ai.usage.input_tokens"] = entry.prompt_tokens
    if entry.ended is not None:
        found["gen_ai.usage.output_tokens"] = entry.output_tokens
        found["gen_ai.usage.cache_read.input_tokens"] = entry.ended.cached_tokens
        found["gen_ai.response.finish_reasons"] = [entry.ended.reason]
    if entry.ttft is not None:
        found["gen_ai.response.time_to_first_chunk"] = entry.ttft
    return found
