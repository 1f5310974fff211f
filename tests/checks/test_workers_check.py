from __future__ import annotations

import re

import pytest

from pytest_celery_health import App, Snapshot, Unseen, Worker, Workers, WorkersAnswer, judge
from pytest_celery_health.outcome import Outcome

NOBODY = Workers()


def verdict(check, *workers, app=None, **fields):
    facts = (Workers(workers, **fields), *([app] if app else []))
    return judge(check, Snapshot(*facts))


def test_nobody_answers():
    """By default one worker must answer."""
    found = verdict(WorkersAnswer())
    assert found.unhealthy
    assert found.message() == (
        "no worker answered; wanted at least 1 (busy solo workers, frozen ones and dead ones all stay silent)"
    )
    assert verdict(WorkersAnswer(), Worker("w1")).healthy


def test_beat_is_not_a_worker():
    """A beat that answers ping is named, and not counted."""
    found = verdict(WorkersAnswer(), beats=("celerybeat@h",))
    assert (
        found.message() == "no worker answered; wanted at least 1 (only celerybeat@h answers, which is beat)"
    )
    found = verdict(WorkersAnswer(at_least=2), Worker("w1"), beats=("celerybeat@h",))
    assert found.message() == (
        "1 worker answered; wanted at least 2 (w1; celerybeat@h answers too, but is beat)"
    )


def test_unseen_workers():
    """A broker that could not be asked makes workers unknown, not absent."""
    seen = Snapshot(unseen={Workers: Unseen("connection refused")})
    assert judge(WorkersAnswer(), seen).message() == "cannot tell: connection refused (workers)"


def test_at_least():
    """A fleet that is too small is unhealthy; its message names who is there."""
    fleet = [Worker(f"w{n}") for n in range(1, 8)]
    assert verdict(WorkersAnswer(at_least=7), *fleet).healthy
    assert verdict(WorkersAnswer(at_least=8), *fleet).message() == (
        "7 workers answered; wanted at least 8 (w1, w2, w3, w4, w5 and 2 more)"
    )


def test_names():
    """A worker that is missing by name is unhealthy whoever else answers."""
    check = WorkersAnswer(names=("w1@h", "w2@h"))
    assert verdict(check, Worker("w1@h"), Worker("w2@h")).healthy
    assert verdict(check, Worker("w1@h"), Worker("w3@h")).message() == (
        "w2@h did not answer: busy or gone; wanted an answer (w1@h, w3@h answered)"
    )
    assert verdict(check).message() == (
        "w1@h did not answer: busy or gone; wanted an answer (no worker answered) (and 1 more)"
    )
    silent = verdict(check, Worker("w1@h"), silent=frozenset({"w2@h"}))
    assert silent.message() == "w2@h is subscribed but silent: busy or frozen; wanted an answer"


def test_two_workers_of_one_name():
    """Two workers of one name answer as one in Celery's own tools; here they are a fault."""
    found = verdict(WorkersAnswer(), Worker("w1@h", answers=2))
    assert found.message() == (
        "w1@h is the name of 2 workers; wanted one name for each (start each with -n NAME@%h)"
    )


@pytest.mark.parametrize(
    ("subscribed", "allowed", "message"),
    [
        (2, 0, ""),
        (3, 1, ""),
        (
            3,
            0,
            "1 mailbox is subscribed but silent; wanted none"
            " (a frozen worker, a busy solo worker, or a stalled beat)",
        ),
        (
            5,
            1,
            "3 mailboxes are subscribed but silent; wanted at most 1"
            " (a frozen worker, a busy solo worker, or a stalled beat)",
        ),
    ],
)
def test_silent_mailboxes(subscribed, allowed, message):
    """Where the broker counts mailboxes, one that stays silent is seen, though nobody knows its name."""
    found = verdict(
        WorkersAnswer(silent_at_most=allowed), Worker("w1"), subscribed=subscribed, beats=("celerybeat@h",)
    )
    assert found.healthy if not message else found.message() == message


def test_tasks_by_name():
    """A task must be registered on some worker, not on every one."""
    w1, w2 = Worker("w1", tasks=frozenset({"a", "b"})), Worker("w2", tasks=frozenset({"c"}))
    assert verdict(WorkersAnswer(tasks=("a", "c")), w1, w2).healthy
    assert verdict(WorkersAnswer(tasks=("a", "d")), w1, w2).message() == (
        "no worker has d registered; wanted on some worker"
        " (does the worker import the module (imports, include, autodiscover_tasks)?)"
    )
    found = verdict(WorkersAnswer(tasks=("d", "e", "f", "g")), w1, w2)
    assert found.message().startswith("no worker has d, e, f and 1 more registered; wanted on some worker")


def test_all_tasks_of_the_app():
    """`tasks = "all"` wants each task that the app defines, and an app without tasks proves nothing."""
    check = WorkersAnswer(tasks="all")
    w1 = Worker("w1", tasks=frozenset({"shop.charge"}))
    assert verdict(check, w1, app=App("shop", frozenset({"shop.charge"}))).healthy
    found = verdict(check, w1, app=App("shop", frozenset({"shop.charge", "shop.refund"})))
    assert found.message().startswith(
        "no worker has shop.refund registered; wanted every task on some worker"
    )
    empty = verdict(check, w1, app=App("shop", frozenset()))
    assert empty.message() == "cannot tell: tasks: shop defines no task"
    assert verdict(check, w1).message() == "cannot tell: tasks: it was not looked at"
    blind = verdict(check, w1, app=App("shop", Unseen("shop cannot be imported")))
    assert blind.message() == "cannot tell: tasks: shop cannot be imported"


