from __future__ import annotations

import math

import pytest

from pytest_celery_health import (
    AskMetrics,
    Count,
    Counted,
    Gauged,
    MetricsScraped,
    Sample,
    Scraped,
    Snapshot,
    Unseen,
    Verdict,
    judge,
)
from pytest_celery_health.checks.metrics import COUNTABLE
from pytest_celery_health.facts.metrics import BROKER_GONE, DRAINED, FILLED
from pytest_celery_health.sandbox.drills.ends import ENDS

URL = "http://127.0.0.1:9808/metrics"
FAILED = "tasks_failed_total"
CHILD_1, CHILD_2, MAIN = Count("child", 11, 1), Count("child", 12, 1), Count("main", 10, 2)


def counted(scrape: str = "worker", *, errors: tuple[str, ...] = (), **fields) -> Verdict:
    check = MetricsScraped(scrape, counts={FAILED: ("raises",)})
    fields = {"tasks": {"raises": 2}, "counts": (CHILD_1, CHILD_2), **fields}
    return judge(check, Snapshot(Scraped(check.plan, (Counted(FAILED, **fields),), errors=errors)))


def gauged(*steps: Gauged, **fields) -> Verdict:
    check = MetricsScraped(**{"scrape": "worker", "gauge": "depth", "collector": "shop.measure", **fields})
    return judge(check, Snapshot(Scraped(check.plan, gauged=steps)))


def step(kind: str, *values: float, queue: str = "default", **fields) -> Gauged:
    shown = tuple(Sample({"queue": queue, "pid": str(index)}, value) for index, value in enumerate(values))
    return Gauged(kind, {"default": 10}, shown, **fields)


# What handlers count.


def test_what_is_counted_is_seen():
    found = counted(shown=2)
    assert found.healthy
    assert found.message() == f"{FAILED} shows all 2 in the scrape of the worker's main process"
    assert found.findings[0].figures == {f"{FAILED}.shown": 2}


@pytest.mark.parametrize(
    ("scrape", "place"),
    [
        ("worker", "the scrape of the worker's main process"),
        ("multiprocess", "the scrape of PROMETHEUS_MULTIPROC_DIR"),
        (URL, f"the scrape of {URL}"),
        ("call:shop.web:metrics", "what shop.web:metrics returns"),
        ("push:gateway:9091", "what was pushed to gateway:9091"),
    ],
)
def test_what_is_counted_and_not_seen(scrape, place):
    assert counted(scrape).message() == (
        f"{FAILED} is not in {place}, though it was counted twice in 2 pool children; wanted 2"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"shown": 1, "errors": ("a:serve on worker_process_init raised OSError: in use", "b", "c")},
            "shows 1 more in the scrape of the worker's main process, though it was counted twice in 2 pool"
            " children; wanted 2 (meanwhile a:serve on worker_process_init raised OSError: in use,"
            " and 2 other errors)",
        ),
        (
            {"shown": 2, "counts": (CHILD_1, MAIN)},
            "shows 2 more in the scrape of the worker's main process, though it was counted 3 times in 1 pool"
            " child and the main process; wanted 3",
        ),
        (
            {"shown": None, "counts": ()},
            "is not in the scrape of the worker's main process, though 2 tasks came to raises; wanted 2",
        ),
        (
            {"shown": 0, "counts": ()},
            "shows 0 more in the scrape of the worker's main process, though 2 tasks came to raises;"
            " wanted 2",
        ),
        (
            {"no_scrape": "it answers HTTP 500"},
            "was not scraped: it answers HTTP 500, though it was counted twice in 2 pool children;"
            " wanted 2 in the scrape of the worker's main process",
        ),
        (
            {"no_scrape": "it answers HTTP 500", "counts": ()},
            "was not scraped: it answers HTTP 500; wanted 2 in the scrape of the worker's main process",
        ),
        (
            {"shown": 2, "tasks": {"raises": 2, "revoked_before": 2}, "silent": ("revoked_before",)},
            "counts no task that comes to revoked_before; wanted a count of each",
        ),
    ],
)
def test_what_is_wrong_with_a_count(fields, message):
    found = counted(**fields)
    assert found.unhealthy
    assert found.message() == f"{FAILED} {message}"


def test_a_registry_that_nobody_overhears_is_judged_by_the_tasks():
    assert counted(shown=2, counts=()).healthy


def test_an_end_that_was_not_reached_is_unknown():
    found = counted(tasks={}, counts=(), unseen={"raises": "raises: saw no signal"})
    assert (found.unknown, found.message()) == (True, "cannot tell: raises: saw no signal")


