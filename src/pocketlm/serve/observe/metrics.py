"""Metrics for Prometheus: vLLM's names, labels and buckets for what dashboards and autoscalers
read, and ``pocketlm_*`` for what vLLM has no name for.

Per token only the gap since the last one is noted; the rest is counted when a request ends, and
what the models are doing is read from the fleet when somebody scrapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pocketlm.serve.generation import Ended, LoadedModel
from pocketlm.serve.observe.watcher import Leave

# vLLM's buckets, seconds.
LATENCY = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920,
           7680)  # fmt: skip
FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5,
               10, 20, 40, 80, 160, 640, 2560)  # fmt: skip
TOKEN_GAP = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20,
             40, 80)  # fmt: skip
STEP_TOKENS = (1, 8, *(1 << i for i in range(4, 15)))
TOKENS = tuple(m * 10**e for e in range(6) for m in (1, 2, 5))

_LABELS = ("model_name", "engine")
_ENGINE = "0"
_REASONS = {"stop": "stop", "length": "length", "cancelled": "abort", "error": "error"}


class _Model:
    """The series of one model, looked up once."""

    def __init__(self, counters: dict[str, Counter], histograms: dict[str, Histogram], name: str):
        self.counters = {key: one.labels(name, _ENGINE) for key, one in counters.items()}
        self.histograms = {key: one.labels(name, _ENGINE) for key, one in histograms.items()}


class Metrics:
    """``watcher.Watcher`` that counts. For one event loop; ``render`` is the text of /metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._models: dict[str, _Model] = {}
        self._counters = {
            name: Counter(f"vllm:{name}", text, _LABELS, registry=self.registry)
            for name, text in (
                ("prompt_tokens", "Tokens of prompts."),
                ("generation_tokens", "Tokens of answers."),
                ("prompt_tokens_cached", "Tokens of prompts that were still in memory."),
                ("prefix_cache_queries", "Tokens that were looked up in the prefix cache."),
                ("prefix_cache_hits", "Tokens that the prefix cache had."),
                ("num_preemptions", "Requests that had to give up their memory for a while."),
                ("spec_decode_num_draft_tokens", "Tokens that were guessed."),
                ("spec_decode_num_accepted_tokens", "Guessed tokens that were right."),
            )
        }
        self._histograms = {
            name: Histogram(f"vllm:{name}", text, _LABELS, buckets=buckets, registry=self.registry)
            for name, text, buckets in _HISTOGRAMS
        }
        self._success = self._counter(
            "vllm:request_success", "Ended requests.", *_LABELS, "finished_reason"
        )
        self._loads = self._counter("pocketlm_model_loads", "Models loaded.", "model_name")
        self._load_seconds = self._counter(
            "pocketlm_model_load_seconds", "Seconds spent loading models.", "model_name"
        )
        self._unloads = self._counter(
            "pocketlm_model_unloads", "Models unloaded.", "model_name", "reason"
        )
        self._evictions = self._counter(
            "pocketlm_model_evictions", "Models unloaded for the room of others.", "model_name"
        )
        self._crashes = self._counter(
            "pocketlm_worker_crashes", "Workers that died unasked.", "model_name"
        )
        self._refusals = self._counter(
            "pocketlm_requests_refused", "Requests that were not let in.", "reason"
        )
        self._http = self._counter(
            "pocketlm_http_requests", "HTTP responses.", "method", "route", "status"
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def watch(self, loaded: Callable[[], Sequence[LoadedModel]]) -> None:
        """Has every scrape read what the models are doing."""
        self.registry.register(_Loaded(loaded))

    def render(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)

    # observe.watcher.Watcher

    def loaded(self, model: str, seconds: float) -> None:
        self._loads.labels(model).inc()
        self._load_seconds.labels(model).inc(seconds)

    def unloaded(self, model: str, why: Leave) -> None:
        self._unloads.labels(model, why).inc()
        if why == "room":
            self._evictions.labels(model).inc()

    def crashed(self, model: str) -> None:
        self._crashes.labels(model).inc()

    def stepped(self, model: str, tokens: int) -> None:
        self._of(model).histograms["iteration_tokens_total"].observe(tokens)

    # Requests

    def first_token(self, model: str, seconds: float) -> None:
        """Seconds from the question to the answer's first text."""
        self._of(model).histograms["time_to_first_token_seconds"].observe(seconds)

    def gaps(self, model: str, seconds: Iterable[float]) -> None:
        """Seconds between one piece of an answer and the next."""
        observe = self._of(model).histograms["inter_token_latency_seconds"].observe
        for one in seconds:
            observe(one)

    def ended(self, model: str, ended: Ended, seconds: float) -> None:
        """An answer has ended, so many seconds after it was asked for."""
        series = self._of(model)
        for name, amount in (
            ("prompt_tokens", ended.prompt_tokens),
            ("generation_tokens", ended.completion_tokens),
            ("prompt_tokens_cached", ended.cached_tokens),
            ("prefix_cache_queries", ended.prompt_tokens),
            ("prefix_cache_hits", ended.cached_tokens),
            ("num_preemptions", ended.preemptions),
            ("spec_decode_num_draft_tokens", ended.drafted_tokens),
            ("spec_decode_num_accepted_tokens", ended.accepted_tokens),
        ):
            series.counters[name].inc(amount)
        self._success.labels(model, _ENGINE, _REASONS[ended.reason]).inc()
        for name, value in (
            ("e2e_request_latency_seconds", seconds),
            ("request_queue_time_seconds", ended.queue_s),
            ("request_prefill_time_seconds", ended.prefill_s),
            ("request_decode_time_seconds", ended.decode_s),
            ("request_inference_time_seconds", ended.prefill_s + ended.decode_s),
            ("request_prompt_tokens", ended.prompt_tokens),
            ("request_generation_tokens", ended.completion_tokens),
        ):
            series.histograms[name].observe(value)
        if ended.completion_tokens > 1:
            series.histograms["request_time_per_output_token_seconds"].observe(
                ended.decode_s / (ended.completion_tokens - 1)
            )

    def failed(self, model: str) -> None:
        """An answer broke off with an error."""
        self._success.labels(model, _ENGINE, "error").inc()

    def refused(self, reason: str) -> None:
        """A request was not let in."""
        self._refusals.labels(reason).inc()

    def responded(self, method: str, route: str, status: int) -> None:
        """``route`` is the route's pattern, so that there are only as many series as routes."""
        self._http.labels(method, route, str(status)).inc()

    def _of(self, model: str) -> _Model:
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = _Model(self._counters, self._histograms, model)
        return found


_HISTOGRAMS: tuple[tuple[str, str, Sequence[float]], ...] = (
    ("time_to_first_token_seconds", "From question to first text.", FIRST_TOKEN),
    ("inter_token_latency_seconds", "Between pieces of an answer.", TOKEN_GAP),
    ("request_time_per_output_token_seconds", "Mean of an answer's tokens.", TOKEN_GAP),
    ("e2e_request_latency_seconds", "From question to end.", LATENCY),
    ("request_queue_time_seconds", "Waiting for its turn.", LATENCY),
    ("request_prefill_time_seconds", "Reading the prompt.", LATENCY),
    ("request_decode_time_seconds", "From the first token to the last.", LATENCY),
    ("request_inference_time_seconds", "Prefill and decode.", LATENCY),
    ("request_prompt_tokens", "Tokens of a prompt.", TOKENS),
    ("request_generation_tokens", "Tokens of an answer.", TOKENS),
    ("iteration_tokens_total", "Tokens of one step of the engine.", STEP_TOKENS),
)


class _Loaded(Collector):
    """What the models are doing at the moment of a scrape."""

    def __init__(self, loaded: Callable[[], Sequence[LoadedModel]]) -> None:
        self._loaded = loaded

    def describe(self) -> Iterable[Metric]:
        """Names nothing in advance: the fleet may not be there yet when this is registered."""
        return ()

    def collect(self) -> Iterable[Metric]:
        models = self._loaded()
        for name, text, value in (
            ("num_requests_running", "Requests that are computed.", lambda m: m.running),
            ("num_requests_waiting", "Requests that wait.", lambda m: m.waiting),
            ("kv_cache_usage_perc", "Used part of the KV cache, 0 to 1.", _usage),
        ):
            family = GaugeMetricFamily(f"vllm:{name}", text, labels=_LABELS)
            for model in models:
                family.add_metric((model.facts.name, _ENGINE), value(model))
            yield family
        yield _cache_config(models)
        memory = GaugeMetricFamily(
            "pocketlm_model_memory_bytes", "Memory of a model.", labels=("model_name",)
        )
        for model in models:
            memory.add_metric((model.facts.name,), model.memory)
        yield memory
        yield GaugeMetricFamily("pocketlm_models_loaded", "Models in memory.", value=len(models))


def _usage(model: LoadedModel) -> float:
    return model.kv_used / model.kv_tokens if model.kv_tokens else 0.0


def _cache_config(models: Sequence[LoadedModel]) -> Metric:
    """vLLM's blocks of its own memory are positions here: one token each."""
    labels = (*_LABELS, "block_size", "num_gpu_blocks", "num_cpu_blocks")
    family = GaugeMetricFamily("vllm:cache_config_info", "The KV cache.", labels=labels)
    for model in models:
        family.add_metric((model.facts.name, _ENGINE, "1", "0", str(model.kv_tokens)), 1)
    return family
