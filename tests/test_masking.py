"""Passwords stay out of messages, however they are written."""

from __future__ import annotations

import pytest

from pytest_celery_health.masking import hosts_of, mask, masked_url, secrets_in, wrong_host


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:s3cret@h:6379/0", "redis://:***@h:6379/0"),
        ("amqp://me:s3cret@h//", "amqp://me:***@h//"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://s3cret@h", "redis://***@h"),
        ("redis://:s3/cr#e?t@h/1", "redis://:***@h/1"),
        ("redis://:a@b@h/1?x=1", "redis://:***@h/1?x=1"),
        (
            "redis+socket:///run/r.sock?password=s3cret&virtual_host=2",
            "redis+socket:///run/r.sock?password=***&virtual_host=2",
        ),
        ("amqp://a:s3@x;amqp://b:s4@y", "amqp://a:***@x;amqp://b:***@y"),
        ("not a url", "not a url"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert masked_url(url) == shown


@pytest.mark.parametrize(
    "text",
    [
        "AUTH p@ss/word failed",
        "cannot reach redis://:p%40ss%2Fword@h/0",
        "cannot reach redis://:p%40ss/word@h/0",
        "{'password': 'p@ss/word'}",
    ],
)
def test_a_password_is_found_in_a_text_encoded_or_not(text: str) -> None:
    hidden = mask(text, secrets_in("redis://:p%40ss%2Fword@h/0"))
    assert "word'" not in hidden.replace("'password'", "")
    assert "***" in hidden
    assert "ss" not in hidden.replace("pass", "").replace("password", "")


def test_a_password_that_nobody_named_is_hidden_in_a_url() -> None:
    assert mask("see amqp://u:hunter2@h/ for more") == "see amqp://u:***@h/ for more"


def test_a_short_password_goes_where_it_is_a_word() -> None:
    assert mask("pw a was rejected at a host", ("a",)) == "pw *** was rejected at *** host"


def test_passwords_in_options_are_found_also_nested_ones() -> None:
    options = {"master_name": "m", "sentinel_kwargs": {"password": "deep"}, "ssl": {"ssl_password": "key"}}
    assert set(secrets_in("redis://:top@h", options)) == {"top", "deep", "key"}


def test_hosts() -> None:
    assert hosts_of("redis://:pw@Redis.Stg.Internal:6379/0") == ("redis.stg.internal",)
    assert hosts_of("amqp://a;amqp://b:1//") == ("a", "b")
    assert hosts_of("redis://[::1]:6379") == ("::1",)
    assert hosts_of("redis://") == ("localhost",)
    assert hosts_of("redis+socket:///run/r.sock") == ("/run/r.sock",)


def test_every_host_of_a_failover_list_must_be_the_expected_one() -> None:
    assert wrong_host("redis://:pw@stg.internal:1;redis://stg.internal:2", "stg.internal") == ""
    assert wrong_host("redis://stg.internal;redis://prod.internal", "stg.internal") == "prod.internal"
