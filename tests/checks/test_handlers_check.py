from __future__ import annotations

import pytest

from pytest_celery_health import Handler, Handlers, HandlersConnected, Snapshot, Unseen, judge

ALERT = "shop.signals:alert"
AT = "shop/signals.py:12"


def verdict(*handlers, check=None, modules=("shop.signals",), version="5.7.0"):
    seen = Handlers(handlers, frozenset(modules), version)
    return judge(check or HandlersConnected(), Snapshot(seen))


def alert(signal="task_failure", **said):
    return Handler(signal, said.pop("name", ALERT), said.pop("where", AT), **said)


def test_connected_handlers():
    """Whatever the signal sends may be asked for by name, what the documentation leaves out included."""
    found = verdict(
        alert(needs=("sender", "task_id", "exception", "einfo", "signal")),
        alert("task_postrun", needs=("state",)),
        alert("after_task_publish", needs=("headers",), sender='"shop.charge"', sender_kind="text"),
        alert("task_retry", sender="shop.charge", sender_kind="task"),
        alert("celeryd_init", sender='"w1@host"', sender_kind="text"),
        check=HandlersConnected(expected=(f"task_failure:{ALERT}",)),
    )
    assert (found.healthy, found.message()) == (True, "5 handlers connected to 5 signals")
    assert found.findings[0].figures == {"handlers": 5}


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (
            alert(state="collected"),
            "alert was collected, as it is connected weakly to task_failure (shop/signals.py:12); "
            "wanted connected (connect it with weak=False, or define it at module level)",
        ),
        (
            alert(state="collected", kind="method", name="shop.signals:Alerts.send"),
            "Alerts.send was collected, as it is connected weakly to task_failure (shop/signals.py:12); "
            "wanted connected (connect it with weak=False, or keep its object)",
        ),
        (
            alert(state="shadowed", dispatch_uid="alert"),
            'alert is not connected to task_failure: its dispatch_uid "alert" is another handler\'s '
            "(shop/signals.py:12); wanted connected (give it a dispatch_uid of its own)",
        ),
        (
            alert(state="shadowed", kind="method"),
            "alert is not connected to task_failure: its identity is another handler's "
            "(shop/signals.py:12); wanted connected (give it a dispatch_uid of its own)",
        ),
        (
            alert(sender='"shop.charge"', sender_kind="text"),
            'alert is never called: connected to task_failure for "shop.charge", a text, which never'
            " sends it "
            "(shop/signals.py:12); wanted the task itself",
        ),
        (
            alert("before_task_publish", sender="shop.charge", sender_kind="task"),
            "alert is never called: connected to before_task_publish for shop.charge, a task, which"
            " never sends it "
            "(shop/signals.py:12); wanted the task's name",
        ),
        (
            alert("worker_ready", sender='"w1@host"', sender_kind="text"),
            'alert is never called: connected to worker_ready for "w1@host", a text, which never sends it '
            "(shop/signals.py:12); wanted no sender, as the consumer sends it",
        ),
        (
            alert("setup_logging", sender="shop", sender_kind="app"),
            "alert is never called: connected to setup_logging for shop, an app, which never sends it "
            "(shop/signals.py:12); wanted no sender, as Celery names none",
        ),
        (
            alert(sender="shop.charge", sender_kind="another app's task"),
            "alert is never called: connected to task_failure for shop.charge, another app's task,"
            " which never sends it "
            "(shop/signals.py:12); wanted the task itself",
        ),
        (
            alert(kind="async def"),
            "alert is an async def, so task_failure calls it and its body never runs (shop/signals.py:12); "
            "wanted a plain function",
        ),
        (
            alert(kind="generator"),
            "alert is a generator, so task_failure calls it and its body never runs (shop/signals.py:12); "
            "wanted a plain function",
        ),
        (
            alert("task_retry", needs=("sender", "retries", "reason", "task_id")),
            "alert needs retries and task_id, which task_retry never sends (shop/signals.py:12); "
            "wanted sender, request, reason or einfo",
        ),
        (
            alert("worker_ready", needs=("instance",)),
            "alert needs instance, which worker_ready never sends (shop/signals.py:12); wanted sender",
        ),
        (
            alert(needs=("sender", "task_id"), by_position=("sender",)),
            "alert takes sender by position only (shop/signals.py:12); "
            "wanted keywords, as signals pass nothing else",
        ),
        (
            alert(retry=True, weak=False),
            "alert has retry=True, connected to task_failure (shop/signals.py:12); wanted retry=False "
            "(while it fails it is called again and again, and nothing else runs there)",
        ),
    ],
)
def test_handler_that_cannot_do_what_it_is_for(handler, message):
    """Each mistake is unhealthy, and told with the place that connects the handler."""
    found = verdict(handler)
    assert (found.unhealthy, found.message()) == (True, message)


def test_parameter_that_came_with_a_later_celery():
    """task_success tells its runtime since Celery 5.7."""
    handler = alert("task_success", needs=("runtime",))
    assert verdict(handler).healthy
    assert verdict(handler, version="5.6.2").message() == (
        "alert needs runtime, which task_success never sends (shop/signals.py:12); wanted sender or result"
    )


