"""A live target: looked at within bounds, waited for, never changed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kombu import Connection, Exchange, Queue
from redis import Redis

from tests.observe.proxy import close, hang, http, server
from tests.plugin.conftest import PLUGIN, SECRET, STAGING, Project
from tests.support.timing import wait_until

TARGET = "--celery-health-target=staging"


def fill(redis: Redis, queue: str, count: int) -> None:
    redis.lpush(queue, *(["{}"] * count))


class Gate:
    """A health run as a process of its own, whose output is read while it runs."""

    def __init__(self, project: Project, *args: str) -> None:
        self.log = project.pytester.path / "gate.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *PLUGIN, "--celery-health", TARGET, *args],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=project.pytester.path,
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def says(self, text: str) -> None:
        wait_until(lambda: text in self.output or self.process.poll() is not None, within=30, what=text)
        assert text in self.output

    def ends(self) -> int:
        return self.process.wait(30)


@pytest.fixture
def gates() -> Iterator[list[Gate]]:
    started: list[Gate] = []
    yield started
    for gate in started:
        gate.process.kill()
        gate.process.wait()


def test_a_queue_over_its_threshold_fails(project: Project, staging: Redis) -> None:
    fill(staging, "billing", 7)
    fill(staging, "invoices", 1)
    result = project.run(TARGET)
    result.assert_outcomes(passed=1, failed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "queue     ready  *",
            "billing   7 / 5  [[]####################]  0",
            "invoices  1 / 5  [[]####................]  0",
            "2 checks: 1 healthy, 1 unhealthy · 1 look, *",
            "FAILED pyproject.toml::billing[[]staging[]] - billing holds 7 ready messages; wanted below 5*",
        ]
    )


def test_looking_changes_nothing(project: Project, staging: Redis) -> None:
    fill(staging, "billing", 3)
    before = {key: staging.dump(key) for key in staging.scan_iter()}
    project.run(TARGET)
    assert {key: staging.dump(key) for key in staging.scan_iter()} == before


@pytest.mark.parametrize("args", [[], ["-vv", "--showlocals", "--tb=long"], ["--junitxml=report.xml", "-rA"]])
def test_the_password_shows_nowhere(
    project: Project, staging: Redis, monkeypatch: pytest.MonkeyPatch, args: list[str]
) -> None:
    staging.config_set("requirepass", SECRET)
    monkeypatch.setenv("STAGING_BROKER", f"redis://:{SECRET}-wrong@127.0.0.1:{port(staging)}/0")
    result = project.run(TARGET, *args)
    assert result.ret == 6
    result.stdout.fnmatch_lines(
        ["ERROR pyproject.toml::billing[[]staging[]] - cannot tell: password rejected by*"]
    )
    written = "".join(path.read_text() for path in project.pytester.path.glob("*.xml"))
    assert SECRET not in str(result.stdout) + str(result.stderr) + written


def port(redis: Redis) -> int:
    return int(redis.connection_pool.connection_kwargs["port"])


def test_a_broker_that_refuses_is_unknown(
    project: Project, staging: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGING_BROKER", f"redis://:{SECRET}@127.0.0.1:1/0")
    result = project.run(TARGET)
    result.assert_outcomes(errors=2)
    assert result.ret == 6
    result.stdout.fnmatch_lines(
        [
            "ERROR pyproject.toml::billing[[]staging[]] - cannot tell: "
            "connection refused by redis://:***@127.0.0.1:1/0*"
        ]
    )


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["redis", "amqp"])
@pytest.mark.parametrize(
    ("serve", "evidence"),
    [
        (None, "connection refused by"),
        (hang, "no answer (2 s)"),
        (close, "connection closed"),
        (http, "another protocol"),
    ],
    ids=["refuses", "hangs", "closes", "speaks HTTP"],
)
def test_a_narrow_terminal_shows_the_evidence(
    project: Project,
    staging: Redis,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    serve: Callable[[socket.socket], None] | None,
    evidence: str,
) -> None:
    """pytest cuts the lines of its short summary at the terminal's width: the URL may go."""
    monkeypatch.setenv("COLUMNS", "80")
    with server(serve or hang) as port:
        url = f"{scheme}://:{SECRET}@127.0.0.1:{port if serve else 1}/0"
        monkeypatch.setenv("STAGING_BROKER", url)
        result = project.run(TARGET)
    (line,) = (line for line in result.outlines if line.startswith("ERROR pyproject.toml::billing"))
    assert line.startswith(f"ERROR pyproject.toml::billing[staging] - cannot tell: {evidence}")
    assert len(line) <= 80


