"""A live target: looked at within bounds, waited for, never changed."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from kombu import Connection, Exchange, Queue
from redis import Redis

from tests.observe.proxy import close, hang, http, server
from tests.plugin.conftest import PLUGIN, SECRET, STAGING, Project, processes
from tests.support.timing import wait_until

TARGET = "--celery-health-target=staging"


def fill(redis: Redis, queue: str, count: int) -> None:
    redis.lpush(queue, *(["{}"] * count))


class Gate:
    """A health run as a process of its own, whose output is read while it runs."""

    def __init__(self, process: subprocess.Popen[bytes], output: Callable[[], str]) -> None:
        self.process = process
        self._output = output

    @property
    def output(self) -> str:
        return self._output()

    def says(self, text: str) -> None:
        wait_until(lambda: text in self.output or self.process.poll() is not None, within=60, what=text)
        assert text in self.output

    def ends(self) -> int:
        return self.process.wait(60)


class Gates:
    """Starts gates, in which a look follows the other every 0.1 s."""

    def __init__(self, project: Project, stack: ExitStack) -> None:
        self.project = project
        self.stack = stack

    def __call__(self, *args: str) -> Gate:
        """One that writes to a log."""
        log = self.project.pytester.path / "gate.log"
        with log.open("wb") as file:
            return Gate(self._start(file.fileno(), args), log.read_text)

    def on_terminal(self, *args: str) -> Gate:
        """One that writes to a terminal, and can be interrupted from there."""
        ours, theirs = pty.openpty()
        self.stack.callback(os.close, ours)
        process = self._start(theirs, args)
        os.close(theirs)
        seen = bytearray()

        def output() -> str:
            while select.select([ours], [], [], 0)[0]:
                try:
                    seen.extend(os.read(ours, 65536))
                except OSError:  # Linux: nobody has it open any more
                    break
            return seen.decode()

        return Gate(process, output)

    def _start(self, output: int, args: tuple[str, ...]) -> subprocess.Popen[bytes]:
        waits = ("--celery-health-wait=60", "--celery-health-interval=0.1")
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *PLUGIN, "--celery-health", TARGET, *waits, *args],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=self.project.pytester.path,
        )
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)
        return process


@pytest.fixture
def gate(project: Project) -> Iterator[Gates]:
    with ExitStack() as stack:
        yield Gates(project, stack)


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


@processes
def test_a_wait_ends_as_soon_as_everything_holds(
    staging: Redis, gate: Gates, processes: tuple[str, ...]
) -> None:
    """In a log, each change is a line."""
    fill(staging, "billing", 7)
    fill(staging, "invoices", 9)
    run = gate(*processes)
    run.says("0 of 2 awaited checks hold; billing holds 7 ready messages; wanted below 5")
    staging.ltrim("invoices", 0, 2)
    run.says("1 of 2 awaited checks hold; billing holds 7 ready messages; wanted below 5")
    staging.ltrim("billing", 0, 2)
    assert run.ends() == 0
    told = [line.partition(": ")[2] for line in run.output.splitlines() if "of 1 min:" in line]
    assert [line[:6] for line in told] == ["0 of 2", "1 of 2", "2 of 2"]


def test_in_a_log_what_only_grows_older_is_no_change(project: Project, staging: Redis) -> None:
    """The age of a heartbeat is another one each second; what is open, and how, is the same."""
    fill(staging, "billing", 1)
    fill(staging, "invoices", 1)
    staging.set("heartbeat", time.time() - 100)
    beat = '[tool.celery-health.check.beat]\nuse = "beat"\nheartbeat = "redis:heartbeat"\nwithin = "1min"\n'
    project.contract(STAGING, beat)
    result = project.run(TARGET, "--celery-health-wait=2.5s", "--celery-health-interval=0.1")
    told = [line for line in result.outlines if " of 2.5 s: " in line]
    assert len(told) == 1, told
    assert "2 of 3 awaited checks hold; beat was last seen 10" in told[0]


def test_a_wait_counts_what_it_waits_for(project: Project, staging: Redis) -> None:
    """Neither a row that only warns, nor what a test's body expects, which the summary counts as well."""
    fill(staging, "billing", 7)
    fill(staging, "invoices", 9)
    project.contract(STAGING + 'severity = "warn"\n')
    project.pytester.makepyfile(
        "import pytest\nfrom pytest_celery_health import QueueDepth\n"
        "@pytest.mark.celery_health\n"
        "def test_body(celery_health):\n"
        "    celery_health.expect(QueueDepth('celery', ready_below=5, consumers_at_least=0))\n"
    )
    result = project.run(TARGET, "--celery-health-wait=0.3s", "--celery-health-interval=0.1")
    result.stdout.fnmatch_lines(
        ["* of 0.3 s: 0 of 1 awaited checks hold; billing holds 7 ready messages*", "3 checks: *"]
    )


