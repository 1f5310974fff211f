"""What an app says of itself: what a look and the checks need, as plain data."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_celery_health.facts import Entry
from pytest_celery_health.project.describe import describe
from pytest_celery_health.project.info import AppInfo, AppSpec

Write = Callable[..., AppSpec]

TIMES = "seconds above 0, a timedelta, crontab or solar"
HEAD = 'from celery import Celery\napp = Celery("shop", set_as_current=False)\nconf = app.conf\n'


def _describe(project: Write, code: str, **spec: object) -> AppInfo:
    lines = "\n".join(line.removeprefix("        ") for line in code.splitlines())
    return describe(project("shop", {"shop.py": HEAD + lines}, **spec), timeout=10)


def test_only_the_apps_own_tasks_count(project: Write) -> None:
    info = _describe(
        project, "@app.task\ndef charge(): ...\n@app.task(name='celery.mine')\ndef mine(): ...\n"
    )
    assert info.tasks == {"shop.charge", "celery.mine"}


def test_queues_that_are_declared_or_routed_to(project: Write) -> None:
    info = _describe(
        project,
        """
        from kombu import Queue
        conf.task_queues = [Queue("orders"), Queue("mails")]
        conf.task_default_queue = "orders"
        conf.task_routes = ([("shop.slow.*", {"queue": "slow"}), ("shop.fast", "fast")], lambda *a, **k: None)
        conf.beat_schedule = {"nightly": {"task": "t", "schedule": 60, "options": {"queue": "night"}}}
        """,
    )
    assert info.queues == ("orders", "mails", "slow", "fast", "night")
    assert info.default_queue == "orders"


@pytest.mark.parametrize(
    "routes", ["{'a.*': {'queue': 'q'}}", "{'a.*': 'q'}", "('a.*', {'queue': 'q'})", "[{'a': 'q'}]"]
)
def test_every_way_to_write_static_routes(project: Write, routes: str) -> None:
    assert _describe(project, f"conf.task_routes = {routes}").queues == ("celery", "q")


def test_the_schedule_of_settings_and_of_add_periodic_task(project: Write) -> None:
    info = _describe(
        project,
        """
        @app.task
        def pay(order_id): ...
        @app.task(bind=True, queue="mails", autoretry_for=(ValueError,))
        def mail(self, to, cc=None): ...
        conf.task_routes = {"shop.pay": {"queue": "orders"}}
        conf.beat_schedule = {
            "fits": {"task": "shop.pay", "schedule": 60, "args": (1,)},
            "misfit": {"task": "shop.pay", "schedule": 60},
            "misspelt": {"task": "shop.pai", "schedule": 60},
            "own queue": {"task": "shop.mail", "schedule": 60, "kwargs": {"to": "x"}},
            "sent elsewhere": {"task": "shop.mail", "schedule": 60, "args": ["x"], "options": {"queue": "q"}},
            "too many": {"task": "shop.mail", "schedule": 60, "args": ["x", "y", "z"]},
        }
        @app.on_after_finalize.connect
        def add(sender, **kwargs):
            sender.add_periodic_task(30, mail.s("x"), name="added")
        """,
    )
    assert info.schedule == (
        Entry("fits", "shop.pay", queue="orders"),
        Entry("misfit", "shop.pay", queue="orders", problem="missing a required argument: 'order_id'"),
        Entry("misspelt", "shop.pai", registered=False, queue="celery"),
        Entry("own queue", "shop.mail", queue="mails"),
        Entry("sent elsewhere", "shop.mail", queue="q"),
        Entry("too many", "shop.mail", queue="mails", problem="too many positional arguments"),
        Entry("added", "shop.mail", queue="mails"),
    )


def test_an_entry_that_no_queue_takes(project: Write) -> None:
    info = _describe(
        project,
        """
        conf.task_create_missing_queues = False
        lost = {"task": "t", "schedule": 1, "options": {"queue": "nope"}}
        conf.beat_schedule = {"x": lost, "y": {"schedule": 1}}
        """,
    )
    x, y = info.schedule
    assert "Queue 'nope' missing from task_queues" in x.problem
    assert y.problem == "it names no task"


KEYS = "task, schedule, args, kwargs, options or relative"
BY_DEFAULT = "celery.beat:PersistentScheduler does not take"
MALFORMED = {
    '{"task": "t"}': ("has no schedule", TIMES),
    '{"task": "t", "shedule": 60}': ("has no schedule", TIMES),
    '{"task": "t", "schedule": "every minute"}': ("has 'every minute' as its schedule", TIMES),
    '{"task": "t", "schedule": crontab}': ("has the class crontab as its schedule", TIMES),
    '{"task": "t", "schedule": float("inf")}': ("has inf as its schedule", TIMES),
    '{"task": "t", "schedule": 0}': ("has 0 as its schedule", TIMES),
    '{"task": "t", "schedule": timedelta(seconds=-5)}': ("has a timedelta as its schedule", TIMES),
    '{"task": "t", "schedule": schedule(0)}': ("has a schedule as its schedule", TIMES),
    '{"task": "t", "schedule": {"minutes": 1}}': ("has a dict as its schedule", TIMES),
    '{"task": "t", "schedule": 1, "kwargs": [1]}': ("has a list as its kwargs", "a mapping"),
    '{"task": "t", "schedule": 1, "args": 1}': ("has 1 as its args", "a list or a tuple"),
    '{"task": "t", "schedule": 1, "options": "q"}': ("has 'q' as its options", "a mapping"),
    '{"task": ["t"], "schedule": 1}': ("has a list as its task", "its name"),
    '{"task": "t", "schedule": 1, "enabled": True}': ("has the key 'enabled', which " + BY_DEFAULT, KEYS),
    '{"task": "t", "schedule": 1, 1: 2}': ("has the key 1, which " + BY_DEFAULT, KEYS),
    '"t"': ("is 't'", "a mapping"),
    "None": ("is None", "a mapping"),
    "[1]": ("is a list", "a mapping"),
}


def test_entries_that_beat_cannot_use(project: Write) -> None:
    entries = ", ".join(f"{str(number)!r}: {code}" for number, code in enumerate(MALFORMED))
    info = _describe(
        project,
        f"""
        from datetime import timedelta
        from celery.schedules import crontab, schedule
        @app.task(name="t")
        def t(): ...
        conf.beat_schedule = {{{entries}, "good": {{"task": "t", "schedule": 60}}}}
        """,
    )
    *bad, good = info.schedule
    assert [(entry.malformed, entry.wanted) for entry in bad] == list(MALFORMED.values())
    assert good == Entry("good", "t", queue="celery")


def test_a_schedule_that_is_no_mapping(project: Write) -> None:
    info = _describe(project, "conf.beat_schedule = [1]")
    assert info.schedule_unseen == "beat_schedule is a list; wanted a mapping"


def test_every_schedule_that_beat_can_use(project: Write) -> None:
    info = _describe(
        project,
        """
        from datetime import datetime, timedelta
        from celery.beat import ScheduleEntry
        from celery.schedules import BaseSchedule, crontab, schedule
        from redbeat.schedules import rrule
        class Own(BaseSchedule):
            def is_due(self, last_run_at): return False, 60.0
        class Duck:
            def is_due(self, last_run_at): return False, 60.0
        @app.task(name="t")
        def t(): ...
        every = [1, 0.5, timedelta(days=1), crontab(), schedule(9), Own(), Duck()]
        every.append(rrule("DAILY", dtstart=datetime(2026, 1, 1)))
        entries = {str(number): {"task": "t", "schedule": one} for number, one in enumerate(every)}
        entries["pairs"] = [("task", "t"), ("schedule", 1), ("args", None)]
        entries["entry"] = ScheduleEntry(name="entry", task="t", schedule=60, app=app)
        entries["all keys"] = {"task": "t", "schedule": 1, "relative": True, "total_run_count": 9}
        conf.beat_schedule = entries
        """,
    )
    assert [entry.malformed for entry in info.schedule] == [""] * 11
    assert all(entry.registered and not entry.problem for entry in info.schedule)


OWN = """
from celery.beat import Scheduler, ScheduleEntry
class Entry(ScheduleEntry):
    def __init__(self, *args, **kwargs):
        self.enabled = kwargs.pop("enabled", True)
        super().__init__(*args, **kwargs)
