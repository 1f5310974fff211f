"""A contract that is right, and where its parts end up. What is wrong with others: test_mistakes.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from pytest_celery_health import BeatFresh, QueueDepth, WorkersAnswer
from pytest_celery_health.contract.model import Contract, Row, Silence, TargetSpec
from pytest_celery_health.contract.read import read
from pytest_celery_health.sandbox.spec import SandboxSpec

From = Callable[..., Contract]

WHOLE = """\
[tool.celery-health]
app = "shop.celery:app"
env = { DJANGO_SETTINGS_MODULE = "shop.settings" }
deadline = "5s"

[tool.celery-health.sandbox]
workers = 2
beat = ["heartbeat"]
redirect_env = ["REDIS_URL"]
start_within = "1min"

[tool.celery-health.target.staging]
broker = "env:STAGING_BROKER"
expect_host = "redis.stg.internal"

[tool.celery-health.check.workers]
use = "workers"
at_least = 2

[tool.celery-health.check.billing]
use = "queue"
queues = ["billing*", "invoices"]
ready_below = 1000
consumers_at_least = 1
on = ["sandbox", "staging"]
owner = "payments"
runbook = "https://run/billing"

[tool.celery-health.check.beat]
use = "beat"
heartbeat = "redis:celery_beat_heartbeat"
within = "2min"
severity = "warn"
if_unknown = "warn"
optional = true
silence = { until = 2026-12-01, why = "INC-812" }
"""


def test_the_whole_grammar(contract: From, project: Path) -> None:
    found = contract(WHOLE)

    assert found == Contract(
        path=project / "pyproject.toml",
        app="shop.celery:app",
        env={"DJANGO_SETTINGS_MODULE": "shop.settings"},
        deadline=5.0,
        sandbox=SandboxSpec(workers=2, beat=("heartbeat",), redirect_env=("REDIS_URL",), start_within=60.0),
        targets={
            "staging": TargetSpec("staging", "env:STAGING_BROKER", expect_host=("redis.stg.internal",)),
        },
        rows=(
            Row("workers", WorkersAnswer(at_least=2), line=16),
            Row(
                "billing",
                QueueDepth(("billing*", "invoices"), ready_below=1000, consumers_at_least=1),
                on=("sandbox", "staging"),
                owner="payments",
                runbook="https://run/billing",
                line=20,
            ),
            Row(
                "beat",
                BeatFresh(heartbeat="redis:celery_beat_heartbeat", within="2min"),
                severity="warn",
                if_unknown="warn",
                optional=True,
                silence=Silence(date(2026, 12, 1), "INC-812"),
                line=29,
            ),
        ),
    )


def test_any_toml_file_may_hold_the_contract(project: Path) -> None:
    path = project / "health.toml"
    path.write_text(WHOLE)

    assert len(read(path, today=date(2026, 11, 22)).rows) == 3


@pytest.mark.parametrize(
    "text",
    [
        "[tool.celery-health]",
        'tool = { celery-health = { app = "shop" } }',
        '[tool.celery-health]\napp = "shop"\n[tool.celery-health.check]',
    ],
)
def test_a_contract_without_rows_is_one_for_marked_tests(contract: From, text: str) -> None:
    assert contract(text).rows == ()


@pytest.mark.parametrize(
    "app",
    [
        "shop",
        "shop.celery",
        "shop.celery:app",
        "shop.celery:apps.main",
        "shop.app:create_app()",
        "größe:app",
    ],
)
def test_app_is_what_celery_takes_or_a_factory(contract: From, app: str) -> None:
    assert contract(f'[tool.celery-health]\napp = "{app}"').app == app


def test_a_row_s_name_is_the_subject_unless_another_is_given(contract: From) -> None:
    rows = contract("""
        [tool.celery-health]
        app = "shop"
        [tool.celery-health.check.billing]
        use = "queue"
        [tool.celery-health.check."emails.eu"]
        use = "queue"
        [tool.celery-health.check.others]
        use = "queue"
        queues = "a*"
    """).rows

    assert [row.check for row in rows] == [
        QueueDepth("billing"),
        QueueDepth("emails.eu"),
        QueueDepth("a*"),
    ]


def test_one_target_needs_no_list(contract: From) -> None:
    (row,) = contract("""
        [tool.celery-health]
        app = "shop"
        [tool.celery-health.check.workers]
        use = "workers"
        on = "sandbox"
    """).rows

    assert row.on == ("sandbox",)


def test_a_silence_holds_on_its_last_day(contract: From) -> None:
    (row,) = contract("""
        [tool.celery-health]
        app = "shop"
        [tool.celery-health.check.workers]
        use = "workers"
        silence = { until = 2026-11-22, why = "INC-812" }
    """).rows

    assert row.silence == Silence(date(2026, 11, 22), "INC-812")


def test_a_live_target_needs_no_app(contract: From) -> None:
    found = contract("""
        [tool.celery-health.target.staging]
        broker = "redis://redis.stg.internal/0;redis://10.0.0.7:6380/0"
        expect_host = ["Redis.STG.internal", "10.0.0.7:6380"]
        transport_options = { global_keyprefix = "shop:", sentinel_kwargs = { password = "env:SENTINEL" } }
        ca = "ca.pem"
        cert = "me.pem"
        key = "me.key"
        verify = false
        control_exchange = "shop"
        deadline = 2
        [tool.celery-health.check.workers]
        use = "workers"
    """)

    assert found.app == ""
    assert found.targets["staging"] == TargetSpec(
        "staging",
        "redis://redis.stg.internal/0;redis://10.0.0.7:6380/0",
        expect_host=("Redis.STG.internal", "10.0.0.7:6380"),
        transport_options={"global_keyprefix": "shop:", "sentinel_kwargs": {"password": "env:SENTINEL"}},
        ca="ca.pem",
        cert="me.pem",
        key="me.key",
        verify=False,
        control_exchange="shop",
        deadline=2.0,
    )
    assert found.deadline_of("staging") == 2.0
    assert found.deadline_of("sandbox") == 5.0


def test_a_hook_may_say_what_the_app_is(contract: From) -> None:
    text = '[tool.celery-health.check.workers]\nuse = "workers"'

    assert contract(text, app_from_hook=True).app == ""


class TestHeartbeat:
    """What a check means that names no heartbeat: the one that the rows name."""

    ROW = '[tool.celery-health.check.{0}]\nuse = "beat"\nheartbeat = "redis:{1}"\n'
    APP = '[tool.celery-health]\napp = "shop"\n'

    def test_of_the_one_row_that_names_it(self, contract: From) -> None:
        found = contract(self.APP + self.ROW.format("a", "x") + '[tool.celery-health.check.b]\nuse = "beat"')

        assert found.heartbeat == BeatFresh(heartbeat="redis:x")

    def test_of_rows_that_agree(self, contract: From) -> None:
        found = contract(self.APP + self.ROW.format("a", "x") + self.ROW.format("b", "x"))

        assert found.heartbeat is not None
        assert found.heartbeat.heartbeat == "redis:x"

    def test_none_where_rows_disagree(self, contract: From) -> None:
        assert contract(self.APP + self.ROW.format("a", "x") + self.ROW.format("b", "y")).heartbeat is None


THIRD_PARTY = """
from __future__ import annotations
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar
from pytest_celery_health import Check

