"""Metrics of the server in Prometheus' format, under vLLM's names where the meaning is the same: GET /metrics.

Upstream's /metrics asks the engine, so it hangs with it, and at the pinned commit its text is no valid exposition: a
label without quotation marks makes Prometheus drop the whole scrape. `Requests` counts what an engine is given and what
it answers, in the process of the server, so that a scrape needs nothing of the engine.

The native engine does not report its queue. `Requests` therefore repeats its admission: first come, first served, while
there is a slot (`max_num_sequence`) and the KV cache has room. It does not see that the engine takes a running request
back when the cache is full, and counts pages that requests share once for each.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

import fastapi
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from mlc_llm.serve.entrypoints import metrics_entrypoints
from mlc_llm.serve.server import ServerContext

from . import engine_watch

REGISTRY = CollectorRegistry()
LABELS = ("model_name",)

# vLLM's buckets, so that quantiles of both compare.
_FIRST = (
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
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
    160,
    640,
    2560,
)
_NEXT = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_ALL = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)

WAITING = Gauge("vllm:num_requests_waiting", "Requests that wait for a slot in the engine.", LABELS, registry=REGISTRY)
RUNNING = Gauge("vllm:num_requests_running", "Requests that the engine works on.", LABELS, registry=REGISTRY)
USAGE = Gauge(
    "vllm:kv_cache_usage_perc", "Share of the KV cache that running requests use, 0 to 1.", LABELS, registry=REGISTRY
)
PROMPT = Counter("vllm:prompt_tokens", "Tokens of the prompts that were answered.", LABELS, registry=REGISTRY)
GENERATED = Counter("vllm:generation_tokens", "Tokens generated.", LABELS, registry=REGISTRY)
FINISHED = Counter(
    "vllm:request_success",
    "Requests that ended, by the engine's reason; abort: the client left, error: the engine failed.",
    (*LABELS, "finished_reason"),
    registry=REGISTRY,
)
FIRST_TOKEN = Histogram(
    "vllm:time_to_first_token_seconds",
    "From the request to its first token.",
    LABELS,
    buckets=_FIRST,
    registry=REGISTRY,
)
NEXT_TOKEN = Histogram(
    "vllm:inter_token_latency_seconds", "Between two outputs of a request.", LABELS, buckets=_NEXT, registry=REGISTRY
)
PER_TOKEN = Histogram(
    "vllm:request_time_per_output_token_seconds",
    "Mean time of a request's tokens after the first.",
    LABELS,
    buckets=_NEXT,
    registry=REGISTRY,
)
WHOLE = Histogram(
    "vllm:e2e_request_latency_seconds", "From the request to its end.", LABELS, buckets=_ALL, registry=REGISTRY
)


@dataclasses.dataclass
class _Request:
    prompt: int
    generated: list[int]
    """Tokens of each choice."""
    added: float
    first: float | None = None
    last: float = 0
    reason: str = "abort"

    def pages(self, size: int) -> int:
        """Pages of the KV cache. The first choice goes on in the prompt's last page, the others start their own."""
        first, *others = self.generated
        return sum(-(-tokens // size) for tokens in (self.prompt + first, *others))


class Requests:
    """The requests of one engine.

    Args:
        engine: upstream's.
        model: its name in the server, for the label.
    """

    def __init__(self, engine: Any, model: str) -> None:
        self.engine = engine
        self.model = model
        self._open: dict[str, _Request] = {}
        self._lock = threading.Lock()  # Outputs arrive in the engine's thread.
        # A series is exposed once it is named, even at zero.
        for metric in (PROMPT, GENERATED, FIRST_TOKEN, NEXT_TOKEN, PER_TOKEN, WHOLE):
            metric.labels(model)
        WAITING.labels(model).set_function(lambda: len(self._open) - len(self._admitted()))
        RUNNING.labels(model).set_function(lambda: len(self._admitted()))
        USAGE.labels(model).set_function(self._usage)

    def add(self, name: str, prompt: int, choices: int) -> None:
        """Counts a request that the engine is given."""
        with self._lock:
            self._open[name] = _Request(prompt, [0] * choices, time.monotonic())

    def deliver(self, name: str, parts: Sequence[Any]) -> None:
        """Counts an output of a request: upstream's SingleRequestStreamOutput of each choice, or its end."""
        now = time.monotonic()
        with self._lock:
            request = self._open.get(name)
            if request is None:
                return
            if parts[0].request_final_usage_json_str is not None:
                del self._open[name]
                tokens = int(json.loads(parts[0].request_final_usage_json_str)["completion_tokens"])
                # Tokens that are in no output, such as the one that ends an answer.
                GENERATED.labels(self.model).inc(max(0, tokens - sum(request.generated)))
                self._end(request, now, request.reason)
                return
            for choice, part in enumerate(parts):
                request.generated[choice] += len(part.delta_token_ids)
                request.reason = part.finish_reason or request.reason
            new = sum(len(part.delta_token_ids) for part in parts)
            if not new:
                return
            GENERATED.labels(self.model).inc(new)
            if request.first is None:
                request.first = now
                PROMPT.labels(self.model).inc(request.prompt)
                FIRST_TOKEN.labels(self.model).observe(now - request.added)
            else:
                NEXT_TOKEN.labels(self.model).observe(now - request.last)
            request.last = now

    def lose(self, names: Iterable[str]) -> None:
        """Ends requests that the engine has failed with."""
        now = time.monotonic()
        with self._lock:
            for name in names:
                if request := self._open.pop(name, None):
                    self._end(request, now, "error")

    def _end(self, request: _Request, now: float, reason: str) -> None:
        FINISHED.labels(self.model, reason).inc()
        WHOLE.labels(self.model).observe(now - request.added)
        rest = sum(request.generated) / len(request.generated) - 1
        if request.first is not None and rest > 0:
            PER_TOKEN.labels(self.model).observe((request.last - request.first) / rest)

    def _admitted(self) -> list[_Request]:
        """Returns the requests that the engine works on, as far as can be known from outside."""
        config = self.engine.engine_config
        slots, pages = int(config.max_num_sequence), self._all_pages()
        admitted: list[_Request] = []
        with self._lock:
            # Those that were answered are in the engine; the others follow in their order.
            for request in sorted(self._open.values(), key=lambda request: request.first is None):
                slots -= len(request.generated)
                pages -= request.pages(int(config.kv_cache_page_size))
                if request.first is None and admitted and (slots < 0 or pages < 0):
                    break
                admitted.append(request)
        return admitted

    def _usage(self) -> float:
        size = int(self.engine.engine_config.kv_cache_page_size)
        return min(1.0, sum(request.pages(size) for request in self._admitted()) / self._all_pages())

    def _all_pages(self) -> int:
        config = self.engine.engine_config
        return int(config.max_total_sequence_length) // int(config.kv_cache_page_size)


async def metrics() -> fastapi.Response:
    """Answers a scrape in Prometheus' text format.

    Not in OpenMetrics, although Prometheus prefers that: prometheus-client 0.26 replaces the colon in the names of its
    samples there, but not in their HELP and TYPE.
    """
    return fastapi.Response(generate_latest(REGISTRY), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


def install() -> None:
    """Replaces upstream's endpoint, and counts the requests of every engine that a server is given."""
    upstream = ServerContext.add_model

    @functools.wraps(upstream)
    def add_model(context: Any, model: str, engine: Any) -> None:
        upstream(context, model, engine)
        engine_watch.observe(engine, functools.partial(Requests, engine, model))

    ServerContext.add_model = add_model
    disable_created_metrics()  # Prometheus' own format has no such samples: each would be one more metric.
    router = metrics_entrypoints.app
    (old,) = (route for route in router.routes if getattr(route, "path", None) == "/metrics")
    router.routes.remove(old)
    router.get("/metrics", response_class=fastapi.responses.PlainTextResponse)(metrics)
    router.head("/metrics", include_in_schema=False)(metrics)
