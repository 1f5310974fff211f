from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

import pytest_celery_health.session  # noqa: F401 - once, not in each run of pytester
from tests.observe.fleet import Server, import_for_looks, start_redis_server

SECRET = "s3cr3t-of-staging"

REPO = Path(__file__).parents[2]
#: A live target, which nothing may reach.
LIVE = '[tool.celery-health.target.staging]\nbroker = "env:STAGING"\nexpect_host = "redis.stg.internal"\n'

CHECKS = '''
from dataclasses import dataclass
from pytest_celery_health import Check, Finding, Unseen

@dataclass(frozen=True)
class Says(Check):
    """A check that says what it is told, and looks at nothing."""
    ok: bool = True
    why: str = ""
    never: bool = False

    def asks(self):
        return ()

    def judge(self, seen):
        if self.why:
            yield Finding.unseen("", Unseen(self.why, self.never))
        else:
            yield Finding(self.ok, "billing", "holds 1,204 ready messages", "below 1,000", "consumed by w1",
                          {"billing.ready": 1204})
'''

PLUGIN = ("-p", "pytest_celery_health.plugin")
#: Older pytest warns that it cannot rewrite the plugin, which this process has imported.
HERE = ("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")
HEALTHY = '[tool.celery-health.check.good]\nuse = "acme:Says"\n'
UNHEALTHY = '[tool.celery-health.check.billing]\nuse = "acme:Says"\nok = false\n'
UNKNOWN = '[tool.celery-health.check.beat]\nuse = "acme:Says"\nwhy = "no key celery_beat_heartbeat"\n'

STAGING = """
[tool.celery-health]
deadline = "2s"

[tool.celery-health.target.staging]
broker = "env:STAGING_BROKER"
expect_host = "127.0.0.1"

[tool.celery-health.check.billing]
use = "queue"
ready_below = 5
consumers_at_least = 0

[tool.celery-health.check.invoices]
use = "queue"
ready_below = 5
consumers_at_least = 0
"""


def _in_processes(argument: str, *xdist: str) -> pytest.MarkDecorator:
    several = pytest.param(xdist, marks=pytest.mark.slow)
    return pytest.mark.parametrize(argument, [(), several], ids=["one", "xdist"])


#: For runs that are started here, and for those of a `Project`, which loads pytest-xdist where it is needed.
processes = _in_processes("processes", "-p", "xdist.plugin", "-n", "2")
project_processes = _in_processes("args", "-n", "2")


def usage_error(result: pytest.RunResult, args: tuple[str, ...]) -> pytest.LineMatcher:
    """Where a run tells of a mistake that is its user's: pytest-xdist's controller does in its summary."""
    return result.stdout if args else result.stderr


class Project:
    """A project in a temporary folder, with a check that says what its row tells it."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        pytester.makepyfile(acme=CHECKS, shop="")
        self.contract()

    def contract(self, *tables: str) -> None:
        head = "[tool.pytest.ini_options]\n"
        body = "\n".join(tables)
        if "[tool.celery-health]" not in body:
            head += '[tool.celery-health]\napp = "shop:app"\n'
        self.pytester.makepyprojecttoml(head + body)

    def run(self, *args: str) -> pytest.RunResult:
        """A health run."""
        return self.plain("--celery-health", *args)

    def plain(self, *args: str) -> pytest.RunResult:
        """An ordinary run; in this process, which is faster, unless it has processes of its own."""
        if "-n" in args:
            return self.pytester.runpytest_subprocess(*PLUGIN, "-p", "xdist", *args, timeout=120)
        return self.pytester.runpytest_inprocess(*PLUGIN, *HERE, *args)

    def with_junit(self, *args: str) -> tuple[pytest.RunResult, dict[str, str]]:
        """A health run, and the properties in its JUnit report."""
        result = self.run("--junitxml=health.xml", "-o", "junit_family=xunit1", *args)
        properties = ET.parse(self.pytester.path / "health.xml").iter("property")
        return result, {each.attrib["name"]: each.attrib["value"] for each in properties}


def run(root: Path, *args: str, within: float = 60) -> subprocess.CompletedProcess[str]:
    """A health run of a project that is there, in a process of its own."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "--celery-health",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
            *args,
        ],
        cwd=root,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    # What else is installed is tested in test_cohabitation.py; here it would cost seconds a test.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return Project(pytester)


@pytest.fixture(scope="session", autouse=True)
def _imported() -> None:
    import_for_looks()


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A redis-server with a password, for tests that neither stop nor freeze it."""
    server = start_redis_server(tmp_path_factory.mktemp("redis"), password=SECRET)
    yield server
    server.stop()


@pytest.fixture
def staging(project: Project, redis: Server, monkeypatch: pytest.MonkeyPatch) -> Redis:
    """A live target of its own database, declared as `staging`, whose queue `billing` is to be below 5."""
    url = redis.fresh()
    monkeypatch.setenv("STAGING_BROKER", url)
    project.contract(STAGING)
    return Redis.from_url(url)