def test_an_interrupt_after_a_wait_repeats_nothing(project: Project, staging: Redis) -> None:
    """Last seen is what no report has told yet."""
    fill(staging, "billing", 7)
    fill(staging, "invoices", 9)
    project.pytester.makepyfile(
        test_late="import pytest\n@pytest.mark.celery_health\ndef test_late(): raise KeyboardInterrupt"
    )
    waits = ("--celery-health-wait=0.3s", "--celery-health-interval=0.1")
    order = ("pyproject.toml::billing[staging]", "test_late.py", "pyproject.toml::invoices[staging]")
    result = project.pytester.runpytest_subprocess(
        *PLUGIN, "-p", "no:randomly", "--celery-health", TARGET, *waits, *order
    )
    assert result.ret == 2
    result.stdout.fnmatch_lines(["last seen: invoices holds 9 ready messages; *"])
    assert result.stdout.str().count("billing holds 7 ready messages") == 3  # progress, failure and summary


@processes
def test_on_a_terminal_a_wait_is_one_living_line(
    staging: Redis, gate: Gates, processes: tuple[str, ...]
) -> None:
    fill(staging, "billing", 7)
    fill(staging, "invoices", 9)
    run = gate.on_terminal(*processes)
    run.says("1 s of 1 min: 0 of 2 awaited checks hold")
    staging.ltrim("invoices", 0, 2)
    run.says("1 of 2 awaited checks hold")
    staging.ltrim("billing", 0, 2)
    assert run.ends() == 0
    (line,) = [line for line in run.output.split("\n") if "of 1 min:" in line]
    told = [words for words in line.split("\r") if words.strip()]
    assert len(told) >= 3
    assert all(" of 2 awaited checks hold" in words for words in told)
    assert told[-1].strip().endswith(" of 1 min: 2 of 2 awaited checks hold")


@pytest.mark.parametrize("args", [(), pytest.param(("-x", "-n", "1"), marks=pytest.mark.slow)], ids=" ".join)
def test_a_wait_that_is_over_fails_with_what_was_last_seen(
    project: Project, staging: Redis, args: tuple[str, ...]
) -> None:
    fill(staging, "billing", 7)
    fill(staging, "invoices", 1)
    started = time.monotonic()
    result = project.run(TARGET, "--celery-health-wait=0.5s", "--celery-health-interval=0.1", *args)
    assert time.monotonic() - started >= 0.5
    assert result.ret == 1
    result.stdout.no_fnmatch_line("last seen:*")
    result.stdout.fnmatch_lines(["FAILED *billing holds 7 ready messages; wanted below 5*"])


@pytest.mark.slow
@pytest.mark.parametrize("processes", [(), ("-p", "xdist.plugin", "-n", "2")], ids=["one", "xdist"])
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 2), (signal.SIGTERM, 143)])
def test_an_interrupted_wait_reports_what_was_last_seen(
    project: Project,
    staging: Redis,
    gate: Gates,
    sent: signal.Signals,
    code: int,
    processes: tuple[str, ...],
) -> None:
    project.pytester.makepyfile(
        "import pytest\nfrom pytest_celery_health import QueueDepth\n"
        "@pytest.mark.celery_health(QueueDepth('billing', ready_below=5, consumers_at_least=0))\n"
        "def test_ready(): pass"
    )
    fill(staging, "billing", 7)
    fill(staging, "invoices", 1)
    run = gate("--color=yes", *processes)
    run.says("1 of 3 awaited checks hold")
    run.process.send_signal(sent)
    assert run.ends() == code
    assert run.output.count("last seen: billing holds 7 ready messages; wanted below 5") == 1
    assert re.search(r"\n(\x1b\[\w+)*billing   7 / 5  ", run.output)
    yellow = re.escape("\x1b[33m0 checks: nothing judged · ")
    assert re.search(yellow + r"[1-9]\d* looks?, ", run.output)
    assert sorted(staging.keys()) == [b"billing", b"invoices"]


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 2), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("receiver", [os.killpg, os.kill], ids=["all", "controller"])
def test_a_test_of_xdist_that_is_interrupted_tidies_up(
    project: Project,
    staging: Redis,
    receiver: Callable[[int, int], None],
    sent: signal.Signals,
    code: int,
) -> None:
    """A terminal and `timeout` send it to each process, and the controller ends its workers once more."""
    project.pytester.makepyfile(
        """
        import pytest
        from pathlib import Path
        from threading import Event

        @pytest.mark.celery_health
        def test_tidies():
            try:
                Path('reached').touch()
                Event().wait()
            finally:
                Event().wait(1)
                Path('tidied').touch()
        """
    )
    command = [sys.executable, "-m", "pytest", *PLUGIN, "-p", "xdist.plugin", "-n", "1", "--celery-health"]
    run = subprocess.Popen(
        [*command, TARGET, "-k", "tidies"],
        stdout=subprocess.DEVNULL,
        cwd=project.pytester.path,
        start_new_session=True,
    )
    try:
        wait_until((project.pytester.path / "reached").exists, within=60)
        receiver(run.pid, sent)
        assert run.wait(60) == code
    finally:
        run.kill()
        run.wait()
    assert (project.pytester.path / "tidied").exists()


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
