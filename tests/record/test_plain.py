"""Whatever objects do when they are shown, a recording holds plain data of bounded size."""

from __future__ import annotations

import json

import pytest
from celery import Celery, signals

from pytest_celery_health.record.in_process import CelerySignals
from pytest_celery_health.record.plain import describe, plain


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Loud(Exception):
    def __str__(self) -> str:
        return "x" * 10_000_000


def endless() -> list[object]:
    items: list[object] = []
    items.append(items)
    return items


@pytest.mark.parametrize(
    "value", [object(), endless(), {1: {2, 3}}, b"\xff", Mute(), Loud(), "x" * 10**6, 1j]
)
def test_anything_is_plain_and_short(value: object) -> None:
    assert len(json.dumps(plain(value))) < 20_000


def test_plain_data_stays_what_it_is() -> None:
    value = {"a": [1, 2.5, None, True, "x"], "b": {"c": "d"}}
    assert plain(value) == value


def test_an_exception_in_words() -> None:
    assert describe(Mute()) == "Mute, whose __str__ raises RuntimeError"
    assert len(describe(Loud())) < 600
    assert describe(KeyError()) == "KeyError"


@pytest.mark.parametrize("kind", [Mute, Loud])
def test_a_task_that_raises_something_difficult(
    app: Celery, celery_signals: CelerySignals, kind: type[Exception]
) -> None:
    seen = []

    @signals.task_failure.connect(weak=False)
    def note(exception, **_):
        seen.append(type(exception).__name__)

    @app.task
    def charge():
        raise kind

    recording = celery_signals.run(charge.s(), raises=kind)
    assert seen == [kind.__name__]
    assert repr(recording).startswith("<Recording tests.record.test_plain.charge FAILURE")
