"""Outgoing requests: of every client, answered on this machine, by a mock, or by nobody."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import logging.handlers
import queue
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import requests
import requests_mock
import urllib3
from celery import Celery, signals

from pytest_celery_health import HandlerError
from pytest_celery_health.record.in_process import CelerySignals
from pytest_celery_health.record.recorder import Recorder
from pytest_celery_health.record.recording import Recording, Request

BODY = {"text": "order o1: declined «é»"}
HOOK = "https://hooks.slack.com/services/T0/B0/s3cr3t?token=s3cr3t2"


def with_requests(url: str) -> int:
    return requests.post(url, json=BODY).status_code


def with_urllib3(url: str) -> int:
    return urllib3.request("POST", url, json=BODY).status


def with_urllib(url: str) -> int:
    asked = urllib.request.Request(url, json.dumps(BODY).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked) as response:
        return response.status


def with_http_client(url: str) -> int:
    parts = urllib3.util.parse_url(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.host, parts.port)
    connection.request("POST", parts.request_uri, json.dumps(BODY), {"Content-Type": "application/json"})
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def with_httpx(url: str) -> int:
    return httpx.post(url, json=BODY).status_code


def with_async_httpx(url: str) -> int:
    async def post() -> int:
        async with httpx.AsyncClient() as client:
            return (await client.post(url, json=BODY)).status_code

    return asyncio.run(post())


CLIENTS = [with_requests, with_urllib3, with_urllib, with_http_client, with_httpx, with_async_httpx]
Client = Callable[[str], int]


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder() as recorder:
        yield recorder


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/moved":
            self.send_response(307)
            self.send_header("Location", "/here")
        else:
            self.send_response(404 if self.path == "/lost" else 201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_request_that_nobody_answers_is_refused_and_recorded_with_its_body(
    recorder: Recorder, client: Client
) -> None:
    with pytest.raises(Exception, match=r"hooks\.slack\.com") as refused:
        client(HOOK)
    assert "is not on this machine" in str(refused.value)
    (request,) = {(request.method, request.url, request.text) for request in recorder.recording.requests}
    assert request == ("POST", HOOK, json.dumps(BODY, ensure_ascii=False))
    for request in recorder.recording.requests:
        assert request.json() == BODY
        assert (request.status, request.error, request.host) == (None, "refused", "hooks.slack.com")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_request_on_this_machine_is_answered(recorder: Recorder, client: Client, server: str) -> None:
    assert client(f"{server}/hook") == 201
    (request,) = recorder.recording.requests
    assert (request.method, request.url, request.status) == ("POST", f"{server}/hook", 201)
    assert request.json() == BODY
    assert request.duration < 5


@pytest.mark.parametrize("client", [with_requests, with_urllib3])
def test_each_step_of_a_redirect_is_a_request(recorder: Recorder, client: Client, server: str) -> None:
    assert client(f"{server}/moved") == 201
    assert [(request.url, request.status) for request in recorder.recording.requests] == [
        (f"{server}/moved", 307),
        (f"{server}/here", 201),
    ]


def test_each_step_of_a_redirect_of_httpx(recorder: Recorder, server: str) -> None:
    assert httpx.post(f"{server}/moved", json=BODY, follow_redirects=True).status_code == 201
    moved, here = recorder.recording.requests
    assert ((moved.url, moved.status), (here.url, here.status)) == (
        (f"{server}/moved", 307),
        (f"{server}/here", 201),
    )


@pytest.mark.parametrize("first", ["mock", "recorder"])
def test_what_requests_mock_answers_and_what_it_does_not_know(first: str) -> None:
    recorder, mock = Recorder(), requests_mock.Mocker()
    outer, inner = (mock, recorder) if first == "mock" else (recorder, mock)
    with outer, inner, Recorder() as recorder:
        mock.post("https://known.example/hook", status_code=202)
        assert with_requests("https://known.example/hook") == 202
        with pytest.raises(requests.ConnectionError, match=r"unknown\.example is not on this machine"):
            with_requests("https://unknown.example/hook")
    known, unknown = recorder.recording.requests
    assert (known.status, known.json()) == (202, BODY)
    assert (unknown.host, unknown.status, unknown.error) == ("unknown.example", None, "refused")
    assert unknown.json() == BODY


def test_what_a_mock_transport_of_httpx_answers(recorder: Recorder) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(429))
    with httpx.Client(transport=transport) as client:
        client.post("https://api.example/alert", json=BODY)
    recorder.recording.expect_request("api.example", containing="declined", method="post", count=1)
    assert recorder.recording.requests[0].status == 429


def test_other_connections_are_refused_and_recorded_too(recorder: Recorder) -> None:
    with pytest.raises(ConnectionRefusedError, match=r"smtp\.example\.com:25 is not on this machine"):
        socket.create_connection(("smtp.example.com", 25))
    with socket.socket() as tcp, pytest.raises(ConnectionRefusedError, match=r"192\.0\.2\.1:80"):
        tcp.connect(("192.0.2.1", 80))
    with socket.socket(type=socket.SOCK_DGRAM) as udp, pytest.raises(ConnectionRefusedError):
        udp.sendto(b"x", ("192.0.2.2", 8125))
    assert [request.url for request in recorder.recording.requests] == [
        "tcp://smtp.example.com:25",
        "tcp://192.0.2.1:80",
        "tcp://192.0.2.2:8125",
    ]


def test_what_is_allowed_is_not_refused() -> None:
    with Recorder(allow=["db.invalid:5432"]) as recorder, pytest.raises(socket.gaierror):
        socket.create_connection(("db.invalid", 5432))
    assert recorder.recording.requests == ()
    with (
        pytest.raises(ValueError, match=r"'db\.internal' is not an endpoint; write host:port"),
        CelerySignals() as s,
    ):
        s.allow("db.internal")


def test_a_secret_is_in_no_message(recorder: Recorder) -> None:
    with pytest.raises(requests.ConnectionError):
        requests.post(HOOK, json={"routing_key": "s3cr3t3", "text": "x"}, auth=("me", "s3cr3t4"))
    recording = recorder.recording
    with pytest.raises(AssertionError) as missing:
        recording.expect_request("pagerduty.com")
    told = f"{missing.value} {recording!r} {recording.requests!r}"
    assert "POST https://hooks.slack.com/services/…" in told
    assert "s3cr3t" not in str(missing.value)
    assert "routing_key" in str(missing.value)
    assert "Basic" not in told


@pytest.mark.parametrize(
    ("host", "wanted", "same"),
    [
        ("hooks.slack.com", "hooks.slack.com", True),
        ("hooks.slack.com", "slack.com", True),
        ("hooks.slack.com", "HOOKS.slack.com.", True),
        ("notslack.com", "slack.com", False),
        ("slack.com", "hooks.slack.com", False),
    ],
)
def test_a_host_is_meant_with_its_subdomains(host: str, wanted: str, same: bool) -> None:
    recording = Recording((Request("GET", f"https://{host}/"),))
    assert bool(recording.requests_to(wanted)) is same


class SentryLike:
    """Sends from a thread of its own, as SDKs of error trackers do."""

    def __init__(self, dsn: str) -> None:
        self.pool = urllib3.PoolManager(retries=False)
        self.dsn = dsn
        self.events: queue.Queue[object] = queue.Queue()
        threading.Thread(target=self.work, daemon=True).start()

    def work(self) -> None:
        while True:
            event = self.events.get()
            try:
                self.pool.request("POST", self.dsn, body=json.dumps(event))
            except urllib3.exceptions.HTTPError:
                pass
            finally:
                self.events.task_done()


def failing(app: Celery):
    @app.task(name="shop.charge")
    def charge():
        raise ValueError("declined")

    return charge.s()


def test_a_client_that_sends_from_a_thread(app: Celery, celery_signals: CelerySignals) -> None:
    client = SentryLike("https://o1.ingest.sentry.io/api/1/envelope/")

    @signals.task_failure.connect(weak=False)
    def capture(sender, exception, **_):
        client.events.put({"task": sender.name, "exception": str(exception)})

    recording = celery_signals.run(failing(app), raises=ValueError, then=client.events.join)
    recording.expect_request("sentry.io", containing="shop.charge", count=1)


def test_loggings_own_http_handler(app: Celery, celery_signals: CelerySignals) -> None:
    """It sends the body after the connection is there, and reports its errors to stderr."""
    logger = logging.getLogger("shop.alerts")
    handler = logging.handlers.HTTPHandler("logs.example.com:8080", "/in", method="POST")
    handler.handleError = lambda record: None

    @signals.task_failure.connect(weak=False)
    def capture(sender, exception, **_):
        logger.error("%s failed: %s", sender.name, exception)

    logger.addHandler(handler)
    try:
        recording = celery_signals.run(failing(app), raises=ValueError)
    finally:
        logger.removeHandler(handler)
    request = recording.expect_request("logs.example.com", containing="msg=%s failed", count=1)
    assert request.url == "http://logs.example.com:8080/in"
    recording.expect_log(level="error", logger="shop", containing="shop.charge failed: declined")


def test_a_handler_that_catches_what_httpx_raises(app: Celery, celery_signals: CelerySignals) -> None:
    @signals.task_failure.connect(weak=False)
    def capture(sender, exception, **_):
        try:
            with httpx.Client(timeout=2) as client:
                client.post("https://api.opsgenie.com/v2/alerts", json={"message": str(exception)})
        except httpx.HTTPError as error:
            logging.getLogger("shop").error("alert lost: %s", error)

    recording = celery_signals.run(failing(app), raises=ValueError)
    recording.expect_request("opsgenie.com", containing="declined", count=1)
    recording.expect_log(containing="alert lost")


LATE = """
import sys
from celery import Celery, signals