@pytest.mark.parametrize(
    ("others", "modules", "message"),
    [
        (
            (),
            (),
            "alert is not connected to task_failure: shop.signals is never imported; wanted connected "
            "(add its module to imports or include, or import it where the app is made)",
        ),
        (
            (alert(name="signals:alert"),),
            ("signals",),
            "alert is not connected to task_failure: shop.signals is never imported; wanted connected "
            "(did you mean signals:alert?)",
        ),
        (
            (alert(name="shop.signals:alarm"),),
            ("shop.signals",),
            "alert is not connected to task_failure, though shop.signals is imported; wanted connected "
            "(did you mean shop.signals:alarm?)",
        ),
        (
            (alert("task_retry"), alert("task_unknown")),
            ("shop.signals",),
            "alert is not connected to task_failure but to task_retry and task_unknown (shop/signals.py:12); "
            "wanted connected",
        ),
        (
            (alert(state="disconnected"),),
            ("shop.signals",),
            "alert is disconnected from task_failure again (shop/signals.py:12); wanted connected",
        ),
    ],
)
def test_expected_handler_that_is_not_there(others, modules, message):
    """Why it is not is told as far as it is known."""
    check = HandlersConnected(expected=(f"task_failure:{ALERT}",))
    found = verdict(*others, check=check, modules=modules)
    assert (found.unhealthy, found.message()) == (True, message)


def test_expected_handler_that_is_there_and_broken_is_told_once():
    found = verdict(alert(state="collected"), check=HandlersConnected(expected=(f"task_failure:{ALERT}",)))
    assert [finding.seen for finding in found.bad] == [
        "was collected, as it is connected weakly to task_failure (shop/signals.py:12)"
    ]


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        (
            alert(code=1),
            alert(code=1, name="signals:alert", where="signals.py:12"),
            "alert is connected twice to task_failure, as shop.signals:alert and as signals:alert "
            "(signals.py:12); wanted once (import its module by one name only)",
        ),
        (
            alert(code=1),
            alert(code=1, where="shop/app.py:3", sender="shop.charge", sender_kind="task"),
            "alert is connected twice to task_failure: for any sender at shop/signals.py:12 "
            "and for shop.charge at shop/app.py:3; wanted once",
        ),
        (
            alert(code=1, dispatch_uid="a"),
            alert(code=1, dispatch_uid="b", where="shop/app.py:3"),
            "alert is connected twice to task_failure: for any sender at shop/signals.py:12 "
            "and for any sender at shop/app.py:3; wanted once",
        ),
    ],
)
def test_handler_that_is_called_twice(one, other, message):
    found = verdict(one, other)
    assert (found.unhealthy, found.message()) == (True, message)


def test_one_function_for_two_signals_and_for_two_senders():
    """It is called once for each."""
    tasks = [alert(code=1, sender=name, sender_kind="task") for name in ("shop.charge", "shop.ship")]
    assert verdict(*tasks, alert("task_retry", code=1)).healthy
    assert verdict(alert(code=1), alert(code=2, where="shop/signals.py:30")).healthy
    assert verdict(alert(code=1), alert(code=1, state="disconnected")).healthy


def test_handlers_of_installed_packages_are_judged_only_when_expected():
    """Their mistakes are theirs, until a contract relies on them."""
    broken = alert(state="collected", own=False, name="acme:report")
    assert verdict(alert(), broken).healthy
    assert verdict(alert(), broken, check=HandlersConnected(expected=("task_failure:acme:report",))).unhealthy


def test_mistakes_that_a_project_accepts():
    assert verdict(alert(retry=True), check=HandlersConnected(allow=(ALERT,))).healthy
    both = HandlersConnected(allow=(ALERT,), expected=(f"task_failure:{ALERT}",))
    assert verdict(alert(state="collected"), check=both).unhealthy


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (Snapshot(), "cannot tell: it was not looked at (handlers)"),
        (
            Snapshot(unseen={Handlers: Unseen("shop.celery:app failed to load: KeyError: 'X'")}),
            "cannot tell: shop.celery:app failed to load: KeyError: 'X' (handlers)",
        ),
        (Snapshot(Handlers()), "cannot tell: handlers: the app connects none of its own"),
        (
            Snapshot(Handlers((alert(own=False, name="acme:report"),))),
            "cannot tell: handlers: the app connects none of its own",
        ),
    ],
)
def test_unknown(seen, message):
    """No handler at all proves nothing."""
    found = judge(HandlersConnected(), seen)
    assert (found.unknown, found.message()) == (True, message)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"expected": (f"task_failed:{ALERT}",)},
            f'expected has "task_failed:{ALERT}", and Celery has no signal task_failed; '
            "did you mean task_failure?",
        ),
        (
            {"expected": (ALERT,)},
            f'expected has "{ALERT}"; write "task_failure:package.module:name"',
        ),
        ({"allow": ("alert",)}, 'allow has "alert"; write "package.module:name"'),
    ],
)
def test_impossible_fields(fields, message):
    with pytest.raises(ValueError, match="^" + message.replace("?", r"\?").replace(".", r"\.") + "$"):
        HandlersConnected(**fields)


def test_table_of_all_handlers():
    """By signal, the project's own first; what a reader needs to find the place."""
    found = verdict(
        alert("task_retry", state="collected"),
        alert(own=False, name="acme:report", where="acme/celery.py:3", weak=False),
        alert(sender="shop.charge", sender_kind="task", retry=True, weak=False),
    )
    assert found.table == (
        ("signal", "handler", "sender", "kind", "held", "where"),
        ("task_failure", ALERT, "shop.charge", "function, retried", "strongly", AT),
        ("task_failure", "acme:report", "any", "function", "strongly", "acme/celery.py:3"),
        ("task_retry", ALERT, "any", "function", "collected", AT),
    )
    assert judge(HandlersConnected(), Snapshot(unseen={Handlers: Unseen("it does not load")})).table == ()