class Own(Scheduler):
    Entry = Entry
conf.beat_scheduler = Own
"""
DJANGO = """
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["django_celery_beat"], USE_TZ=True, DATABASES={})
django.setup()
conf.beat_scheduler = "django"
"""
REDBEAT = """
conf.beat_scheduler = "redbeat.RedBeatScheduler"
conf.redbeat_redis_url = "redis://127.0.0.1:1/0"
"""
ENABLED = """
@app.task(name="t")
def t(): ...
every = {"task": "t", "schedule": 60, "enabled": True}
conf.beat_schedule = {"good": every, "bad": {**every, "enabeld": True}}
"""


@pytest.mark.parametrize(
    ("scheduler", "name"),
    [(OWN, "shop:Own"), (DJANGO, "django"), (REDBEAT, "redbeat.RedBeatScheduler")],
    ids=["the project's own", "django-celery-beat", "redbeat"],
)
def test_keys_that_another_scheduler_takes(project: Write, scheduler: str, name: str) -> None:
    """An entry of theirs may be `enabled`; and what they do not know either is told of them."""
    info = describe(project("shop", {"shop.py": HEAD + scheduler + ENABLED}), timeout=10)
    good, bad = info.schedule
    assert good == Entry("good", "t", queue="celery")
    assert bad.malformed == f"has the key 'enabeld', which {name} does not take"


@pytest.mark.parametrize(
    ("scheduler", "seen"),
    [
        ("django_celery_beat.schedulers:DatabaseScheduler", "django_celery_beat's table"),
        ("django", "django_celery_beat's table"),
        ("redbeat.RedBeatScheduler", "redbeat"),
        ("celery.beat:PersistentScheduler", ""),
    ],
)
def test_a_schedule_that_is_kept_elsewhere(project: Write, scheduler: str, seen: str) -> None:
    why = _describe(project, f"conf.beat_scheduler = {scheduler!r}").schedule_unseen
    assert seen in why
    assert bool(seen) == bool(why)


def test_entries_in_the_settings_are_seen_whatever_the_scheduler(project: Write) -> None:
    code = "conf.beat_scheduler = 'django'\nconf.beat_schedule = {'a': {'task': 't', 'schedule': 1}}"
    info = _describe(project, code)
    assert (len(info.schedule), info.schedule_unseen) == (1, "")


def test_redbeats_settings_as_they_are_configured(project: Write) -> None:
    info = _describe(project, "conf.redbeat_redis_url = 'redis://h/3'\nconf.redbeat_lock_timeout = 90")
    assert info.redbeat == {"redbeat_redis_url": "redis://h/3", "redbeat_lock_timeout": 90}


@pytest.mark.parametrize(
    ("code", "url"),
    [
        ("conf.broker_url = ['amqp://a//', 'amqp://b//']", "amqp://a//;amqp://b//"),
        ("conf.broker_url = 'redis://a'\nconf.broker_read_url = 'redis://b'", "redis://b"),
        ("", "amqp://guest:guest@localhost:5672//"),
    ],
)
def test_the_url_that_is_read_from(project: Write, code: str, url: str) -> None:
    assert _describe(project, code).broker_url == url


def test_ssl_and_transport_options_as_plain_data(project: Write) -> None:
    info = _describe(
        project,
        """
        import ssl
        from pathlib import Path
        conf.broker_use_ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": Path("/ca.pem")}
        conf.broker_transport_options = {
            "global_keyprefix": "shop:",
            "priority_steps": (0, 5),
            "callback": print,
            "sentinel_kwargs": {"a": 1},
        }
        conf.event_exchange = "ev"
        conf.control_exchange = "ctl"
        """,
    )
    assert info.broker_use_ssl == {"ssl_cert_reqs": 2, "ssl_ca_certs": "/ca.pem"}
    assert info.broker_transport_options == {
        "global_keyprefix": "shop:",
        "priority_steps": [0, 5],
        "sentinel_kwargs": {"a": 1},
    }
    assert (info.event_exchange, info.control_exchange) == ("ev", "ctl")


def test_no_secret_in_what_it_looks_like(project: Write) -> None:
    info = _describe(project, "conf.broker_url = 'redis://:s3cret@h/0'")
    assert "s3cret" not in repr(info)
    assert "s3cret" in info.broker_url
