from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pytest_celery_health import (
    AskPublishers,
    Published,
    PublisherEnds,
    Publishing,
    Snapshot,
    Unseen,
    judge,
)
from pytest_celery_health.checks.publisher import USUAL, WORLDS
from pytest_celery_health.sandbox.faults import FAULTS
from pytest_celery_health.sandbox.faults.base import BROKER

CALL = "shop.orders:place_order"
SENT = {"shop.tasks.pack": 1}
WELL = Publishing("healthy", arrived=SENT, took=0.01)
AGAIN = Publishing("broker_hangs", arrived=SENT)
RAISED = Publishing("broker_hangs", "used", "raised", 1.0, "OperationalError: timed out", "shop/orders.py:9")


def verdict(*seen, healthy=WELL, broker="redis", **fields):
    published = Published(healthy, seen, CALL, fields.get("then", ""), 3.0, broker)
    return judge(PublisherEnds(CALL, **fields), Snapshot(published))


def test_every_call_ends_in_time_and_its_message_arrives_once():
    found = verdict(
        replace(RAISED, again=AGAIN),
        Publishing("broker_slow", "new", "returned", 1.2, arrived=SENT),
        Publishing("broker_refuses", "new", "refused", 0.1, "HTTP 503"),
    )
    assert (found.healthy, found.warnings) == (True, ())
    assert found.message() == "place_order ended within 1.2 s whatever the broker did"
    assert found.findings[-1].figures["broker_slow.new.took"] == 1.2


@pytest.mark.parametrize(
    ("healthy", "message"),
    [
        (
            Publishing("healthy", ended="raised", error="KeyError: 'item'", at="shop/orders.py:9"),
            "place_order raised KeyError while the broker is well, at shop/orders.py:9;"
            " wanted an end without error",
        ),
        (
            Publishing("healthy", ended="refused", error="HTTP 500"),
            "place_order returned HTTP 500 while the broker is well; wanted an end without error",
        ),
        (
            Publishing("healthy"),
            "place_order publishes nothing while the broker is well; wanted a message"
            ' (name what publishes it later: then = "package.module:function")',
        ),
        (
            Publishing("healthy", ended="hung", took=3.0, at="shop/orders.py:9 in place_order"),
            "place_order hung for 3 s while the broker is well, at shop/orders.py:9;"
            " wanted an end within 3 s",
        ),
    ],
)
def test_what_is_wrong_before_anything_is_wrong_with_the_broker(healthy, message):
    found = verdict(healthy=healthy)
    assert (found.unhealthy, str(found)) == (True, message)


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (
            Publishing("broker_hangs", "used", "hung", 3.0, at="shop/orders.py:12 in place_order"),
            "place_order hung for 3 s while the broker hangs, at shop/orders.py:12; wanted an end within 3 s"
            " (socket_timeout in the transport options of the connection that it publishes on)",
        ),
        (
            Publishing("broker_refuses", "used", "raised", 4.04, "OperationalError: refused"),
            "place_order took 4 s while the broker refuses; wanted an end within 3 s"
            " (max_retries in the transport options of the connection that it publishes on)",
        ),
        (
            Publishing("broker_slow", "used", "died", error="its process ended"),
            "place_order ended its process while the broker is slow: its process ended;"
            " wanted an end within 3 s",
        ),
        (
            Publishing("broker_refuses", "used", "returned"),
            "place_order loses shop.tasks.pack: it returned while the broker refuses, and no message arrives;"
            " wanted its message, or an error",
        ),
        (
            replace(RAISED, arrived={"shop.tasks.pack": 4}, resent={"shop.tasks.pack": 3}),
            "place_order published 4 messages of shop.tasks.pack while the broker hangs; wanted 1 message"
            " (the same message arrived again: kombu resent it; retry=False)",
        ),
        (
            replace(RAISED, arrived={"shop.tasks.pack": 4}),
            "place_order published 4 messages of shop.tasks.pack while the broker hangs; wanted 1 message"
            " (it was published again, as messages of their own:"
            " try again only where the task may run twice, with idempotent = true)",
        ),
        (
            replace(RAISED, arrived={"shop.tasks.pack": 4}, resent={"shop.tasks.pack": 2}),
            "place_order published 4 messages of shop.tasks.pack while the broker hangs; wanted 1 message"
            " (the same message arrived again: kombu resent it; retry=False; it was published again, as"
            " messages of their own: try again only where the task may run twice, with idempotent = true)",
        ),
        (
            Publishing("broker_slow", "used", "returned", 3.004, arrived=SENT),
            "place_order took 3 s and 4 ms while the broker is slow; wanted an end within 3 s"
            " (socket_timeout in the transport options of the connection that it publishes on)",
        ),
        (
            Publishing("broker_hangs", "used", "hung", 3.0, at="shop/orders.py:9", thread=True),
            "place_order left a thread that hung for 3 s while the broker hangs, at shop/orders.py:9;"
            " wanted an end within 3 s (socket_timeout in the transport options of the connection that it"
            " publishes on)",
        ),
        (
            Publishing("broker_hangs", "used", "hung", 3.0, at="shop/orders.py:9", backend=True),
            "place_order hung for 3 s while the broker hangs, at shop/orders.py:9; wanted an end within 3 s"
            " (it waits for the result backend: ignore_result=True, where nobody reads the result)",
        ),
        (
            replace(RAISED, again=replace(RAISED, error="RuntimeError: Acquire on closed pool")),
            "place_order still raised RuntimeError: Acquire on closed pool once the broker is well again"
            " after broker_hangs; wanted its message",
        ),
        (
            replace(RAISED, again=Publishing("broker_hangs", "used", "hung", 3.0, at="shop/orders.py:12")),
            "place_order hung for 3 s while the broker is well again after broker_hangs,"
            " at shop/orders.py:12; wanted an end within 3 s",
        ),
        (
            replace(RAISED, again=Publishing("broker_hangs")),
            "place_order loses shop.tasks.pack: it returned once the broker is well again after broker_hangs,"
            " and no message arrives; wanted its message, or an error",
        ),
    ],
)
def test_what_is_wrong_with_a_call(seen, message):
    found = verdict(seen)
    assert (found.unhealthy, str(found)) == (True, message)