app = Celery("late")

@app.task
def charge():
    raise ValueError("declined")

@signals.task_failure.connect(weak=False)
def alert(exception, **_):
    import CLIENT
    assert ours
    CLIENT.post("https://api.opsgenie.com/v2/alerts", json={"message": str(exception)})

ours = "CLIENT" not in sys.modules

def test_late(celery_signals):
    recording = celery_signals.run(charge.s(), raises=ValueError, handler_errors="record")
    recording.expect_request("opsgenie.com", containing="declined", count=1)
"""


@pytest.mark.parametrize("client", ["httpx", "requests"])
def test_a_client_that_the_handler_imports(
    client: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(LATE.replace("CLIENT", client))
    pytester.runpytest_subprocess("-p", "celery_health", timeout=60).assert_outcomes(passed=1)


def test_a_refused_handler_says_what_to_do(app: Celery, celery_signals: CelerySignals) -> None:
    @signals.task_failure.connect(weak=False)
    def alert(**_):
        requests.post(HOOK, json=BODY)

    with pytest.raises(HandlerError) as failed:
        celery_signals.run(failing(app), raises=ValueError)
    assert "raised ConnectionError: refused: hooks.slack.com:443 is not on this machine" in str(failed.value)
    assert "mock an answer, or have the handler catch the error" in str(failed.value)


def test_a_handler_that_would_hang_is_refused_at_once(app: Celery, celery_signals: CelerySignals) -> None:
    @signals.task_failure.connect(weak=False)
    def alert(**_):
        socket.create_connection(("10.255.255.1", 80))

    begun = time.monotonic()
    with pytest.raises(HandlerError, match=r"refused: 10\.255\.255\.1:80"):
        celery_signals.run(failing(app), raises=ValueError)
    assert time.monotonic() - begun < 1


def test_a_silent_server_on_this_machine_is_not_waited_for_without_end(
    app: Celery, celery_signals: CelerySignals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_celery_health.record.in_process._PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"

        @signals.task_failure.connect(weak=False)
        def alert(**_):
            requests.post(url, json=BODY)

        with pytest.raises(HandlerError, match="raised ReadTimeout"):
            celery_signals.run(failing(app), raises=ValueError)


def test_a_thread_that_outlives_the_run_reaches_nobody(app: Celery, celery_signals: CelerySignals) -> None:
    client = SentryLike("https://o1.ingest.sentry.io/api/1/envelope/")
    celery_signals.run(failing(app), raises=ValueError)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("o1.ingest.sentry.io", 443))
    client.events.put({})
    client.events.join()
