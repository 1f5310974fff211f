from __future__ import annotations

import re

import pytest

from pytest_celery_health import (
    AskTrials,
    Call,
    HandlersSurvive,
    Leak,
    Snapshot,
    Trial,
    Trials,
    Unseen,
    judge,
)

ALERT = "shop.signals:alert"
AT = "(shop/signals.py:12)"
SLACK = "hooks.slack.com"
DOWN = Call("shop.charge", f"{SLACK} answers 500", at_fault=SLACK, does=(SLACK,), failed=(SLACK,))
WELL = Call("shop.charge", does=(SLACK,))


def trial(*calls, signal="task_failure", **said):
    return Trial(
        signal, said.pop("name", ALERT), said.pop("where", "shop/signals.py:12"), calls=calls, **said
    )


def verdict(*trials, **fields):
    return judge(HandlersSurvive(**fields), Snapshot(Trials(trials, tasks=2)))


def retry(retries, *does, most=3):
    return Call("shop.charge", retries=retries, most=most, does=does)


def test_handlers_that_survive():
    """A lost alert that is logged is not lost without a word; neither is one that another server took."""
    logged = Call("shop.charge", DOWN.payload, at_fault=SLACK, does=(SLACK,), failed=(SLACK,), logged=True)
    taken = Call("shop.charge", DOWN.payload, at_fault=SLACK, does=(SLACK, "backup.example"), failed=(SLACK,))
    found = verdict(trial(WELL, logged), trial(WELL, taken), trial(retry(2, "log ERROR"), retry(3)))
    assert (found.healthy, found.message()) == (True, "1 handler survived 6 calls")
    assert found.findings[-1].figures["calls"] == 6


def test_the_figures_of_each_handler_are_its_own():
    """In JUnit XML one handler's longest call does not hide another's, nor that of another signal."""
    found = verdict(
        trial(Call("shop.charge", took=3.0), Call("shop.charge", "no einfo", took=30.0041)),
        trial(Call("shop.charge", took=9), signal="task_retry"),
        trial(Call("shop.charge", took=0.5), name="shop.signals:log"),
    )
    assert {key: value for one in found.findings for key, value in one.figures.items()} == {
        "calls": 4,
        f"{ALERT}.task_failure.took": 30.004,
        f"{ALERT}.task_retry.took": 9,
        "shop.signals:log.task_failure.took": 0.5,
    }


@pytest.mark.parametrize(
    ("found", "kind", "message"),
    [
        (
            trial(Call("shop.charge", error="raised KeyError: 'args'")),
            "error",
            f"raised KeyError: 'args' for task_failure {AT}; wanted no error (Celery swallows it)",
        ),
        (
            trial(
                Call("shop.charge", "no einfo", error="raised TypeError: None"),
                Call("shop.charge", error="raised ValueError: 1"),
                Call("shop.charge", "state None", error="raised TypeError: None"),
            ),
            "error",
            f"raised ValueError: 1 for task_failure {AT}; wanted no error "
            "(Celery swallows it; 1 other error with other payloads)",
        ),
        (
            trial(Call("shop.charge", f"{SLACK} hangs", at_fault=SLACK, unbounded=(SLACK,))),
            "late",
            f"posts without a timeout to {SLACK} for task_failure when {SLACK} hangs {AT}; "
            "wanted an end within 2 s (a server that hangs keeps it, and what it runs in, for ever)",
        ),
        (
            trial(Call("shop.charge", took=2.5, stuck="shop/signals.py:14")),
            "late",
            f"did not end for task_failure {AT}; it was at shop/signals.py:14; wanted an end within 2 s",
        ),
        (
            trial(Call("shop.charge", took=30.004), Call("shop.charge", "no einfo", took=3)),
            "late",
            f"takes 30 s for task_failure {AT}; wanted an end within 2 s",
        ),
        (
            trial(WELL, DOWN),
            "lost",
            f"loses its alert without a word for task_failure when {SLACK} answers 500 {AT}; "
            "wanted a log record of WARNING or above, or another server",
        ),
        (
            trial(retry(0), retry(2, "log INFO"), retry(3, "log INFO", SLACK), signal="task_retry"),
            "retries",
            f"asks {SLACK} for task_retry only from retries 3 on {AT}; "
            "wanted at most 2, as no task gets further (the first retry is number 0)",
        ),
        (
            trial(
                Call("shop.charge", "secrets in its arguments", leaks=(Leak("token", SLACK), Leak("secret")))
            ),
            "secret",
            f"sends token in clear to {SLACK} for task_failure with secrets in its arguments {AT}; "
            "wanted secrets hidden",
        ),
        (
            trial(Call("shop.charge", "secrets in its arguments", leaks=(Leak("token"), Leak("secret")))),
            "secret",
            f"logs secret and token in clear for task_failure with secrets in its arguments {AT}; "
            "wanted secrets hidden",
        ),
    ],
)
def test_each_kind_of_mistake(found, kind, message):
    """It is told once for each handler, and can be accepted."""
    red = verdict(found)
    assert (red.unhealthy, [each.line() for each in red.bad]) == (True, [f"alert {message}"])
    assert red.table[1][4] == kind
    assert verdict(found, allow=(f"{kind}:{ALERT}",)).healthy
    assert verdict(found, allow=(ALERT,)).healthy
    assert verdict(found, allow=(f"{kind}:shop.signals:other",)).unhealthy