def test_tasks_of_a_worker_that_did_not_tell():
    """A worker that did not tell its tasks matters only if a task is missing on the others."""
    w1, mute = Worker("w1", tasks=frozenset({"a"})), Worker("w2", tasks=Unseen("no answer to registered"))
    assert verdict(WorkersAnswer(tasks=("a",)), w1, mute).healthy
    assert (
        verdict(WorkersAnswer(tasks=("b",)), w1, mute).message() == "cannot tell: w2: no answer to registered"
    )


@pytest.mark.parametrize(
    ("check", "good", "bad", "message"),
    [
        (
            WorkersAnswer(pool_size=4),
            Worker("w1", pool_size=4),
            Worker("w1", pool_size=3),
            "w1 has a pool of 3; wanted at least 4",
        ),
        (
            WorkersAnswer(up_for="5min"),
            Worker("w1", uptime=300.0),
            Worker("w1", uptime=299.0),
            "w1 has been up for 4 min 59 s; wanted at least 5 min"
            " (a worker that is always young is in a crash loop)",
        ),
        (
            WorkersAnswer(clock_within="2s"),
            Worker("w1", clock_offset=-2.0),
            Worker("w1", clock_offset=600.0),
            "w1 has a clock 10 min ahead of ours; wanted within 2 s",
        ),
        (
            WorkersAnswer(clock_within="2s"),
            Worker("w1", clock_offset=2.0),
            Worker("w1", clock_offset=-2.5),
            "w1 has a clock 2.5 s behind ours; wanted within 2 s",
        ),
        (
            WorkersAnswer(version="5.7"),
            Worker("w1", version="5.7.1"),
            Worker("w1", version="5.70.0"),
            "w1 runs Celery 5.70.0; wanted 5.7",
        ),
    ],
)
def test_each_worker(check, good, bad, message):
    """Every worker must meet what is asked of each."""
    assert verdict(check, good).healthy
    found = verdict(check, good, bad)
    assert (found.unhealthy, found.message()) == (True, message)


@pytest.mark.parametrize(
    "check",
    [
        WorkersAnswer(pool_size=4),
        WorkersAnswer(up_for="5min"),
        WorkersAnswer(clock_within="2s"),
        WorkersAnswer(version="5.7"),
    ],
)
def test_what_a_worker_did_not_tell_is_unknown(check):
    """A figure that a worker did not send is unknown."""
    assert verdict(check, Worker("w1")).message() == "cannot tell: w1: no check asked for it"


def test_malformed_reply():
    """A reply that Celery would not send is a finding about its worker."""
    found = verdict(WorkersAnswer(), Worker("w1", malformed=("active_queues is a str",)))
    assert found.message() == (
        "w1 sent a malformed reply: active_queues is a str; wanted a reply as Celery sends it"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"at_least": 0}, "at_least is 0, which no fleet can miss; write 1 or more"),
        ({"pool_size": 0}, "pool_size is 0; write 1 or more"),
        ({"silent_at_most": -1}, "silent_at_most is -1; write 0 or more"),
        ({"tasks": "every"}, "tasks is 'every'; write 'all' or a list of task names"),
        ({"up_for": 0}, "up_for is 0, which every worker meets"),
        ({"clock_within": 0}, "clock_within is 0, which no two clocks meet"),
        (
            {"clock_within": "soon"},
            "clock_within: 'soon' is not a duration; write seconds or '90s', '2min', '1h30min'",
        ),
    ],
)
def test_impossible_values(fields, message):
    """What every fleet meets, or none, is refused when the check is made."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        WorkersAnswer(**fields)


def test_the_figures_of_each_worker_are_its_own():
    """In JUnit XML one worker's pool, uptime and clock do not hide another's."""
    workers = [
        Worker("w1@a", pool_size=2, uptime=10.0, clock_offset=0.5, answers=2),
        Worker("w2@a", pool_size=4, uptime=20.0, clock_offset=-0.5),
    ]
    found = verdict(WorkersAnswer(pool_size=1, up_for=1, clock_within=1), *workers)
    assert Outcome.of("row", found).figures == {
        "workers": 2,
        "w1@a.answers": 2,
        "w1@a.pool_size": 2,
        "w1@a.uptime": 10.0,
        "w1@a.clock_offset": 0.5,
        "w2@a.pool_size": 4,
        "w2@a.uptime": 20.0,
        "w2@a.clock_offset": -0.5,
    }


def test_asks_for_no_more_than_it_judges():
    """A check that judges answers only asks for no stats, no tasks and no clock."""
    (ask,) = WorkersAnswer(at_least=2).asks()
    assert ask.details == frozenset()
    details = {
        detail
        for ask in WorkersAnswer(pool_size=1, version="5", clock_within=1).asks()
        for detail in ask.details
    }
    assert details == {"stats", "version", "clock"}
