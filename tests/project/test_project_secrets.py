from __future__ import annotations

import pytest

from pytest_celery_health.project.secrets import mask


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot reach redis://:s3@h/0, gave up", "cannot reach redis://:***@h/0, gave up"),
        ("'amqp://u:p/w@h//' and 'amqp://v:x@y@i//'", "'amqp://u:***@h//' and 'amqp://v:***@i//'"),
        ("see https://example.com/docs?a=1", "see https://example.com/docs?a=1"),
        ("mail me@example.com", "mail me@example.com"),
    ],
)
def test_passwords_in_a_text_of_the_users(text: str, shown: str) -> None:
    assert mask(text) == shown
