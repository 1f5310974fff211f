from __future__ import annotations

import pytest

from pytest_celery_health import Entry, Schedule, ScheduleRuns, Snapshot, Unseen, Worker, Workers, judge

W1 = Workers((Worker("w1", queues=("default",)),))


def verdict(*entries, check=None, workers=W1):
    return judge(check or ScheduleRuns(), Snapshot(workers, Schedule(entries)))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            Entry("nightly", "shop.gone", registered=False, queue="default"),
            "shop.gone is no task of the app, and entry nightly sends it; wanted a task that it has",
        ),
        (Entry("nightly", "", registered=False), "entry nightly names no task; wanted a task"),
        (
            Entry("nightly", "shop.report", queue="default", problem="missing 'day'"),
            "entry nightly does not fit shop.report: missing 'day'; wanted fitting arguments",
        ),
        (
            Entry(
                "nightly",
                "shop.report",
                registered=False,
                malformed="has no schedule",
                wanted="seconds or crontab",
            ),
            "entry nightly has no schedule; wanted seconds or crontab",
        ),
        (
            Entry("nightly", "shop.report", queue="reports"),
            "reports is consumed by no worker, and entry nightly sends shop.report to it; wanted a consumer",
        ),
        (
            Entry("nightly", "shop.report", exchange="ex", routing_key="orphan", bound=()),
            "exchange ex has no queue for orphan, and entry nightly sends shop.report to it;"
            " wanted a queue bound to it",
        ),
        (
            Entry("nightly", "shop.report", exchange="ex", routing_key="k", bound=("q1", "q2")),
            "q1, q2 are consumed by no worker, and entry nightly sends shop.report to them;"
            " wanted a consumer",
        ),
    ],
)
def test_entry_that_cannot_run(entry, message):
    """An entry whose task is missing, does not fit or is never consumed is unhealthy."""
    found = verdict(Entry("good", "shop.beat", queue="default"), entry)
    assert (found.unhealthy, found.message()) == (True, message)


def test_schedule_that_runs():
    """Every entry is a finding of its own."""
    found = verdict(
        Entry("beat", "shop.beat", queue="default"),
        Entry("report", "shop.report", exchange="ex", routing_key="k", bound=("audit", "default")),
    )
    assert found.healthy
    assert [finding.line() for finding in found.findings] == [
        "entry beat sends shop.beat to default, consumed by w1; wanted a consumed queue",
        "entry report sends shop.report to default, consumed by w1; wanted a consumed queue",
    ]


def test_named_entries():
    """Only the entries named are judged, and a name that is not in the schedule is unhealthy."""
    entries = Entry("beat", "shop.beat", queue="default"), Entry("bad", "shop.gone", registered=False)
    assert verdict(*entries, check=ScheduleRuns(entries=("beat",))).healthy
    assert verdict(*entries, check=ScheduleRuns(entries=("baet",))).message() == (
        "baet is not in the schedule; wanted an entry (entries: bad, beat)"
    )


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (Snapshot(W1, Schedule()), "cannot tell: the app's schedule is empty"),
        (Snapshot(W1), "cannot tell: it was not looked at (schedule)"),
        (
            Snapshot(W1, unseen={Schedule: Unseen("its entries are in django_celery_beat's table")}),
            "cannot tell: its entries are in django_celery_beat's table (schedule)",
        ),
        (
            Snapshot(Schedule((Entry("e", "t", queue="q"),)), unseen={Workers: Unseen("connection refused")}),
            "cannot tell: entry e: connection refused",
        ),
        (
            Snapshot(W1, Schedule((Entry("e", "t"),))),
            "cannot tell: entry e: where t is sent is not known without sending it",
        ),
        (
            Snapshot(W1, Schedule((Entry("e", "t", exchange="ex", routing_key="k", bound=Unseen("why")),))),
            "cannot tell: entry e: sends t to exchange ex with k, to which the app binds no queue: why",
        ),
    ],
)
def test_unknown(seen, message):
    """An empty schedule proves nothing, and what was not seen is not healthy."""
    found = judge(ScheduleRuns(), seen)
    assert (found.unknown, found.message()) == (True, message)