@dataclass(frozen=True)
class NoPoison(Check):
    subject: ClassVar[str] = "queue"
    queue: str
    _: KW_ONLY
    at_most: int = 0

    def asks(self): return ()
    def judge(self, seen): yield from ()
"""


def test_a_check_of_the_project_s_own(contract: From, project: Path) -> None:
    (project / "shop_checks").mkdir()
    (project / "shop_checks" / "poison.py").write_text(THIRD_PARTY)

    rows = contract("""
        [tool.celery-health]
        app = "shop"
        [tool.celery-health.check.dlq]
        use = "shop_checks.poison:NoPoison"
        [tool.celery-health.check.other]
        use = "shop_checks.poison:NoPoison"
        queue = "dead"
        at_most = 3
    """).rows

    from shop_checks.poison import NoPoison  # type: ignore[import-not-found]

    assert [row.check for row in rows] == [NoPoison("dlq"), NoPoison("dead", at_most=3)]
    assert str(project) in sys.path


def test_sys_path_is_left_alone_without_one(contract: From, project: Path) -> None:
    contract(WHOLE)

    assert str(project) not in sys.path


def test_a_table_keeps_its_line_among_values_of_many_lines(contract: From) -> None:
    rows = contract('''\
        [tool.other]
        text = """
        [tool.celery-health.check.workers]
        """
        list = [
            "[tool.celery-health.check.workers]",
            "x = 1",  # ]
        ]

        [tool.celery-health]
        app = "shop"
        check.workers = { use = "workers" }

        [tool.celery-health.check."bill.eu"]  # a comment
        use = "queue"
    ''').rows

    assert [(row.name, row.line) for row in rows] == [("workers", 12), ("bill.eu", 14)]
