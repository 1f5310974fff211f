"""What Celery never sends is refused; tests/test_signal_table.py holds the table against Celery."""

from __future__ import annotations

import pytest

from pytest_celery_health.record import payloads


def test_what_only_newer_versions_send_is_refused_before() -> None:
    payloads.check("task_success", ["runtime"], "5.7.0")
    with pytest.raises(TypeError) as refused:
        payloads.check("task_success", ["runtime"], "5.4.0")
    assert str(refused.value) == (
        "Celery never sends 'runtime' with task_success before 5.7 (this is 5.4.0); it sends result"
    )