def test_a_message_that_arrives_though_its_call_raised_is_a_warning():
    found = verdict(replace(RAISED, arrived=SENT))
    assert found.healthy
    assert [warning.line() for warning in found.warnings] == [
        "place_order sends shop.tasks.pack, though it raised OperationalError while the broker hangs"
        " (who tries again publishes twice: idempotent = true, if the task may run twice)"
    ]
    assert not verdict(replace(RAISED, arrived=SENT), idempotent=True).warnings


def test_what_is_published_twice_is_a_warning_where_it_does_no_harm():
    found = verdict(replace(RAISED, arrived={"shop.tasks.pack": 2}), idempotent=True)
    assert (found.healthy, len(found.warnings)) == (True, 1)


def test_who_has_sent_again_is_not_known_of_messages_that_are_none_of_celerys():
    well = Publishing("healthy", arrived={"": 1})
    found = verdict(Publishing("broker_hangs", arrived={"": 2}), healthy=well)
    assert found.message() == (
        "place_order published 2 messages while the broker hangs; wanted 1 message"
        " (resent by kombu (retry=False), or published again by a retry of its own)"
    )


def test_some_messages_of_many():
    well = Publishing("healthy", arrived={"pack": 3, "": 1})
    found = verdict(Publishing("broker_hangs", "used", "returned", arrived={"pack": 2, "": 1}), healthy=well)
    assert found.message().startswith("place_order loses pack: it returned")
    assert "and 2 of 3 messages arrive" in found.message()
    assert len(found.bad) == 1


