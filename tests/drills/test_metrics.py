"""Metrics of a real worker where they are scraped: mistakes are red for their reason, the rest is green."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_celery_health import MetricsScraped, Snapshot, Verdict, judge
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import SandboxError
from pytest_celery_health.sandbox.drills.crew import Drills
from pytest_celery_health.sandbox.drills.metrics import scraped
from pytest_celery_health.sandbox.spec import SandboxSpec
from tests.drills.conftest import TINY

QUEUES = ("celery", "payments")
COUNTS = """
    from celery import signals
    from prometheus_client import Counter, Gauge, start_http_server

    FAILED = Counter("tasks_failed", "Failed tasks", ["task"])

    @signals.task_failure.connect(weak=False)
    def count(sender, **_):
        FAILED.labels(sender.name).inc()
"""
MEASURES = """
import math
from prometheus_client import Gauge

MESSAGES = Gauge("queue_messages", "Ready messages", ["queue"]{mode})

@app.task(name="tiny.measure")
def measure():
    try:
        with app.connection_for_read() as connection:
            channel = connection.default_channel
            for name in ("celery", "payments"):
{body}
    except Exception:
        {failed}
        raise
"""
RIGHT = "MESSAGES.labels(name).set(channel._size(name))"


def code(*parts: str, **fields: str) -> str:
    text = "".join(textwrap.dedent(part) for part in parts)
    for name, value in fields.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def measures(body: str = RIGHT, mode: str = "", failed: str = "pass") -> str:
    return code(MEASURES, body=textwrap.indent(textwrap.dedent(body), " " * 16), mode=mode, failed=failed)


Verdicts = Callable[..., Verdict]


@pytest.fixture
def verdict(tmp_path: Path) -> Verdicts:
    """Of an app of one module, scraped in a worker of its own."""

    def of(text: str, scrape: str, *, broker: str = "", pool: str = "prefork", **fields: object) -> Verdict:
        (tmp_path / "tiny.py").write_text(TINY + text)
        check = MetricsScraped(scrape, **fields)  # type: ignore[arg-type]
        spec = SandboxSpec(broker=broker, pool=pool, start_within=90.0)
        crew = Drills(spec, AppSpec("tiny:app", tmp_path))
        found = scraped(crew, check.plan)
        return judge(check, Snapshot(found))

    return of


def gauge(verdict: Verdicts, text: str, scrape: str = "multiprocess", **fields: object) -> Verdict:
    fields = {"gauge": "queue_messages", "collector": "tiny.measure", "queues": QUEUES, **fields}
    return verdict(text, scrape, **fields)


def lines(found: Verdict) -> list[str]:
    return [finding.line() for finding in found.bad]


# What handlers count.


@pytest.mark.slow
def test_what_children_count_is_not_in_the_main_process(verdict: Verdicts) -> None:
    counts = {"tasks_failed_total": ("raises", "worker_lost")}
    found = verdict(code(COUNTS), "worker", counts=counts)
    assert lines(found) == [
        "tasks_failed_total shows 2 more in the scrape of the worker's main process, though it was counted"
        " 4 times in 2 pool children and the main process; wanted 4"
    ]


@pytest.mark.slow
def test_what_children_count_alone_is_nowhere(verdict: Verdicts) -> None:
    found = verdict(code(COUNTS), "worker", counts={"tasks_failed": ("raises",)})
    assert found.message() == (
        "tasks_failed is not in the scrape of the worker's main process, though it was counted twice in"
        " 2 pool children; wanted 2"
    )


@pytest.mark.slow
def test_what_children_count_is_in_their_files(verdict: Verdicts) -> None:
    counts = {"tasks_failed_total": ("raises", "worker_lost", "soft_time_limit")}
    found = verdict(code(COUNTS), "multiprocess", counts=counts)
    assert found.message() == "tasks_failed_total shows all 6 in the scrape of PROMETHEUS_MULTIPROC_DIR"


@pytest.mark.slow
def test_every_child_wants_the_port(verdict: Verdicts) -> None:
    serve = """
        @signals.worker_process_init.connect(weak=False)
        def serve(**_):
            start_http_server(9464, addr="127.0.0.1")
    """
    url = "http://127.0.0.1:9464/metrics"
    found = verdict(code(COUNTS, serve), url, counts={"tasks_failed_total": ("raises",)})
    assert found.message() == (
        f"tasks_failed_total shows 1 more in the scrape of {url}, though it was counted twice in"
        " 2 pool children; wanted 2 (meanwhile tiny:serve on worker_process_init raised OSError:"
        f" [Errno {errno.EADDRINUSE}] Address already in use)"
    )


@pytest.mark.slow
def test_nobody_listens(verdict: Verdicts) -> None:
    url = "http://127.0.0.1:9464/metrics"
    found = verdict(code(COUNTS), url, counts={"tasks_failed_total": ("raises",)})
    assert found.message() == (
        f"tasks_failed_total was not scraped: nothing in the worker listens at {url}, though it was counted"
        f" twice in 2 pool children; wanted 2 in the scrape of {url}"
    )


@pytest.mark.slow
def test_an_end_that_is_counted_by_nobody(verdict: Verdicts) -> None:
    found = verdict(
        code(COUNTS),
        "multiprocess",
        counts={"tasks_failed_total": ("raises", "unregistered", "revoked_before")},
    )
    assert found.message() == (
        "tasks_failed_total counts no task that comes to unregistered or revoked_before;"
        " wanted a count of each"
    )


@pytest.mark.slow
def test_a_metric_that_is_not_there(verdict: Verdicts) -> None:
    found = verdict(code(COUNTS), "multiprocess", counts={"failures_total": ("raises",)})
    assert found.message() == (
        "failures_total is not in the scrape of PROMETHEUS_MULTIPROC_DIR, though 2 tasks came to raises;"
        " wanted 2"
    )


@pytest.mark.slow
def test_a_push_that_the_gateway_groups_wrongly(verdict: Verdicts) -> None:
    """Each process replaces what the others pushed."""
    push = """
        from prometheus_client import REGISTRY, push_to_gateway

        @signals.task_failure.connect(weak=False)
        def push(**_):
            push_to_gateway("gateway:9091", job="worker", registry=REGISTRY, timeout=1)
    """
    found = verdict(code(COUNTS, push), "push:gateway:9091", counts={"tasks_failed_total": ("raises",)})
    assert found.message() == (
        "tasks_failed_total shows 1 more in what was pushed to gateway:9091, though it was counted twice in"
        " 2 pool children; wanted 2"
    )


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_one_process_is_scraped(verdict: Verdicts, pool: str) -> None:
    text = code(COUNTS) + measures(failed="MESSAGES.clear()")
    found = gauge(verdict, text, "worker", pool=pool, counts={"tasks_failed_total": ("raises",)})
    assert found.healthy, found


# What a collector measures.


@pytest.mark.slow
def test_a_gauge_that_is_set_in_a_child_alone(verdict: Verdicts) -> None:
    found = gauge(verdict, measures(), "worker")
    assert lines(found) == [
        "queue_messages is not in the scrape of the worker's main process, though it was set in a pool child;"
        " wanted 11, with as many messages in celery, payments"
    ]


@pytest.mark.slow
def test_one_list_of_a_queue_is_not_the_queue(verdict: Verdicts) -> None:
    body = "MESSAGES.labels(name).set(channel.client.llen(name))"
    found = gauge(verdict, measures(body, ', multiprocess_mode="mostrecent"'))
    assert lines(found)[0] == (
        "queue_messages shows 3 for celery with 10 messages in it; wanted 10"
        " (3 messages of them have the priority 0)"
    )


@pytest.mark.slow
def test_one_list_is_all_of_a_queue_without_priorities(verdict: Verdicts) -> None:
    body = "MESSAGES.labels(name).set(channel.client.llen(name))"
    found = gauge(verdict, measures(body, ', multiprocess_mode="mostrecent"'), priorities=(0,))
    assert {finding.seen for finding in found.bad} == {
        f"still shows 0 for {queue} with the broker gone" for queue in ("celery", "payments")
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "seen"),
    [
        ("", "shows 10 and 0 for celery after it was drained"),
        (', multiprocess_mode="sum"', "shows 10 for celery after it was drained"),
        (', multiprocess_mode="livemax"', "shows 10 for celery after it was drained"),
    ],
)
def test_the_other_childs_old_value(verdict: Verdicts, mode: str, seen: str) -> None:
    found = gauge(verdict, measures(mode=mode))
    assert lines(found)[0].startswith(f"queue_messages {seen}; wanted 0")


@pytest.mark.slow
def test_an_empty_queue_is_no_error(verdict: Verdicts) -> None:
    """Redis keeps no key of an empty queue: a passive declare raises 404."""
    body = """
        try:
            declared = channel.queue_declare(name, passive=True)
            MESSAGES.labels(name).set(declared.message_count)
        except Exception:
            pass
    """
    found = gauge(verdict, measures(body, ', multiprocess_mode="mostrecent"'))
    assert lines(found)[0] == (
        "queue_messages shows 10 for celery after it was drained; wanted 0 (tiny.measure did not set it)"
    )


@pytest.mark.slow
def test_a_gauge_that_nobody_sets(verdict: Verdicts) -> None:
    found = gauge(verdict, measures("raise KeyError(name)"))
    assert found.message().startswith(
        "queue_messages is not in the scrape of PROMETHEUS_MULTIPROC_DIR after a run of tiny.measure,"
        " which was seen to set it nowhere; wanted 11, with as many messages in celery, payments"
        " (tiny.measure raised "
    )


@pytest.mark.slow
def test_a_collector_that_does_not_come_back(verdict: Verdicts) -> None:
    found = gauge(verdict, measures("import time; time.sleep(30)"), within=1.5)
    assert found.message().endswith("(tiny.measure had not come back after 1.5 s)")


@pytest.mark.slow
def test_another_label(verdict: Verdicts) -> None:
    found = gauge(verdict, measures(mode=', multiprocess_mode="mostrecent"'), label="queue_name")
    assert found.message() == (
        "queue_messages has no value of queue_name for celery, payments in the scrape of"
        " PROMETHEUS_MULTIPROC_DIR, with the labels queue; wanted 11, with as many messages in"
        " celery, payments"
    )


@pytest.mark.slow
def test_a_queue_that_is_missing_from_the_gauge(verdict: Verdicts) -> None:
    text = measures(mode=', multiprocess_mode="mostrecent"').replace('("celery", "payments")', '("celery",)')
    found = gauge(verdict, text)
    assert (
        "queue_messages has no value for payments in the scrape of PROMETHEUS_MULTIPROC_DIR,"
        " with 11 messages in it; wanted 11"
    ) in lines(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "freshness", "healthy"),
    [
        ("UPDATED.set_to_current_time()", "updated", True),
        ("UPDATED.set_to_current_time()", "", False),
        ("pass", "updated", False),
    ],
)
def test_a_metric_that_tells_that_the_gauge_is_old(
    verdict: Verdicts, more: str, freshness: str, healthy: bool
) -> None:
    text = measures(mode=', multiprocess_mode="mostrecent"')
    text = text.replace("    except", f"        {more}\n    except")
    text += "\nUPDATED = Gauge('updated', 'x', multiprocess_mode='mostrecent')\n"
    found = gauge(verdict, text, freshness=freshness)
    assert found.healthy is healthy, found
    if not healthy:
        told = "updated does not tell; " if freshness else ""
        assert lines(found)[0].startswith(
            "queue_messages still shows 0 for celery with the broker gone; wanted NaN, nothing, or a"
            f" metric `freshness` that tells it ({told}tiny.measure raised "
        )


@pytest.mark.slow
def test_a_sum_of_all_queues(verdict: Verdicts) -> None:
    text = """
        from prometheus_client import Gauge

        TOTAL = Gauge("backlog", "Ready messages", multiprocess_mode="mostrecent")

        @app.task(name="tiny.measure")
        def measure():
            total = float("nan")
            try:
                with app.connection_for_read() as connection:
                    total = sum(connection.default_channel._size(name) for name in ("celery", "payments"))
            finally:
                TOTAL.set(total)
    """
    found = gauge(verdict, code(text), gauge="backlog", label="", queues=())
    assert found.message() == "backlog follows all queues, full and empty, and tells when the broker is gone"


# What cannot be tried.


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        (
            measures(),
            {"collector": "tiny.mesure"},
            "the app has no task 'tiny.mesure'; did you mean 'tiny.measure'?",
        ),
        pytest.param(
            "\nimport os\nos.environ['PROMETHEUS_MULTIPROC_DIR'] = '.'\n" + measures(),
            {},
            "the app sets PROMETHEUS_MULTIPROC_DIR itself",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_is_not_there(verdict: Verdicts, text: str, fields: dict[str, str], message: str) -> None:
    with pytest.raises(SandboxError, match=message.replace("?", r"\?")):
        gauge(verdict, text, **fields)


@pytest.mark.slow
def test_without_the_library_that_reads_scrapes(verdict: Verdicts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)  # as if it were not installed
    assert importlib.util.find_spec("prometheus_client") is None
    with pytest.raises(SandboxError, match=r"prometheus_client, .* is not installed here; pip install prom"):
        gauge(verdict, "", collector="tiny.pay")


# The files of the project's own processes.


@pytest.mark.slow
def test_the_projects_own_files_are_left_alone(
    verdict: Verdicts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(own))
    assert verdict(code(COUNTS), "multiprocess", counts={"tasks_failed_total": ("raises",)}).healthy
    assert os.listdir(own) == []


# Another broker.


@pytest.mark.slow
@pytest.mark.parametrize("stale", [False, True])
def test_queues_of_rabbitmq(verdict: Verdicts, stale: bool) -> None:
    if not shutil.which("rabbitmq-server"):
        pytest.skip("no rabbitmq-server on the PATH")
    text = """
        import math
        from kombu import Queue
        from prometheus_client import Gauge

        QUORUM = {"x-queue-type": "quorum"}
        app.conf.task_queues = [Queue("celery", max_priority=10), Queue("payments", queue_arguments=QUORUM)]
        MESSAGES = Gauge("queue_messages", "Ready messages", ["queue"], multiprocess_mode="mostrecent")

        @app.task(name="tiny.measure", acks_late=True)
        def measure():
            for name in ("celery", "payments"):
                try:
                    with app.connection_for_read() as connection:
                        declared = connection.default_channel.queue_declare(name, passive=True)
                        MESSAGES.labels(name).set(declared.message_count)
                except Exception:
                    {stale}
    """
    text = code(text, stale="pass" if stale else "MESSAGES.labels(name).set(math.nan)")
    found = gauge(verdict, text, broker="rabbitmq-server")
    if stale:
        assert {finding.seen for finding in found.bad} == {
            f"still shows 0 for {queue} with the broker gone" for queue in ("celery", "payments")
        }
    else:
        assert found.message() == (
            "queue_messages follows celery, payments, full and empty, and tells when the broker is gone"
        )