def test_a_timeout_as_long_as_the_budget_is_within_it():
    assert verdict(trial(Call("shop.charge", took=2.0))).healthy
    assert verdict(trial(Call("shop.charge", took=2.0)), within="1s").unhealthy


def test_a_task_that_is_retried_without_end_reaches_every_threshold():
    assert verdict(trial(retry(0, most=None), retry(100, SLACK, most=None))).healthy


def test_secrets_of_the_contract():
    """The text of an exception is one when the contract says so."""
    sent = trial(Call("shop.charge", leaks=(Leak("exception", SLACK), Leak("iban", SLACK))))
    assert verdict(sent).healthy
    assert verdict(sent, secrets=("exception",)).unhealthy
    assert verdict(sent, secrets=("iban",)).unhealthy
    (ask,) = HandlersSurvive(secrets=("iban",), within="5s", handlers=(ALERT,)).asks()
    assert ask == AskTrials(frozenset({ALERT}), 5.0, frozenset({"iban", "password", "secret", "token"}))


def test_a_handler_of_no_task_is_a_warning():
    idle = trial(Call("shop.charge"), skipped="shop/signals.py:14", would="charge")
    found = verdict(idle, trial(WELL))
    assert found.healthy
    assert found.message() == "1 handler survived 2 calls"
    assert [each.line() for each in found.warnings] == [
        "alert does nothing for any of the app's 2 tasks: shop/signals.py:14 never runs; "
        "wanted an effect for one (it would for one named charge)"
    ]
    assert found.table[1][3:5] == ("nothing seen", "(idle)")


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (Snapshot(), "it was not looked at (handlers)"),
        (Snapshot(unseen={Trials: Unseen("shop:app failed to load")}), "shop:app failed to load (handlers)"),
        (Snapshot(Trials()), "handlers: the app connects none of its own to a signal about a task"),
        (
            Snapshot(Trials((trial(WELL, own=False),))),
            "handlers: the app connects none of its own to a signal about a task",
        ),
        (
            Snapshot(Trials((trial(unseen="is connected for a sender that never sends the signal"),))),
            f"{ALERT}: is connected for a sender that never sends the signal",
        ),
        (
            Snapshot(Trials((trial(Call(error="raised OSError", doubt="db:5432 is not to be reached")),))),
            f"alert: raised OSError for task_failure {AT}, and db:5432 is not to be reached",
        ),
    ],
)
def test_unknown(seen, message):
    found = judge(HandlersSurvive(), seen)
    assert (found.unknown, found.message()) == (True, f"cannot tell: {message}")


def test_handlers_by_name():
    """Others are not judged, and one that is not there is unknown."""
    others = trial(Call(error="raised ValueError"), name="shop.signals:other")
    found = verdict(others, trial(WELL, own=False), handlers=(ALERT,))
    assert found.healthy
    found = verdict(others, trial(WELL), handlers=("shop.signals:alarm",))
    assert found.message() == (
        f"cannot tell: shop.signals:alarm: is connected to no signal about a task (did you mean {ALERT}?)"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"handlers": ("alert",)}, 'handlers has "alert"; write "package.module:name"'),
        (
            {"allow": ("alert",)},
            'allow has "alert"; write "package.module:name" or "lost:package.module:name"',
        ),
        (
            {"allow": (f"slow:{ALERT}",)},
            f'allow has "slow:{ALERT}"; its kind is one of error, late, lost, retries, secret',
        ),
        ({"within": 0}, "within is 0, which no call can meet"),
    ],
)
def test_impossible_fields(fields, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        HandlersSurvive(**fields)


def test_table():
    found = verdict(
        trial(retry(0, SLACK, "log ERROR"), signal="task_retry"),
        trial(Call(error="raised ValueError"), unseen="was not called to the end: 60 s were over"),
    )
    assert found.table == (
        ("signal", "handler", "calls", "does", "wrong", "where"),
        ("task_failure", ALERT, "1", "nothing seen", "error, not called to the end", "shop/signals.py:12"),
        ("task_retry", ALERT, "1", f"{SLACK}, log ERROR", "", "shop/signals.py:12"),
    )


def test_an_error_with_a_payload_that_few_know_of_is_a_warning():
    rare = Call("shop.charge", "no reason", rare=True, error="raised TypeError: 'reason'")
    found = verdict(trial(WELL, rare, rare, signal="task_retry"))
    assert found.healthy
    (warning,) = found.warnings
    assert warning.line() == (
        f"alert raised TypeError: 'reason' for task_retry with no reason {AT}; wanted no error"
    )
