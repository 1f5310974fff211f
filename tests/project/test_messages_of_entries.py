"""Messages that beat cannot make of an entry, or that workers refuse, found out without sending one."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from pytest_celery_health.project.describe import describe
from pytest_celery_health.project.info import AppInfo, AppSpec
from tests.support.timing import wait_until

Write = Callable[..., AppSpec]

SENT = "a message that beat can send"
TAKEN = "a message that workers take"
HEAD = """
import datetime, decimal, uuid
from celery import Celery
from celery.beat import BeatLazyFunc
from celery.signals import before_task_publish
from kombu.utils.json import register_type
app = Celery("shop", broker="BROKER", set_as_current=False)
app.conf.accept_content = ["json", "pickle"]
@app.task(name="two")
def two(a, b): ...
@app.task(name="pickled", serializer="pickle")
def pickled(a, b): ...
@app.task(name="limited", time_limit="x")
def limited(a, b): ...
class Money:
    def __init__(self, cents): self.cents = cents
register_type(Money, "money", lambda money: money.cents, Money)
def entry(options=None, args=(1, 2), task="two"):
    return {"task": task, "schedule": 0.2, "args": args, "options": options}
"""
#: Entries that a real beat could not send, what is said of them, and what beat said.
UNSENDABLE = {
    "entry(args=(1, object()))": ("Object of type object is not JSON serializable", "not JSON serializable"),
    "entry(args=(1, {1, 2}))": ("Object of type set is not JSON serializable", "not JSON serializable"),
    "entry(args=(1, {(1, 2): 3}))": ("keys must be str", "keys must be str"),
    'entry(args=(1, object()), task="pickled", options={"serializer": "json"})': (
        "Object of type object is not JSON serializable",
        "not JSON serializable",
    ),
    'entry({"serializer": "nosuch"})': ("No encoder installed for nosuch", "No encoder installed for nosuch"),
    'entry({"compression": "nosuch"})': (
        "compression 'nosuch': no such compression",
        "'nosuch'",
    ),
    'entry({"countdown": "5"})': ("countdown '5': '<' not supported", "'<' not supported"),
    'entry({"countdown": datetime.timedelta(1)})': ("countdown a timedelta: '<' not", "'<' not supported"),
    'entry({"expires": "soon"})': ("expires 'soon': ", ""),
    'entry({"expires": datetime.timedelta(1)})': ("expires a timedelta: ", "'<' not supported"),
    'entry({"eta": 5})': ("eta 5: 'int' object has no attribute 'isoformat'", "no attribute 'isoformat'"),
    'entry({"headers": "x"})': ("headers 'x': it is no mapping", ""),
    'entry({"headers": {"x": object()}})': ("Object of type object is not JSON serializable", "serializable"),
    'entry({"args": (1,)})': ("options: multiple values for argument 'args'", "multiple values for argument"),
    'entry({"name": "x"})': ("options: multiple values for argument 'name'", "multiple values for argument"),
    'entry({"retry_policy": "x"})': ("retry_policy 'x': it is no mapping", "must be a mapping"),
}
REFUSED = {
    'entry({"eta": "tomorrow"})': "eta 'tomorrow': ",
    'entry({"time_limit": "x"})': "time_limit 'x': a worker's pool ends of what is no number",
    'entry(task="limited")': "time_limit 'x': a worker's pool ends of what is no number",
    'entry({"serializer": "msgpackish"})': "accept_content leaves out application/x-msgpackish",
}
SENDABLE = (
    "entry(args=(datetime.datetime.now(), uuid.uuid4()))",
    'entry(args=(decimal.Decimal("1"), datetime.date.today()))',
    "entry(args=(Money(5), b'\\xff'))",
    'entry(args=(1, {1, 2}), task="pickled")',
    'entry({"serializer": "pickle"}, args=(1, object))',
    'entry({"compression": "gzip"})',
    'entry({"compression": "application/x-gzip"})',
    'entry({"countdown": 5, "priority": 5})',
    'entry({"countdown": 0.5})',
    'entry({"expires": 30})',
    'entry({"expires": -1})',
    'entry({"expires": datetime.datetime(2035, 1, 1)})',
    'entry({"expires": "2035-01-01T00:00:00"})',
    'entry({"eta": datetime.datetime(2035, 1, 1)})',
    'entry({"eta": "2035-01-01T00:00:00"})',
    'entry({"expires": None, "countdown": None, "serializer": None, "compression": None})',
    'entry({"soft_time_limit": 60, "time_limit": 10.5})',
    'entry({"headers": {"x": 1}, "custom": 1})',
    'entry({"priority": "high"})',
)
MSGPACKISH = """
from kombu.serialization import register
register("msgpackish", repr, eval, "application/x-msgpackish", "utf-8")
"""


def _info(project: Write, entries: str, broker: str = "redis://127.0.0.1:1/0", more: str = "") -> AppInfo:
    code = f"{HEAD.replace('BROKER', broker)}{MSGPACKISH}{more}\napp.conf.beat_schedule = {entries}\n"
    return describe(project("shop", {"shop.py": code}), timeout=10)


def _numbered(entries: Iterable[str]) -> str:
    return "{" + ", ".join(f'"{number:02}": {code}' for number, code in enumerate(entries)) + "}"


def test_an_entry_that_beat_cannot_send(project: Write) -> None:
    info = _info(project, _numbered(UNSENDABLE))
    for found, (code, (why, _)) in zip(info.schedule, UNSENDABLE.items(), strict=True):
        assert found.malformed.startswith(f"cannot be sent: {why}"), code
        assert (found.wanted, found.queue) == (SENT, "celery")


def test_a_message_that_workers_refuse(project: Write) -> None:
    info = _info(project, _numbered(REFUSED))
    for found, (code, why) in zip(info.schedule, REFUSED.items(), strict=True):
        assert found.malformed.startswith(f"is refused by workers: {why}"), code
        assert found.wanted == TAKEN


def test_entries_that_can_be_sent(project: Write) -> None:
    info = _info(project, _numbered(SENDABLE))
    assert [(code, entry.malformed) for code, entry in zip(SENDABLE, info.schedule, strict=True)] == [
        (code, "") for code in SENDABLE
    ]


@pytest.mark.parametrize(
    ("priority", "why"),
    [("'high'", "'high'"), ("300", "300"), ("1.5", "1.5"), ("255", "")],
)
def test_a_priority_on_amqp(project: Write, priority: str, why: str) -> None:
    (found,) = _info(project, f'{{"p": entry({{"priority": {priority}}})}}', "amqp://127.0.0.1:1").schedule
    assert found.malformed == (
        f"cannot be sent: priority {why}: AMQP wants a whole number from 0 to 255" if why else ""
    )


def test_nothing_of_the_project_runs_to_find_out(project: Write, tmp_path: Path) -> None:
    """No handler, no task that is always eager, no function that makes an argument later."""
    ran = tmp_path / "ran"
    info = _info(
        project,
        '{"lazy": entry(args=(1, BeatLazyFunc(run))), "set": entry(args=(1, {1}))}',
        more=f"""