def test_the_same_mistake_in_both_processes_is_told_once_and_where_in_only_one():
    hung = Publishing("broker_hangs", "used", "hung", 3.0)
    both = verdict(hung, replace(hung, process="new"))
    assert (len(both.bad), "process" in both.message()) == (1, False)
    only = verdict(RAISED, replace(hung, process="new"))
    assert only.message().endswith(
        "(in a new process; socket_timeout in the transport options of the connection that it publishes on)"
    )
    assert "(in one that has published before; " in verdict(hung, replace(RAISED, process="new")).message()


def test_each_transport_has_its_remedy():
    hung = Publishing("broker_hangs", "new", "hung", 3.0)
    assert "connect_timeout" in verdict(hung, broker="amqp").message()
    refused = Publishing("broker_refuses", "new", "hung", 3.0)
    assert "max_retries" in verdict(refused, broker="amqp").message()


def test_a_world_that_this_broker_has_not_is_unknown_where_it_was_named():
    seen = (RAISED, Publishing("broker_blocks", impossible="broker_blocks: fakeredis knows no limit"))
    assert verdict(*seen).healthy
    named = verdict(*seen, when=("broker_hangs", "broker_blocks"))
    assert (named.unknown, named.message()) == (
        True,
        "cannot tell: place_order: broker_blocks: fakeredis knows no limit",
    )
    assert verdict(Publishing("broker_slow", unseen="the broker is gone")).unknown


def test_the_table_has_a_row_for_each_call():
    found = verdict(
        replace(RAISED, again=AGAIN),
        Publishing("broker_slow", "new", "hung", 3.0),
        Publishing("broker_blocks", impossible="no"),
        Publishing("broker_refuses", unseen="no"),
    )
    assert found.table == (
        ("world", "process", "ended", "took", "messages", "afterwards"),
        ("healthy", "used", "returned", "0.01 s", "1", "-"),
        ("broker_hangs", "used", "raised", "1 s", "0", "returned, 1"),
        ("broker_slow", "new", "hung", "3 s", "0", "-"),
        ("broker_blocks", "", "n/a", "", "", ""),
        ("broker_refuses", "", "?", "", "", ""),
    )


def test_calls_that_were_not_made():
    check = PublisherEnds(CALL)
    other = Published(WELL, (RAISED,), CALL, "shop.outbox:relay")
    assert judge(check, Snapshot(other)).unknown
    found = judge(check, Snapshot(unseen={Published: Unseen("shop.orders failed: ImportError")}))
    assert found.message() == "cannot tell: place_order: shop.orders failed: ImportError"


def test_it_asks_for_what_it_is_to_try():
    (ask,) = PublisherEnds(CALL, answers_within="2s", when=("broker_slow",)).asks()
    assert ask == AskPublishers(CALL, "", ("broker_slow",), 2.0)
    assert ask.joined(AskPublishers(CALL, "", ("broker_hangs", "broker_slow"), 1.0)) == AskPublishers(
        CALL, "", ("broker_slow", "broker_hangs"), 2.0
    )
    assert ask.joined(AskPublishers(CALL, "shop.outbox:relay", ("broker_slow",), 2.0)) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"call": "place_order"}, 'call is "place_order"; write "package.module:function"'),
        ({"call": ""}, 'call is ""; write'),
        ({"then": "shop.outbox"}, 'then is "shop.outbox"; write'),
        ({"answers_within": 0}, "answers_within is 0, which no call can meet"),
        ({"answers_within": "soon"}, "answers_within: 'soon' is not a duration"),
        ({"when": ()}, 'when is empty; write ["broker_refuses"'),
        ({"when": ("broker_hang",)}, "which is no fault of a broker; did you mean broker_hangs?"),
        ({"when": ("moon",)}, 'when has "moon", which is no fault of a broker; there are broker_refuses,'),
    ],
)
def test_what_no_contract_can_mean(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        PublisherEnds(**{"call": CALL, **fields})


def test_every_world_is_a_fault_of_the_broker():
    assert {*USUAL} <= {*WORLDS}
    for world in WORLDS:
        assert BROKER in FAULTS[world].takes