# What a collector measures.

FULL, EMPTY, GONE = step(FILLED, 10), step(DRAINED, 0), step(BROKER_GONE, math.nan)


@pytest.mark.parametrize(
    "gone",
    [
        GONE,
        step(BROKER_GONE),
        step(BROKER_GONE, -1),
        step(BROKER_GONE, no_scrape="it answers HTTP 500"),
    ],
)
def test_a_gauge_that_follows_its_queue(gone):
    found = gauged(FULL, EMPTY, gone)
    assert found.healthy
    assert found.message() == "depth follows default, full and empty, and tells when the broker is gone"
    assert found.findings[-1].figures['depth{queue="default"}.filled'] == "10"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            step(FILLED, 3, first={"default": 3}),
            "depth shows 3 for default with 10 messages in it; wanted 10"
            " (3 messages of them have the priority 0)",
        ),
        (
            step(FILLED, 7, set_in=("child",)),
            "depth shows 7 for default with 10 messages in it; wanted 10 (it was set in a pool child)",
        ),
        (
            step(DRAINED, 10),
            "depth shows 10 for default after it was drained; wanted 0 (shop.measure did not set it)",
        ),
        (
            step(DRAINED, 0, 10),
            "depth shows 10 and 0 for default after it was drained; wanted 0 (one value of each process)",
        ),
        (
            step(FILLED, set_in=("child",)),
            "depth is not in the scrape of the worker's main process, though it was set in a pool child;"
            " wanted 10, with as many messages in default",
        ),
        (
            step(FILLED, ended="raised KeyError: 'x'"),
            "depth is not in the scrape of the worker's main process after a run of shop.measure, which was"
            " seen to set it nowhere; wanted 10, with as many messages in default"
            " (shop.measure raised KeyError: 'x')",
        ),
        (
            step(FILLED, 10, queue="other"),
            "depth has no value of queue for default in the scrape of the worker's main process, with"
            " the labels pid and queue; wanted 10, with as many messages in default",
        ),
        (
            step(DRAINED, no_scrape="it answers HTTP 500"),
            "depth was not scraped: it answers HTTP 500; wanted the scrape of the worker's main process",
        ),
        (
            step(BROKER_GONE, 0),
            "depth shows 0 for default with the broker gone; wanted NaN, nothing, or a metric"
            " `freshness` that tells it",
        ),
        (
            step(BROKER_GONE, 10, ended="raised OSError: gone"),
            "depth still shows 10 for default with the broker gone; wanted NaN, nothing, or a metric"
            " `freshness` that tells it (shop.measure raised OSError: gone)",
        ),
    ],
)
def test_what_is_wrong_with_a_gauge(wrong, message):
    before = [FULL] if wrong.step != FILLED else []
    found = gauged(*before, wrong)
    assert found.unhealthy
    assert found.bad[-1].line() == message


def test_a_gauge_without_a_collector_or_a_label():
    total = Gauged(FILLED, {"": 21}, (Sample({}, 7),))
    found = gauged(total, collector="", label="")
    assert found.message() == "depth shows 7 with 21 messages in all queues; wanted 21"
    nothing = gauged(Gauged(FILLED, {"": 21}), collector="", label="")
    assert nothing.message() == (
        "depth is not in the scrape of the worker's main process; wanted 21, with as many messages"
    )


def test_a_queue_that_the_gauge_does_not_know():
    two = Gauged(FILLED, {"default": 10, "late": 11}, (Sample({"queue": "default"}, 10),))
    line = (
        "depth has no value for late in the scrape of the worker's main process,"
        " with 11 messages in it; wanted 11"
    )
    assert [warning.line() for warning in gauged(two).warnings] == [line]
    assert gauged(two).healthy
    assert gauged(two, queues=("default", "late")).message() == line


def test_a_series_that_goes_with_its_queue_is_a_warning():
    found = gauged(FULL, step(DRAINED), GONE)
    assert found.healthy
    assert [warning.line() for warning in found.warnings] == [
        "depth has no value for default any more in the scrape of the worker's main process after it was"
        " drained; wanted 0"
    ]