@pytest.mark.parametrize(
    ("wrong", "evidence"),
    [
        ("redis://:nope@127.0.0.1:{port}/0", "password rejected by"),
        ("redis://nope.invalid/0", "no such host: "),
    ],
)
def test_a_narrow_terminal_shows_whose_fault_it_is(
    project: Project, staging: Redis, monkeypatch: pytest.MonkeyPatch, wrong: str, evidence: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("STAGING_BROKER", wrong.format(port=port(staging)))
    expected = 'expect_host = ["127.0.0.1", "nope.invalid"]'
    project.contract(STAGING.replace('expect_host = "127.0.0.1"', expected))
    result = project.run(TARGET)
    result.stdout.fnmatch_lines([f"ERROR pyproject.toml::billing[[]staging[]] - cannot tell: {evidence}*"])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "redis://localhost:1/0",
            "*its broker is localhost; expect_host wants 127.0.0.1; nothing was looked at*",
        ),
        ("", '*broker is "env:STAGING_BROKER", and the variable STAGING_BROKER is empty; set it to a URL*'),
    ],
)
def test_another_host_than_expected_is_never_looked_at(
    project: Project, staging: Redis, monkeypatch: pytest.MonkeyPatch, url: str, message: str
) -> None:
    monkeypatch.setenv("STAGING_BROKER", url)
    result = project.run(TARGET)
    assert result.ret == 4
    result.stderr.fnmatch_lines([message])


def test_under_xdist_a_target_is_looked_at_once(project: Project, staging: Redis) -> None:
    fill(staging, "billing", 7)
    fill(staging, "invoices", 1)
    result = project.run(TARGET, "-n", "2")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["billing   7 / 5 *", "2 checks: 1 healthy, 1 unhealthy · 1 look, *"])


def test_a_wait_ends_as_soon_as_everything_holds(project: Project, staging: Redis, gates: list[Gate]) -> None:
    fill(staging, "billing", 7)
    fill(staging, "invoices", 1)
    gate = Gate(project, "--celery-health-wait=60", "--celery-health-interval=0.1")
    gates.append(gate)
    gate.says("1 of 2 hold; billing holds 7 ready messages; wanted below 5")
    staging.ltrim("billing", 0, 2)
    assert gate.ends() == 0
    assert "2 of 2 hold" in gate.output
    assert gate.output.count("1 of 2 hold") == 1


def test_a_wait_that_is_over_fails_with_what_was_last_seen(project: Project, staging: Redis) -> None:
    fill(staging, "billing", 7)
    fill(staging, "invoices", 1)
    started = time.monotonic()
    result = project.run(TARGET, "--celery-health-wait=0.5s", "--celery-health-interval=0.1")
    assert 0.5 <= time.monotonic() - started < 10
    assert result.ret == 1
    result.stdout.fnmatch_lines(["FAILED *billing holds 7 ready messages; wanted below 5*"])


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 2), (signal.SIGTERM, 143)])
def test_an_interrupted_wait_reports_what_was_last_seen(
    project: Project, staging: Redis, gates: list[Gate], sent: signal.Signals, code: int
) -> None:
    fill(staging, "billing", 7)
    fill(staging, "invoices", 1)
    gate = Gate(project, "--celery-health-wait=60", "--celery-health-interval=0.1")
    gates.append(gate)
    gate.says("1 of 2 hold")
    gate.process.send_signal(sent)
    assert gate.ends() == code
    assert "last seen: billing holds 7 ready messages; wanted below 5" in gate.output
    assert sorted(staging.keys()) == [b"billing", b"invoices"]


def test_a_pattern_sees_a_queue_that_only_the_broker_knows(project: Project, staging: Redis) -> None:
    project.contract(
        STAGING + '[tool.celery-health.check.pay]\nuse = "queue"\nqueues = "pay*"\nready_below = 1000\n'
    )
    with Connection(os.environ["STAGING_BROKER"]) as connection:
        Queue("pay.orphan", Exchange("pay"), "pay", channel=connection.default_channel).declare()
    assert project.run(TARGET, "pyproject.toml::pay[staging]").ret == 0
    fill(staging, "pay.orphan", 1201)
    result = project.run(TARGET, "pyproject.toml::pay[staging]")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["FAILED *::pay[[]staging[]] - pay.orphan holds 1,201 ready messages; wanted below 1,000*"]
    )


def test_a_bad_wait_is_refused(project: Project, staging: Redis) -> None:
    result = project.run(TARGET, "--celery-health-wait=soon")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*--celery-health-wait: 'soon' is not a duration*"])


def test_an_app_that_does_not_load_is_told_by_what_needs_it(project: Project, staging: Redis) -> None:
    project.contract(
        STAGING.replace('deadline = "2s"', 'deadline = "2s"\napp = "nowhere.celery:app"')
        + '[tool.celery-health.check.schedule]\nuse = "schedule"\n'
    )
    fill(staging, "billing", 1)
    fill(staging, "invoices", 1)
    result = project.run(TARGET)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        ["ERROR *::schedule[[]staging[]] - cannot tell: *nowhere.celery:app failed to load*"]
    )


def test_a_broker_without_its_app_is_looked_at_by_url_alone(
    project: Project, staging: Redis, tmp_path: Path
) -> None:
    fill(staging, "billing", 1)
    assert project.run(TARGET, "pyproject.toml::billing[staging]").ret == 0
