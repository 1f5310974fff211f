import json
import socket
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer

import fakeredis
import pytest
from shop import health, signals, tasks

from pytest_celery_health import (
    Beat,
    BeatFresh,
    QueueDepth,
    RunningTask,
    Snapshot,
    WorkersAnswer,
    judge,
)

NOON = datetime(2026, 1, 15, 12, tzinfo=timezone.utc)


@pytest.mark.celery_health(WorkersAnswer(at_least=2), QueueDepth("default", ready_below=1000))
def test_ready_for_traffic(celery_health):
    celery_health.expect(BeatFresh(within="2min"))


def test_stale_beat_is_unhealthy():
    seen = Snapshot(Beat(last_seen=NOON), now=NOON + timedelta(seconds=121))
    assert not judge(BeatFresh(within="2min"), seen).healthy


@pytest.mark.parametrize(
    ("heartbeat", "healthy"),
    [
        (NOON.isoformat(), True),
        ((NOON - timedelta(seconds=121)).isoformat(), False),
        ((NOON - timedelta(days=1)).isoformat(), False),
        ((NOON + timedelta(hours=1)).isoformat(), False),
        ("2026-01-15T12:00:00", False),
        ("soon", False),
        (None, False),
    ],
)
def test_heartbeat(heartbeat, healthy):
    assert health.judge_heartbeat(heartbeat, NOON)["healthy"] is healthy


def test_finds_stuck_tasks(celery_fleet):
    slow, fast = RunningTask("shop.report", running_for=301), RunningTask("shop.pay", running_for=299)
    celery_fleet.worker("w1@sim", active=[slow])
    celery_fleet.worker("w2@sim", active=[fast])
    found = health.find_long_running_tasks(300)
    assert [(task["worker"], task["task_name"]) for task in found] == [("w1@sim", "shop.report")]


def test_frozen_workers_are_no_proof_that_nothing_is_stuck(celery_fleet):
    celery_fleet.workers(2, silent=True)
    with pytest.raises(health.NoAnswerError, match="no worker answered active"):
        health.find_long_running_tasks(300)


def test_workers_that_consume_nothing_are_unhealthy(celery_fleet):
    celery_fleet.worker("w1@sim", queues=["default", "high-priority"])
    celery_fleet.worker("w2@sim", queues=[])
    assert health.check_celery_health()["error"] == "no worker consumes low-priority"


def test_queues_are_counted_over_all_priorities(celery_fleet):
    celery_fleet.queue("default", priorities={0: 3, 9: 2})
    assert health.inspect_queues()["default"] == {"length": 5}


def test_stale_heartbeat_in_redis_is_unhealthy(celery_fleet):
    celery_fleet.heartbeat(health.HEARTBEAT_KEY, ago=125)
    assert not health.check_beat_health()["healthy"]
    celery_fleet.heartbeat(health.HEARTBEAT_KEY, ago=60)
    assert health.check_beat_health()["healthy"]


@pytest.mark.parametrize(
    ("age", "healthy"), [("119s", True), ("121s", False), ("1d", False), ("1d 10s", False), ("-1s", True)]
)
def test_heartbeat_grows_old(celery_clock, celery_signals, monkeypatch, age, healthy):
    monkeypatch.setattr(health.redis, "Redis", fakeredis.FakeRedis)
    celery_clock.freeze(NOON)
    celery_signals.run(tasks.heartbeat.s())
    celery_clock.shift(age)
    assert health.check_beat_health()["healthy"] is healthy


@pytest.fixture
def alerts(monkeypatch):
    """An alert server on loopback: what it was sent, and the status that it answers with."""

    class Server(HTTPServer):
        def __init__(self, *args):
            super().__init__(*args)
            self.received, self.status = [], 200

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.server.received.append(
                (self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            )
            self.send_response(self.server.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("SLACK_WEBHOOK_URL", f"{url}/slack")
        monkeypatch.setenv("PAGERDUTY_ROUTING_KEY", "key")
        monkeypatch.setattr(signals, "PAGERDUTY_URL", f"{url}/pagerduty")
        yield server
        server.shutdown()
        thread.join()


def test_failed_payment_is_alerted_and_paged(alerts):
    tasks.process_payment.apply(("o1", "declined"))
    assert [path for path, _ in alerts.received] == ["/slack", "/pagerduty"]
    assert "CardDeclined: order o1: declined" in alerts.received[0][1]["attachments"][0]["text"]


def test_lost_alert_is_logged_without_its_url(alerts, caplog):
    alerts.status = 500
    tasks.process_payment.apply(("o2", "declined"))
    lost = [record.getMessage() for record in caplog.records if "alert lost" in record.message]
    assert len(lost) == 2
    assert "HTTP 500" in lost[0]
    assert "/slack" not in caplog.text


def test_third_retry_is_alerted(alerts):
    tasks.import_stock.apply(("http://127.0.0.1:1/stock",))
    texts = [payload["attachments"][0]["text"] for _, payload in alerts.received]
    assert sum("retries for the 3. time" in text for text in texts) == 1
    assert sum("failed" in text for text in texts) == 1


def test_hung_broker_is_unhealthy_in_time(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        monkeypatch.setattr(health.app.conf, "broker_read_url", url)
        started = time.monotonic()
        assert not health.check_celery_health()["healthy"]
    assert time.monotonic() - started < 6
