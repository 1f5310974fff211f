"""What is read of a scrape: from servers on this machine, and of what was pushed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pytest_celery_health import Sample
from pytest_celery_health.record.recorder import JsonLines
from pytest_celery_health.record.recording import Request
from pytest_celery_health.sandbox import Sandbox
from pytest_celery_health.sandbox.drills.crew import Worker
from pytest_celery_health.sandbox.drills.scrapes import Scrape, ScrapeError, scraper

TEXT = '# TYPE depth gauge\ndepth{queue="a"} 7\ndepth{queue="b"} NaN\n'


@pytest.fixture
def serving() -> Iterator[Callable[[Callable[[BaseHTTPRequestHandler], None]], Scrape]]:
    """Scrapes, as a worker's port 9808, a server that answers as it is told."""
    servers = []

    def serve(answer: Callable[[BaseHTTPRequestHandler], None]) -> Scrape:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return _scraper("http://127.0.0.1:9808/metrics", {9808: server.server_port})

    yield serve
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def _scraper(place: str, ports: dict[int, int] | None = None, worker: Worker | None = None) -> Scrape:
    nobody = Worker("w1", "prefork", Path("/nowhere"))
    unused = Sandbox.__new__(Sandbox)  # neither a server nor what was pushed is asked of it
    return scraper(place, unused, worker or nobody, ports or {})


def _says(text: str, status: int = 200, kind: str = "text/plain") -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.end_headers()
        request.wfile.write(text.encode())

    return answer


@pytest.mark.parametrize(
    ("text", "kind"),
    [(TEXT, "text/plain"), (TEXT + "# EOF\n", "application/openmetrics-text; version=1.0.0")],
)
def test_samples_by_name(serving, text: str, kind: str) -> None:
    first, second = serving(_says(text, kind=kind))(5)["depth"]
    assert first == Sample({"queue": "a"}, 7)
    assert second.value != second.value


def _hangs(_: BaseHTTPRequestHandler) -> None:
    time.sleep(1)


def _drips(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    for _ in range(200):
        try:
            request.wfile.write(b"# more\n")
        except OSError:
            return
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (_says(TEXT, 503), "http://127.0.0.1:9808/metrics answers HTTP 503"),
        (_says("<html>"), "it is no text that Prometheus reads: "),
        (_hangs, "http://127.0.0.1:9808/metrics did not answer within "),
        (_drips, "http://127.0.0.1:9808/metrics did not come to an end within "),
    ],
)
def test_what_is_no_scrape(serving, answer: Callable[[BaseHTTPRequestHandler], None], why: str) -> None:
    with pytest.raises(ScrapeError, match=why):
        serving(answer)(0.4)


def test_nobody_is_there() -> None:
    with pytest.raises(ScrapeError, match="the worker's main process does not answer"):
        _scraper("worker")(0.1)


# A Pushgateway.


class Gateway:
    def __init__(self, folder: Path) -> None:
        self.worker = Worker("w1", "prefork", folder)
        self._lines = JsonLines(self.worker.records)
        self.at = 0.0

    def takes(self, method: str, path: str, body: str = "", status: int = 202) -> None:
        self.at += 1
        self._lines.add(Request(method, f"http://gateway:9091{path}", {}, body, status, at=self.at))

    def shows(self, name: str) -> list[Sample]:
        return list(_scraper("push:gateway:9091", worker=self.worker)(1).get(name, ()))


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path)


def test_a_push_replaces_its_group_and_no_other(gateway: Gateway) -> None:
    gateway.takes("PUT", "/metrics/job/worker/instance/1", "a_total 1\nb 1\n")
    gateway.takes("PUT", "/metrics/job/worker/instance/2", "a_total 5\n")
    gateway.takes("PUT", "/metrics/job/worker/instance/1", "a_total 2\n")
    assert gateway.shows("a_total") == [
        Sample({"job": "worker", "instance": "1"}, 2),
        Sample({"job": "worker", "instance": "2"}, 5),
    ]
    assert gateway.shows("b") == []
    assert [each.value for each in gateway.shows("push_time_seconds")] == [3, 2]


def test_an_addition_replaces_metrics_of_its_names_only(gateway: Gateway) -> None:
    gateway.takes("PUT", "/metrics/job/worker", 'a{x="1"} 1\nb 1\n')
    gateway.takes("POST", "/metrics/job/worker", 'a{x="2"} 2\n')
    assert gateway.shows("a") == [Sample({"x": "2", "job": "worker"}, 2)]
    assert gateway.shows("b") == [Sample({"job": "worker"}, 1)]


def test_a_deletion_and_what_the_gateway_did_not_take(gateway: Gateway) -> None:
    gateway.takes("PUT", "/metrics/job/queues", "depth 7\n")
    gateway.takes("PUT", "/metrics/job/queues", "depth 8\n", status=500)
    gateway.takes("GET", "/metrics", "depth 9\n")
    assert [each.value for each in gateway.shows("depth")] == [7]
    gateway.takes("DELETE", "/metrics/job/queues")
    assert gateway.shows("depth") == []


def test_labels_in_base64(gateway: Gateway) -> None:
    gateway.takes("PUT", "/metrics/job@base64/YS9i/instance/w%201", "depth 7\n")
    assert gateway.shows("depth") == [Sample({"job": "a/b", "instance": "w 1"}, 7)]


def test_nothing_was_pushed(gateway: Gateway) -> None:
    assert gateway.shows("depth") == []