@pytest.mark.parametrize(
    ("told", "healthy"),
    [
        ((1.0, 2.0, 2.0), True),  # the time of the last success
        ((0.0, 0.0, 1.0), True),  # a count of failures
        ((1.0, 1.0, 0.0), True),  # whether the broker answers
        ((None, None, 1.0), True),
        ((1.0, 2.0, 3.0), False),  # a count of runs
        ((1.0, 1.0, 1.0), False),
        ((None, None, None), False),
    ],
)
def test_a_metric_that_tells_that_the_gauge_is_old(told, healthy):
    with_broker, drained, gone = told
    found = gauged(
        step(FILLED, 10, told=with_broker),
        step(DRAINED, 0, told=drained),
        step(BROKER_GONE, 0, told=gone),
        freshness="updated",
    )
    assert found.healthy is healthy
    if not healthy:
        assert "(updated does not tell)" in found.message()


def test_the_table_has_a_row_for_each_metric_and_moment():
    check = MetricsScraped("worker", counts={FAILED: ("raises",)}, gauge="depth")
    count = Counted(FAILED, {"raises": 2}, (CHILD_1, CHILD_2), shown=1)
    unheard = Counted("x_total", {"raises": 2})
    seen = Snapshot(Scraped(check.plan, (count, unheard), (step(FILLED, 3, set_in=("child",)), EMPTY, GONE)))
    assert judge(check, seen).table == (
        ("metric", "when", "set in", "scrape shows", "wanted"),
        (FAILED, "2 x raises", "2 pool children", "1", "2"),
        ("x_total", "2 x raises", "nowhere seen", "-", "2"),
        ('depth{queue="default"}', "10 messages", "child", "3", "10"),
        ('depth{queue="default"}', "drained", "-", "0", "0"),
        ('depth{queue="default"}', "broker gone", "-", "nan", "no number"),
    )


def test_a_scrape_by_another_plan_or_of_no_app():
    check = MetricsScraped("worker", gauge="depth")
    other = MetricsScraped("multiprocess", gauge="depth")
    assert judge(check, Snapshot(Scraped(other.plan))).unknown
    found = judge(check, Snapshot(unseen={Scraped: Unseen("shop failed to load")}))
    assert found.message() == "cannot tell: metrics: shop failed to load"
    assert list(check.asks()) == [AskMetrics(check.plan)]
    assert AskMetrics(check.plan).joined(AskMetrics(other.plan)) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"scrape": "here", "gauge": "x"},
            'scrape is "here"; write "http://127.0.0.1:PORT/metrics", "worker"',
        ),
        ({"scrape": "call:shop", "gauge": "x"}, 'scrape is "call:shop"; write'),
        ({"scrape": "push:https://gateway", "gauge": "x"}, 'scrape is "push:https://gateway"; write'),
        ({"scrape": "http://gateway:9091/metrics", "gauge": "x"}, 'or "push:gateway" for a Pushgateway'),
        ({"scrape": "http://127.0.0.1/metrics", "gauge": "x"}, "with its port"),
        ({"scrape": "http://127.0.0.1:x/metrics", "gauge": "x"}, "with its port"),
        ({"scrape": "worker"}, "neither counts nor gauge is given"),
        ({"scrape": "worker", "collector": "x", "counts": {"x": ("raises",)}}, "collector is given without"),
        ({"scrape": "worker", "freshness": "x", "counts": {"x": ("raises",)}}, "freshness is given without"),
        ({"scrape": "worker", "counts": {"x": ()}}, 'counts has no end for "x"'),
        ({"scrape": "worker", "counts": {"x": ("raise",)}}, 'counts has "raise", .*; did you mean raises?'),
        ({"scrape": "worker", "counts": {"x": ("memory_error",)}}, "after which there is no worker left"),
        ({"scrape": "worker", "gauge": "x", "priorities": ()}, "priorities are numbers from 0 to 255"),
        ({"scrape": "worker", "gauge": "x", "priorities": (-1,)}, "priorities are numbers from 0 to 255"),
        ({"scrape": "worker", "gauge": "x", "pool": "gevent"}, 'pool is "gevent"; drills know prefork'),
        ({"scrape": "worker", "gauge": "x", "within": 0}, "within is 0"),
    ],
)
def test_what_no_contract_can_mean(fields, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        MetricsScraped(**fields)


def test_an_end_of_ones_own_can_be_counted():
    assert MetricsScraped("worker", counts={"x": ("shop.drills:OUT_OF_STOCK",)}).plan.counts == (
        ("x", ("shop.drills:OUT_OF_STOCK",)),
    )


def test_what_can_be_counted_leaves_the_worker_whole():
    survived = {
        name
        for name, end in ENDS.items()
        if not end.fresh and "prefork" not in (*end.breaks, *end.forgotten) and name != "worker_starts"
    }
    assert {*COUNTABLE} == survived
