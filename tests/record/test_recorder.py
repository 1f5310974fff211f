"""The recorder without a test's fixture: into memory, or into a file that processes share."""

from __future__ import annotations

import json
import logging
import os
import socket
from pathlib import Path

import pytest
from celery import Celery, signals

from pytest_celery_health.record.recorder import JsonLines, Recorder, read
from pytest_celery_health.record.recording import (
    HandlerCall,
    LogRecord,
    MetricChange,
    Recording,
    Request,
    SignalCall,
    from_json,
    to_json,
)


@pytest.mark.parametrize(
    "entry",
    [
        SignalCall("task_prerun", "shop.pack", {"args": ["o1"]}, 2, at=1.5, pid=7, process="child"),
        HandlerCall("task_prerun", "m:f", "m.py:1", {"a": 1}, "ValueError: x", "Traceback", 0.1),
        LogRecord("ERROR", "shop", "failed", {"n": 1}, "ValueError: x", "m.py:1", task="t", task_id="i"),
        Request("POST", "https://h/", {"a": "b"}, "body", 200, "", 0.1),
        MetricChange("total", {"task": "t"}, None, 1.0),
    ],
    ids=lambda entry: type(entry).__name__,
)
def test_an_entry_is_a_line_of_json(entry) -> None:
    assert from_json(to_json(entry)) == entry
    assert "\n" not in to_json(entry)


def test_the_exception_stays_in_its_process() -> None:
    call = HandlerCall("task_prerun", "m:f", error="ValueError: x", exception=ValueError("x"))
    assert "exception" not in json.loads(to_json(call))
    assert from_json(to_json(call)) == call


def test_a_forked_child_goes_on_recording(app: Celery, tmp_path: Path) -> None:
    @signals.task_success.connect(weak=False)
    def praise(**_):
        logging.getLogger("shop").error("well done")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("hooks.slack.com", 443))

    @app.task(name="shop.pack")
    def pack():
        pass

    path = tmp_path / "recording.jsonl"
    with Recorder(JsonLines(path)):
        pack.apply()
        pid = os.fork()
        if pid == 0:
            pack.apply()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    with path.open("a") as file:
        file.write('{"kind": "LogRecord", "lev')
    recording = read(path)
    assert {(entry.process, entry.pid) for entry in recording.entries} == {
        ("main", os.getpid()),
        ("child", pid),
    }
    for process in ("main", "child"):
        ours = Recording(tuple(entry for entry in recording.entries if entry.process == process))
        ours.expect_signal("task_success", count=1)
        ours.expect_handler("praise", signal="task_success", count=1)
        ours.expect_log(containing="well done", task="shop.pack", count=1)
        ours.expect_request("hooks.slack.com", count=1)


def test_nothing_recorded_is_an_empty_recording(tmp_path: Path) -> None:
    assert read(tmp_path / "none.jsonl") == Recording()
    assert repr(Recording()) == "<Recording: nothing>"


def test_what_was_seen_is_listed_when_something_is_missing() -> None:
    recording = Recording(
        (
            SignalCall("task_failure", "shop.charge", {"exception": "CardDeclined"}, 2),
            SignalCall("task_postrun", "shop.charge", {"state": "FAILURE"}, 0),
            HandlerCall("task_failure", "shop.signals:alert", error="KeyError: 'x'", traceback="..."),
        )
    )
    with pytest.raises(AssertionError) as missing:
        recording.expect_signal("task_retry", count=2)
    assert str(missing.value) == (
        "saw 2 signals; wanted a signal task_retry, 2 times\n"
        "  task_failure from shop.charge, 2 handlers\n"
        "  task_postrun FAILURE from shop.charge, 0 handlers"
    )
    with pytest.raises(AssertionError) as missing:
        recording.expect_handler("shop.signals:log")
    assert str(missing.value).splitlines()[1] == "  shop.signals:alert on task_failure raised KeyError: 'x'"
    assert recording.expect_handler("alert").error
    with pytest.raises(ValueError, match="count must be 1 or more"):
        recording.expect_signal("task_failure", count=0)
