"""/metrics is read by Prometheus' own parsers while the server works, and its numbers are right."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import queue
import urllib.request
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from mlc_llm._mlc_bazel import engine_watch, metrics
from prometheus_client import parser
from prometheus_client.metrics_core import Metric
from serving import PATIENCE, Server
from tiny_model_files import WEIGHTS

CLIENTS = 16
SLOTS = 4
"""Requests that the engine works on at a time, upstream's default."""

TYPES = {
    "vllm:num_requests_waiting": "gauge",
    "vllm:num_requests_running": "gauge",
    "vllm:kv_cache_usage_perc": "gauge",
    "vllm:prompt_tokens": "counter",
    "vllm:generation_tokens": "counter",
    "vllm:request_success": "counter",
    "vllm:time_to_first_token_seconds": "histogram",
    "vllm:inter_token_latency_seconds": "histogram",
    "vllm:request_time_per_output_token_seconds": "histogram",
    "vllm:e2e_request_latency_seconds": "histogram",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as server:
        server.wait()
        yield server


def scrape(server: Server) -> list[Metric]:
    """Returns the metrics as prometheus-client reads them."""
    # What Prometheus sends.
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    request = urllib.request.Request(server.address + "/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return list(parser.text_string_to_metric_families(answer.read().decode()))


def check_histogram(family: Metric) -> None:
    """Checks that each bucket includes those before it, and the last one everything."""
    buckets = [sample.value for sample in family.samples if sample.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1:] == [sample.value for sample in family.samples if sample.name.endswith("_count")]


def samples(families: list[Metric]) -> dict[str, float]:
    """Returns the values by name, summed over all labels but those of buckets."""
    values: dict[str, float] = {}
    for family in families:
        for sample in family.samples:
            values[sample.name] = values.get(sample.name, 0) + sample.value
    return values


def complete(server: Server, tokens: int) -> Any:
    with server.client() as client:
        prompt = [{"role": "user", "content": "hello world"}]
        return client.chat.completions.create(model=str(WEIGHTS), messages=prompt, max_tokens=tokens, temperature=0.0)  # type: ignore[arg-type]


def test_prometheus_reads_it_under_load_and_its_totals_are_what_the_clients_got(server: Server) -> None:
    before = samples(scrape(server))
    seen: list[dict[str, float]] = []
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        asked = [pool.submit(complete, server, 150 + number) for number in range(CLIENTS)]
        while not all(each.done() for each in asked):
            families = scrape(server)
            assert {family.name: family.type for family in families} == TYPES
            for family in families:
                assert family.documentation
                assert all(sample.labels["model_name"] == str(WEIGHTS) for sample in family.samples)
                if family.type == "histogram":
                    check_histogram(family)
            seen.append(samples(families))
        usages = [each.result(PATIENCE).usage for each in asked]
    after = samples(scrape(server))
    # The cache has room for fewer of these prompts than there are slots.
    assert 1 < max(each["vllm:num_requests_running"] for each in seen) <= SLOTS
    assert 1 < max(each["vllm:num_requests_waiting"] for each in seen) < CLIENTS
    assert 0 < max(each["vllm:kv_cache_usage_perc"] for each in seen) <= 1
    assert [after[name] for name, kind in TYPES.items() if kind == "gauge"] == [0, 0, 0]

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert grown("vllm:prompt_tokens_total") == sum(usage.prompt_tokens for usage in usages)
    assert grown("vllm:generation_tokens_total") == sum(usage.completion_tokens for usage in usages)
    for name, count in {
        "vllm:request_success_total": CLIENTS,
        "vllm:time_to_first_token_seconds_count": CLIENTS,
        "vllm:request_time_per_output_token_seconds_count": CLIENTS,
        "vllm:e2e_request_latency_seconds_count": CLIENTS,
    }.items():
        assert grown(name) == count, name
    assert grown("vllm:inter_token_latency_seconds_count") > CLIENTS
    first, rest = (grown(f"vllm:{name}_seconds_sum") for name in ("time_to_first_token", "inter_token_latency"))
    assert 0 < first + rest <= grown("vllm:e2e_request_latency_seconds_sum")


def test_requests_whose_clients_leave_are_counted_and_gone(server: Server) -> None:
    host, _, port = server.address.removeprefix("http://").rpartition(":")
    clients = [http.client.HTTPConnection(host, int(port), timeout=PATIENCE) for _ in range(CLIENTS)]
    request = json.dumps({"messages": [{"role": "user", "content": "hello world"}], "max_tokens": 300, "stream": True})
    for client in clients:
        client.request("POST", "/v1/chat/completions", request, {"Content-Type": "application/json"})

    def at_work() -> float:
        now = samples(scrape(server))
        return now["vllm:num_requests_running"] + now["vllm:num_requests_waiting"]

    server.until(lambda: at_work() > CLIENTS / 2)
    for client in clients:
        client.close()
    server.until(lambda: at_work() == 0)
    assert 'finished_reason="abort"' in server.get("/metrics")


def engine(slots: int = 2, tokens: int = 160) -> Any:
    config = SimpleNamespace(max_num_sequence=slots, max_total_sequence_length=tokens, kv_cache_page_size=16)
    return SimpleNamespace(engine_config=config)


def part(tokens: int, reason: str | None = None) -> Any:
    """An output of a choice."""
    return SimpleNamespace(delta_token_ids=[0] * tokens, finish_reason=reason, request_final_usage_json_str=None)


def end(tokens: int) -> Any:
    """The last output of a request."""
    return SimpleNamespace(request_final_usage_json_str=json.dumps({"completion_tokens": tokens}))


def value(model: str, name: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(f"vllm:{name}", {"model_name": model, **labels})


def gauges(model: str) -> tuple[float | None, ...]:
    return tuple(value(model, name) for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"))


def test_requests_run_in_their_order_while_there_are_slots() -> None:
    requests = metrics.Requests(engine(slots=2), "slots")
    for name in "abc":
        requests.add(name, prompt=10, choices=1)
    assert gauges("slots") == (2, 1, 0.2)
    # The engine has taken the last one first: what is answered runs.
    requests.deliver("c", [part(1)])
    assert gauges("slots") == (2, 1, 0.2)
    requests.deliver("a", [part(1)])
    requests.deliver("a", [end(1)])
    assert gauges("slots") == (2, 0, 0.2)


def test_requests_wait_for_room_in_the_cache() -> None:
    requests = metrics.Requests(engine(slots=4), "room")
    requests.add("a", prompt=100, choices=1)
    requests.add("b", prompt=100, choices=1)
    requests.add("c", prompt=1, choices=1)  # It would fit, but not before b.
    assert gauges("room") == (1, 2, 0.7)
    requests.deliver("a", [part(12)])
    assert gauges("room") == (1, 2, 0.7)
    requests.deliver("a", [part(1)])
    assert gauges("room") == (1, 2, 0.8)
    requests.deliver("a", [part(1000)])
    assert gauges("room") == (1, 2, 1.0)


def test_each_choice_takes_a_slot_and_pages() -> None:
    requests = metrics.Requests(engine(slots=3), "choices")
    requests.add("a", prompt=16, choices=2)
    requests.add("b", prompt=16, choices=2)
    assert gauges("choices") == (1, 1, 0.1)
    requests.deliver("a", [part(1), part(17)])
    assert gauges("choices") == (1, 1, 0.4)


def test_ends_are_counted_by_their_reason() -> None:
    requests = metrics.Requests(engine(), "ends")
    for name, outputs in {"a": [part(3, "stop"), end(5)], "b": [part(2, "length"), end(2)], "c": [end(0)]}.items():
        requests.add(name, prompt=7, choices=1)
        for output in outputs:
            requests.deliver(name, [output])
    requests.add("d", prompt=7, choices=1)
    requests.lose(["d", "unknown"])
    requests.deliver("d", [part(1)])
    reasons = ("stop", "length", "abort", "error")
    ended = {reason: value("ends", "request_success_total", finished_reason=reason) for reason in reasons}
    assert ended == dict.fromkeys(ended, 1)
    # Two tokens belong to a text that ends the answer.
    assert (value("ends", "generation_tokens_total"), value("ends", "prompt_tokens_total")) == (7, 14)
    assert value("ends", "time_to_first_token_seconds_count") == 2
    assert value("ends", "e2e_request_latency_seconds_count") == 4
    assert gauges("ends") == (0, 0, 0)


def test_requests_that_an_engine_fails_with_end() -> None:
    told: list[list[str]] = []
    state = SimpleNamespace(
        async_streamers={"a": (SimpleNamespace(push=None), [])},
        async_event_loop=SimpleNamespace(call_soon_threadsafe=lambda *_: None),
        sync_output_queue=queue.SimpleQueue(),
    )
    watched = engine_watch._Engine(SimpleNamespace(state=state), {})
    observer: Any = SimpleNamespace(lose=lambda names: told.append(list(names)))
    engine_watch.observe(SimpleNamespace(_watched=watched), lambda: observer)
    watched._lose_requests(RuntimeError("failed"))
    assert told == [["a"]]
