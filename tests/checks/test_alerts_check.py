from __future__ import annotations

import pytest

from pytest_celery_health import AlertsReach, AskDrills, Drilled, Ending, Output, Snapshot, Unseen, judge
from pytest_celery_health.checks.alerts import DEATHS, OTHERS, POOLS
from pytest_celery_health.sandbox.drills import ends

SLACK = "hooks.slack.com"
POSTED = Output("request", SLACK)
LOGGED = Output("log", "shop.signals", 2)
COUNTED = Output("metric", "tasks_failed_total")


def verdict(*endings, must_reach, **fields):
    fields.setdefault("ends", ())
    seen = Drilled(endings, fields.get("task", ""), fields.get("pool", ""))
    return judge(AlertsReach(must_reach, **fields), Snapshot(seen))


def test_an_end_that_reaches_whom_it_must():
    found = verdict(Ending("raises", outputs=(POSTED, LOGGED)), must_reach={SLACK: ("raises",)})
    assert (found.healthy, found.message()) == (True, "1 of 1 alert arrived")
    assert found.findings[-1].figures == {"raises.reaches": f"{SLACK}, log"}


@pytest.mark.parametrize(
    ("output", "wanted", "fits"),
    [
        (POSTED, "slack.com", True),
        (POSTED, "lack.com", False),
        (POSTED, "log", False),
        (LOGGED, "log", True),
        (LOGGED, "log:shop", True),
        (LOGGED, "log:shop.signals", True),
        (LOGGED, "log:sho", False),
        (COUNTED, "metric", True),
        (COUNTED, "metric:tasks_failed", True),
        (COUNTED, "metric:tasks_failed_total", True),
        (COUNTED, "metric:tasks", False),
    ],
)
def test_what_an_output_is_called(output, wanted, fits):
    assert verdict(Ending("raises", outputs=(output,)), must_reach={wanted: ("raises",)}).healthy is fits


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        (
            Ending("unregistered", outputs=(LOGGED,)),
            f"unregistered never reaches {SLACK}, only log; wanted an alert to {SLACK}",
        ),
        (Ending("unregistered"), f"unregistered is heard of by nobody; wanted an alert to {SLACK}"),
        (
            Ending("unregistered", outputs=(Output("request", SLACK, 1, "HTTP 500"),)),
            f"unregistered never reaches {SLACK}: HTTP 500; wanted an alert to {SLACK}",
        ),
        (
            Ending("unregistered", errors=("a:alert on task_unknown raised KeyError: 'x'", "b:b raised 1")),
            f"unregistered is heard of by nobody; wanted an alert to {SLACK}"
            " (meanwhile a:alert on task_unknown raised KeyError: 'x', and 1 other error)",
        ),
    ],
)
def test_an_end_that_does_not(ending, message):
    found = verdict(ending, must_reach={SLACK: ("unregistered",)})
    assert (found.unhealthy, found.message()) == (True, message)


@pytest.mark.parametrize(
    "ending",
    [
        Ending("raises", unseen="raises: saw no signal"),
        Ending("raises", impossible="raises: saw no signal"),
    ],
)
def test_an_end_that_was_not_reached_is_unknown(ending):
    found = verdict(ending, must_reach={SLACK: ("raises",)})
    assert (found.unknown, found.message()) == (True, "cannot tell: raises: saw no signal")


def test_what_nobody_hears_of_is_a_warning():
    found = verdict(
        Ending("raises", outputs=(POSTED,)),
        Ending("expired"),
        Ending("poison_pill", unseen="poison_pill: waited in vain"),
        Ending("soft_shutdown", impossible="this is Celery 5.4"),
        must_reach={SLACK: ("raises",)},
        ends=DEATHS,
    )
    assert found.healthy
    assert [warning.line() for warning in found.warnings] == [
        "expired is heard of by nobody",
        "poison_pill was not seen: poison_pill: waited in vain",
    ]


def test_the_table_has_a_row_for_each_end_and_a_column_for_each_output():
    found = verdict(
        Ending("raises", outputs=(POSTED, LOGGED, Output("request", "events.pagerduty.com"))),
        Ending("expired", errors=("a:b raised 1",)),
        Ending("worker_lost", unseen="late"),
        Ending("soft_shutdown", impossible="this is Celery 5.4"),
        must_reach={"slack.com": ("raises", "expired")},
        ends=DEATHS,
    )
    assert found.table == (
        ("end", "slack.com", "events.pagerduty.com", "log", "metric", "handlers' errors"),
        ("raises", "1", "1", "2", "-", ""),
        ("expired", "MISSING", "-", "-", "-", "1"),
        ("worker_lost", "?", "?", "?", "?", ""),
        ("soft_shutdown", "n/a", "n/a", "n/a", "n/a", ""),
    )


def test_drills_of_another_task_or_of_no_app():
    check = AlertsReach({"log": ("raises",)}, task="shop.pay")
    assert judge(check, Snapshot(Drilled((Ending("raises", outputs=(LOGGED,)),)))).unknown
    found = judge(check, Snapshot(unseen={Drilled: Unseen("shop failed to load")}))
    assert found.message() == "cannot tell: shop failed to load (alerts)"


def test_it_asks_for_what_must_reach_and_what_is_shown():
    (ask,) = AlertsReach({"log": ("a.b:END", "retry")}, ends=("expired", "raises"), pool="solo").asks()
    assert ask == AskDrills(("raises", "expired", "retry", "a.b:END"), pool="solo")
    assert ask.joined(AskDrills(("raises", "reject"), pool="solo")) == AskDrills(
        ("raises", "expired", "retry", "a.b:END", "reject"), pool="solo"
    )
    assert ask.joined(AskDrills(("raises",))) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"must_reach": {}}, "must_reach is empty"),
        ({"must_reach": {SLACK: ()}}, f'must_reach has no end for "{SLACK}"; write ["raises"'),
        ({"must_reach": {"https://hooks.slack.com/x": ("raises",)}}, "write a host such as"),
        ({"must_reach": {"log:": ("raises",)}}, "write a host such as"),
        (
            {"must_reach": {SLACK: ("raise",)}},
            'must_reach has "raise", which is no end of a drill; did you mean',
        ),
        ({"must_reach": {SLACK: ("raises",)}, "ends": ("dies",)}, 'ends has "dies"'),
        ({"must_reach": {SLACK: ("raises",)}, "pool": "gevent"}, 'pool is "gevent"; drills know prefork'),
    ],
)
def test_what_no_contract_can_mean(fields, message):
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        AlertsReach(**fields)


def test_every_end_of_a_drill_is_a_death_or_not():
    assert {*DEATHS, *OTHERS} == {*ends.ENDS}
    assert POOLS == ends.POOLS