def run(*args, **kwargs):
    open({str(ran)!r}, "w").close()
before_task_publish.connect(run, weak=False)
app.conf.task_always_eager = True
two.run = run
two.shadow_name = run
""",
    )
    assert [bool(entry.malformed) for entry in info.schedule] == [False, True]
    assert not ran.exists()


def test_a_task_that_sends_in_its_own_way_is_not_judged(project: Write) -> None:
    (entry,) = _info(
        project,
        '{"own": entry(args=(1, {1}), task="own")}',
        more="""
from celery import Task
class Own(Task):
    def apply_async(self, args=None, kwargs=None, **options):
        return super().apply_async([list(each) for each in args], kwargs, **options)
@app.task(name="own", base=Own)
def own(a, b): ...
""",
    ).schedule
    assert entry.malformed == ""


@pytest.mark.slow
def test_a_real_beat_cannot_send_them_either(project: Write, tmp_path: Path) -> None:
    """Beat's own log holds each of them, and none of those that can be sent."""
    entries = {f"bad{number:02}": code for number, code in enumerate(UNSENDABLE)}
    entries |= {f"good{number:02}": code for number, code in enumerate(SENDABLE)}
    table = "{" + ", ".join(f'"{name}": {code}' for name, code in entries.items()) + "}"
    code = f"{HEAD.replace('BROKER', 'filesystem://')}{MSGPACKISH}\napp.conf.beat_schedule = {table}\n"
    (tmp_path / "out").mkdir()
    folders = {"data_folder_in": str(tmp_path / "out"), "data_folder_out": str(tmp_path / "out")}
    project("shop", {"shop.py": f"{code}app.conf.broker_transport_options = {folders}\n"})
    log = tmp_path / "beat.log"
    with log.open("w") as out:
        beat = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "shop", "beat", "-l", "info", "-s", str(tmp_path / "s")],
            cwd=tmp_path,
            stdout=out,
            stderr=out,
        )
        try:
            sent = "Sending due task {} "
            wait_until(
                lambda: all(log.read_text().count(sent.format(name)) >= 2 for name in entries), within=30
            )
        finally:
            beat.kill()
            beat.wait()
    failed = dict(re.findall(r"Couldn't apply scheduled task (\w+): (.*)", log.read_text()))
    assert sorted(failed) == [name for name in entries if name.startswith("bad")]
    for number, (_, why) in enumerate(UNSENDABLE.values()):
        assert why in failed[f"bad{number:02}"]
