"""Passwords stay out of messages, however they are written."""

from __future__ import annotations

import pytest

from pytest_celery_health.masking import mask, masked_url, secrets_in


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see amqp://u:hunter2@h/ for more", "see amqp://u:***@h/ for more"),
        ("cannot reach redis://:s3@h/0, gave up", "cannot reach redis://:***@h/0, gave up"),
        ("'amqp://u:p/w@h//' and 'amqp://v:x@y@i//'", "'amqp://u:***@h//' and 'amqp://v:***@i//'"),
        ("see https://example.com/docs?a=1", "see https://example.com/docs?a=1"),
        ("mail me@example.com", "mail me@example.com"),
    ],
)
def test_a_password_that_nobody_named_is_hidden_in_a_url(text: str, shown: str) -> None:
    assert mask(text) == shown


def test_a_short_password_goes_where_it_is_a_word() -> None:
    assert mask("pw a was rejected at a host", ("a",)) == "pw *** was rejected at *** host"


def test_passwords_in_options_are_found_also_nested_ones() -> None:
    options = {"master_name": "m", "sentinel_kwargs": {"password": "deep"}, "ssl": {"ssl_password": "key"}}
    assert set(secrets_in("redis://:top@h", options)) == {"top", "deep", "key"}
