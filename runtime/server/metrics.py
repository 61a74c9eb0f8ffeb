"""Prometheus metrics, in a registry of the server's own."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..engine import Engine
from ..observe import EngineStats, RequestRecord, StepRecord

_LATENCIES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_STEPS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class Metrics:
    """All metrics. An Observer of the engine's; the HTTP side calls ``answered``."""

    kernel_times = False

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.active = Gauge(
            "xllmc_http_requests_active", "HTTP requests that are being answered.", registry=self.registry
        )
        self._http = Counter(
            "xllmc_http_requests", "HTTP requests answered.", ["route", "method", "status"], registry=self.registry
        )
        self._http_seconds = Histogram(
            "xllmc_http_request_seconds", "Of HTTP requests.", ["route"], buckets=_LATENCIES, registry=self.registry
        )
        self._samples = Counter(
            "xllmc_samples_ended", "Samples of requests, by how they ended.", ["outcome"], registry=self.registry
        )
        self._ttft = Histogram(
            "xllmc_time_to_first_token_seconds",
            "From arrival to first token.",
            buckets=_LATENCIES,
            registry=self.registry,
        )
        self._tpot = Histogram(
            "xllmc_time_per_output_token_seconds",
            "Of a sample's tokens after the first, on average.",
            buckets=_LATENCIES,
            registry=self.registry,
        )
        self._whole = Histogram(
            "xllmc_request_seconds", "From arrival to end.", buckets=_LATENCIES, registry=self.registry
        )
        self._queue = Histogram(
            "xllmc_queue_seconds", "From arrival to the first step.", buckets=_LATENCIES, registry=self.registry
        )
        self._step = Histogram("xllmc_step_seconds", "Of steps of the engine.", buckets=_STEPS, registry=self.registry)
        self._step_tokens = Histogram("xllmc_step_tokens", "Tokens of a step.", buckets=_TOKENS, registry=self.registry)

    def watch(self, engine: Engine) -> None:
        """Measure this engine from now on."""
        self.registry.register(_EngineCollector(engine.stats))
        engine.observe(self)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an HTTP request."""
        self._http.labels(route, method, str(status)).inc()
        self._http_seconds.labels(route).observe(seconds)

    def step(self, record: StepRecord) -> None:
        """Called by the engine after every step."""
        self._step.observe(record.ended - record.began)
        self._step_tokens.observe(record.tokens)

    def request(self, record: RequestRecord) -> None:
        """Called by the engine after every sample. Only of those that were completed are times observed: others end
        whenever their callers leave, or as soon as they fail.
        """
        self._samples.labels(record.outcome).inc()
        if record.outcome not in ("stop", "length"):
            return
        if record.scheduled is not None:
            self._queue.observe(record.scheduled - record.arrived)
        if record.first_token is not None:
            self._ttft.observe(record.first_token - record.arrived)
            later = record.usage.output_tokens - 1
            if later > 0:
                self._tpot.observe((record.ended - record.first_token) / later)
        self._whole.observe(record.ended - record.arrived)


class _EngineCollector(Collector):
    """The engine's own counts, read when asked for."""

    def __init__(self, stats: Callable[[], EngineStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        gauges = {
            "running": (stats.running, "Samples that hold states."),
            "waiting": (stats.waiting, "Samples that wait for their first step, or for the next."),
            "waiting_tokens": (stats.waiting_tokens, "Tokens that wait to be computed."),
            "swapped_pages": (stats.swapped_pages, "Pages in the host's other memory."),
            "weights_version": (stats.version, "Of the weights."),
        }
        counters = {
            "steps": (stats.steps, "Steps run."),
            "prompt_tokens": (stats.prompt_tokens, "Tokens of scheduled prompts, cached ones included."),
            "prefix_cache_hit_tokens": (stats.cached_tokens, "Tokens of prompts found in the prefix cache."),
            "computed_tokens": (stats.computed_tokens, "Tokens computed."),
            "output_tokens": (stats.output_tokens, "Tokens written."),
            "preemptions": (stats.preemptions, "Times that a sample had to make room."),
        }
        for name, (value, text) in gauges.items():
            yield GaugeMetricFamily(f"xllmc_{name}", text, value=value)
        for name, (value, text) in counters.items():
            yield CounterMetricFamily(f"xllmc_{name}", text, value=value)
        pages = GaugeMetricFamily("xllmc_pages", "Pages of each state group, by use.", labels=["group", "use"])
        for index, group in enumerate(stats.groups):
            for use in ("total", "in_use", "cached"):
                pages.add_metric([str(index), use], getattr(group, use))
        yield pages
