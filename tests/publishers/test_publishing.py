"""Functions that publish, in real processes and on real brokers while these are in trouble."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_celery_health.sandbox.brokers import choose
from tests.publishers.conftest import APP, Try

HANGS = "broker_hangs"
CUTS = "broker_cuts"


def line(code: str) -> int:
    """Of the app, where the code is for the first time."""
    return 1 + APP[: APP.index(code)].count("\n")


def row(verdict, world, process):
    return next(
        dict(zip(verdict.table[0], each, strict=True))
        for each in verdict.table
        if each[:2] == (world, process)
    )


def test_delay_as_the_guides_have_it_hangs_with_the_broker(attempt: Try) -> None:
    found = attempt("plain", HANGS)
    assert found.message() == (
        f"plain hung for 1.5 s while the broker hangs, at shop.py:{line('pack.delay')};"
        " wanted an end within 1.5 s"
        " (socket_timeout in the transport options of the connection that it publishes on)"
    )
    # It was only late: it went on when the broker did.
    assert row(found, HANGS, "used")["messages"] == row(found, HANGS, "new")["messages"] == "1"


@pytest.mark.slow
def test_a_new_process_never_gives_up_a_broker_that_refuses_without_retries(attempt: Try) -> None:
    found = attempt("not_again", "broker_refuses")
    assert found.message() == (
        f"not_again hung for 1.5 s while the broker refuses, at shop.py:{line('pack.apply_async')};"
        " wanted an end within 1.5 s"
        " (in a new process; max_retries in the transport options of the connection that it publishes on)"
    )
    assert row(found, "broker_refuses", "used")["ended"] == "raised"


@pytest.mark.slow
@pytest.mark.parametrize("function", ["well_bounded", "in_a_view"])
def test_bounded_producers_end_in_every_world_and_work_again(attempt: Try, function: str) -> None:
    found = attempt(function, "broker_refuses", HANGS, "broker_slow", "broker_blocks", CUTS, idempotent=True)
    assert (found.healthy, found.warnings) == (True, ()), found
    assert len(found.table) == 12
    assert {each[-1] for each in found.table[2:]} == {"returned, 1"}


@pytest.mark.slow
@pytest.mark.parametrize("function", ["own_connection", "second_app", "says_no", "three"])
def test_other_styles_that_are_right(attempt: Try, function: str) -> None:
    found = attempt(function, "broker_refuses", HANGS, "broker_resets", "broker_blocks", answers_within=2)
    assert found.healthy, found


@pytest.mark.slow
def test_a_result_backend_that_is_away_holds_up_who_has_bounded_all_else(
    of_broker: Callable[[str, str], Try],
) -> None:
    attempt = of_broker("", "shop_with_results")
    found = attempt("own_connection", "broker_refuses")
    assert found.message() == (
        "own_connection hung for 1.5 s while the broker refuses,"
        f" at shop_with_results.py:{line('connection=connection, retry=False)')};"
        " wanted an end within 1.5 s"
        " (it waits for the result backend: ignore_result=True, where nobody reads the result)"
    )
    assert attempt("bounded_without_result", "broker_refuses").healthy


@pytest.mark.slow
def test_what_is_sent_again_after_a_lost_answer_arrives_twice(attempt: Try) -> None:
    """As `delay()` does by itself."""
    found = attempt("plain", CUTS)
    assert found.message() == (
        "plain published 2 messages of pack while the broker is cut off in mid-reply; wanted 1 message"
        " (in one that has published before; the same message arrived again: kombu resent it; retry=False)"
    )
    (warning,) = attempt("plain", CUTS, idempotent=True).warnings
    assert "published 2 messages of pack" in warning.line()
    assert attempt("well_bounded", CUTS).healthy


@pytest.mark.slow
def test_what_the_project_publishes_again_is_no_retry_of_kombus(attempt: Try) -> None:
    """Each is a message of its own, and what it has called has retry=False."""
    found = attempt("again_by_itself", CUTS, answers_within=3)
    assert found.message() == (
        "again_by_itself published 2 messages of pack while the broker is cut off in mid-reply;"
        " wanted 1 message"
        " (in one that has published before; it was published again, as messages of their own:"
        " try again only where the task may run twice, with idempotent = true)"
    )
    (warning,) = attempt("again_by_itself", CUTS, answers_within=3, idempotent=True).warnings
    assert warning.line().endswith("it was published again, as messages of their own)")


def test_a_message_that_arrives_though_its_call_raised(attempt: Try) -> None:
    found = attempt("well_bounded", HANGS)
    assert found.healthy
    assert [warning.line().partition(" (")[0] for warning in found.warnings] == [
        "well_bounded sends pack, though it raised OperationalError while the broker hangs"
    ]


@pytest.mark.slow
def test_an_error_that_is_swallowed_loses_the_message(attempt: Try) -> None:
    found = attempt("says_nothing", "broker_refuses")
    assert found.message() == (
        "says_nothing loses pack: it returned while the broker refuses, and no message arrives;"
        " wanted its message, or an error"
    )


def test_an_answer_that_says_no_is_as_good_as_an_error(attempt: Try) -> None:
    found = attempt("says_no", "broker_refuses")
    assert found.healthy
    assert row(found, "broker_refuses", "used")["ended"] == "refused"


def test_a_publisher_that_does_not_recover(attempt: Try) -> None:
    found = attempt("once_only", "broker_refuses")
    assert found.message() == (
        "once_only still raised RuntimeError: Acquire on closed pool once the broker is well again after"
        " broker_refuses; wanted its message"
    )


def test_a_publisher_that_ends_its_process(attempt: Try) -> None:
    found = attempt("leaves", "broker_refuses")
    assert found.message() == (
        "leaves ended its process while the broker refuses: its process ended; wanted an end within 1.5 s"
    )


def test_an_outbox_is_published_by_somebody_else(attempt: Try) -> None:
    found = attempt("put_aside", HANGS)
    assert found.message() == (
        "put_aside publishes nothing while the broker is well; wanted a message"
        ' (name what publishes it later: then = "package.module:function")'
    )
    with_relay = attempt("put_aside", HANGS, then="shop:relay")
    assert with_relay.healthy, with_relay
    assert row(with_relay, HANGS, "new")["messages"] == "1"


def test_messages_that_are_none_of_celerys(attempt: Try) -> None:
    found = attempt("by_kombu", "broker_refuses")
    assert found.healthy, found
    assert row(found, "broker_refuses", "new")["afterwards"] == "returned, 1"


def test_a_call_that_fails_anyway(attempt: Try) -> None:
    found = attempt("fails", HANGS)
    assert found.message() == (
        f"fails raised KeyError while the broker is well, at shop.py:{line('raise KeyError')};"
        " wanted an end without error"
    )


@pytest.mark.parametrize("function", ["in_the_background", "later_without_a_bound"])
def test_a_thread_hangs_after_its_call_has_returned(attempt: Try, function: str) -> None:
    found = attempt(function, HANGS)
    assert found.message() == (
        f"{function} left a thread that hung for 1.5 s while the broker hangs,"
        f" at shop.py:{line('pack.delay')}; wanted an end within 1.5 s"
        " (socket_timeout in the transport options of the connection that it publishes on)"
    )
    assert row(found, HANGS, "used")["ended"] == "thread hung"


@pytest.mark.parametrize("function", ["later_in_silence", "in_a_pool", "in_a_task"])
def test_what_a_thread_or_task_loses_after_its_call_has_returned(attempt: Try, function: str) -> None:
    found = attempt(function, "broker_refuses")
    assert found.message() == (
        f"{function} loses pack: it returned while the broker refuses, and no message arrives;"
        " wanted its message, or an error"
    )
    assert row(found, "broker_refuses", "used")["afterwards"] == "returned, 1"


def test_a_task_that_holds_its_loop_up(attempt: Try) -> None:
    found = attempt("in_a_task_without_a_bound", HANGS)
    assert found.message().startswith(
        "in_a_task_without_a_bound hung for 1.5 s while the broker hangs,"
        f" at shop.py:{line('pack.delay')}; wanted an end within 1.5 s"
    )


def test_an_idle_thread_of_a_pool_does_not_hang(attempt: Try) -> None:
    found = attempt("waits_for_its_pool", "broker_refuses", HANGS)
    assert found.healthy, found
    assert row(found, HANGS, "new")["afterwards"] == "returned, 1"


def test_a_thread_that_publishes_when_the_fault_is_over_is_unknown(attempt: Try) -> None:
    found = attempt("too_late", "broker_refuses")
    assert found.unknown
    assert found.message() == (
        "cannot tell: too_late: what the call started publishes more than 1.5 s after it, when"
        " broker_refuses is over; raise answers_within"
    )


def test_a_broker_that_cannot_be_full(of_broker: Callable[[str], Try]) -> None:
    found = of_broker("fakeredis")("well_bounded", "broker_blocks")
    assert found.unknown
    assert "fakeredis" in found.message()
    assert "knows no limit of its memory" in found.message()


@pytest.fixture(scope="session")
def on_rabbitmq(of_broker: Callable[[str], Try]) -> Try:
    _, broker = choose("rabbitmq-server")
    if why := broker.available():
        pytest.skip(why)
    return of_broker("rabbitmq-server")


@pytest.mark.slow
def test_delay_on_rabbitmq(on_rabbitmq: Try) -> None:
    found = on_rabbitmq("plain", HANGS, "broker_blocks", answers_within=2)
    assert found.message().startswith(
        f"plain hung for 2 s while the broker hangs, at shop.py:{line('pack.delay')};"
        " wanted an end within 2 s"
        " (in a new process; connect_timeout"
    )
    # Without confirmations it returns at once, and what it sent waits in the socket.
    for world in (HANGS, "broker_blocks"):
        assert row(found, world, "used")["ended"] == "returned"
        assert row(found, world, "used")["messages"] == "1"


@pytest.mark.slow
def test_bounded_producers_on_rabbitmq(on_rabbitmq: Try) -> None:
    found = on_rabbitmq("well_bounded", "broker_refuses", HANGS, "broker_blocks")
    assert found.healthy, found
