"""`pytest --celery-health` on whole projects: a real broker, real workers, a real beat, and nothing left."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest

from tests.observe.fleet import Server
from tests.plugin.conftest import PLUGIN, processes
from tests.support.decoy import Decoy
from tests.support.timing import wait_until

REPO = Path(__file__).parents[2]
PROJECTS = REPO / "tests" / "projects"
GREEN = [
    REPO / "examples" / "shop",
    *(PROJECTS / name for name in ("autodiscover", "django", "django_celery_beat", "factory")),
    *(PROJECTS / name for name in ("monorepo/services/billing", "redbeat", "thirdparty")),
]

#: The shop's rows without those that start workers or worlds of their own, each of which has its own tests.
LOOKS = (
    "not (alerts or pages or metrics or healthz or beat-health or stuck-tasks or queue-lengths"
    " or queue-gauge or checkout)"
)

STAGING = """
[tool.celery-health.target.staging]
broker = "env:STAGING_BROKER"
expect_host = "127.0.0.1"
"""

#: A hook that takes its time in the process that reports.
HOLDS = """
import os, pathlib, time

def {hook}({argument}):
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pathlib.Path("held").touch()
        over = time.monotonic() + 60
        while not pathlib.Path("go").exists() and time.monotonic() < over:
            time.sleep(0.01)
"""

WAITS = """
import pathlib, threading, pytest
from pytest_celery_health import QueueDepth, WorkersAnswer

@pytest.mark.celery_health(WorkersAnswer())
def test_waits(celery_health):
    pathlib.Path('reached').touch()
    threading.Event().wait()
"""

Health = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def health(monkeypatch: pytest.MonkeyPatch) -> Health:
    """Runs `pytest --celery-health` in a folder, in a process of its own."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for name in ("CI", "PYTEST_XDIST_WORKER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command(*args), cwd=folder, capture_output=True, text=True, timeout=100)

    return run


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "pytest", *PLUGIN, "-p", "no:cacheprovider", "--celery-health", *args]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A project of one module, whose contract wants a worker."""
    (tmp_path / "tiny.py").write_text("from celery import Celery\napp = Celery('tiny')\n")
    (tmp_path / "pyproject.toml").write_text(
        "[tool.pytest.ini_options]\n"
        '[tool.celery-health]\napp = "tiny:app"\n'
        '[tool.celery-health.check.workers]\nuse = "workers"\n'
        '[tool.celery-health.check.celery]\nuse = "queue"\nconsumers_at_least = 1\n'
    )
    return tmp_path


@pytest.mark.parametrize(
    "project",
    [
        pytest.param(project, marks=[] if project.name == "factory" else pytest.mark.slow, id=project.name)
        for project in GREEN
    ],
)
def test_a_project_is_green(project: Path, health: Health) -> None:
    result = health(project)
    assert result.returncode == 0, result.stdout
    assert " unhealthy" not in result.stdout
    assert " unknown" not in result.stdout


@pytest.mark.slow
def test_the_shops_twin_is_red_for_its_handlers_and_its_logging_alone(health: Health) -> None:
    result = health(PROJECTS / "guide", "-k", LOOKS)
    assert result.returncode == 1, result.stdout
    assert " unknown" not in result.stdout
    red = [line.partition(" - ")[0] for line in result.stdout.splitlines() if line.startswith("FAILED ")]
    assert red == [f"FAILED pyproject.toml::{row}[sandbox]" for row in ("handlers-survive", "logs")]
    for words in (
        "handler celery is taken away when a worker sets up logging, from celery and celery.task, and gets no"
        " record (RotatingFileHandler, /dev/null); wanted its records",
        "fails with ValueError: Formatting field not found in record: 'task_name' for a record from"
        " outside of"
        " tasks, too (RotatingFileHandler, /dev/null); wanted a line for every record",
        "would be rotated by every process of the pool (RotatingFileHandler, /dev/null); wanted one process",
        "celery.app.trace reaches no handler: celery does not propagate, and no handler is there;",
        "structlog of shop.tasks reaches no handler in a task: celery does not propagate, and no handler is",
    ):
        assert words in result.stdout


@pytest.mark.slow
def test_processes_of_xdist_share_one_sandbox(health: Health) -> None:
    result = health(REPO / "examples" / "shop", "-p", "xdist", "-n", "2", "pyproject.toml", "-k", LOOKS)
    assert result.returncode == 0, result.stdout
    assert "celery-health: sandbox (" in result.stdout
    assert "7 checks: 7 healthy · 1 look," in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sandbox", "staging"])
def test_a_killed_run_of_xdist_leaves_nothing(
    tiny: Path,
    health: Health,
    redis: Server,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
) -> None:
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("STAGING_BROKER", redis.fresh())
    with (tiny / "pyproject.toml").open("a") as contract:
        contract.write(STAGING)
    # pytest-xdist would interrupt it after 5 seconds, and kill it after 15.
    ignores = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    waits = WAITS.replace("WorkersAnswer()", "QueueDepth('celery')")
    (tiny / "test_waits.py").write_text(ignores + waits)
    arguments = ("-p", "xdist.plugin", "-n", "2", "--celery-health-target", target)
    run = subprocess.Popen(command(*arguments), cwd=tiny, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: (tiny / "reached").exists(), within=100, what="the test's body")
        started = psutil.Process(run.pid).children(recursive=True)
        assert list(temporary.glob("*celery-health-*/share/seen.pickle"))
    finally:
        run.kill()
        run.wait()
    wait_until(lambda: not any(map(lives, started)), within=12, what=f"the end of {started}")
    assert not list(temporary.glob("*celery-health*"))


@pytest.fixture
def decoys() -> Iterator[dict[str, Decoy]]:
    """Production: a Redis, a PostgreSQL, an HTTP and a UDP server, by the variable that names each."""
    names = ("DECOY_REDIS", "DECOY_POSTGRES", "DECOY_HTTP", "DECOY_UDP")
    found = {name: Decoy(socket.SOCK_DGRAM if name == "DECOY_UDP" else socket.SOCK_STREAM) for name in names}
    yield found
    for decoy in found.values():
        decoy.close()


def test_production_is_reached_by_nothing_and_named(
    tmp_path: Path, decoys: dict[str, Decoy], health: Health
) -> None:
    project = tmp_path / "leaky"
    shutil.copytree(PROJECTS / "leaky", project)
    contract = project / "pyproject.toml"
    text = contract.read_text().partition("[tool.celery-health.env]")[0] + "[tool.celery-health.env]\n"
    contract.write_text(text + "".join(f'{name} = "{decoy.endpoint}"\n' for name, decoy in decoys.items()))
    result = health(project)
    assert result.returncode == 0, result.stdout
    assert {name: decoy.reached() for name, decoy in decoys.items()} == dict.fromkeys(decoys, 0)
    for decoy in decoys.values():
        assert decoy.endpoint in result.stdout


SENT = "'task': 'tiny.t', 'schedule': 9"
BAD_ENTRIES = {
    "gone": (
        "{'task': 'tiny.gone', 'schedule': 9}",
        "tiny.gone is no task of the app, and entry gone sends it; wanted a task that it has",
    ),
    "misfit": (
        f"{{{SENT}, 'args': (1,)}}",
        "entry misfit does not fit tiny.t: too many positional arguments; wanted fitting arguments",
    ),
    "nowhere": (
        f"{{{SENT}, 'options': {{'queue': 'reports'}}}}",
        "reports is consumed by no worker, and entry nowhere sends tiny.t to it; wanted a consumer",
    ),
    "kwargs": (f"{{{SENT}, 'kwargs': [1]}}", "entry kwargs has a list as its kwargs; wanted a mapping"),
    "never": (
        "{'task': 'tiny.t'}",
        "entry never has no schedule; wanted seconds above 0, a timedelta, crontab or solar",
    ),
    "enabled": (
        f"{{{SENT}, 'enabled': True}}",
        "entry enabled has the key 'enabled', which celery.beat:PersistentScheduler does not take; wanted"
        " task, schedule, args, kwargs, options or relative",
    ),
}


@pytest.mark.slow
def test_entries_that_cannot_run(tiny: Path, health: Health) -> None:
    """Each is red by the `schedule` row, the others rows are judged, and without them it is green."""
    app, contract = (tiny / "tiny.py").read_text(), tiny / "pyproject.toml"
    app += "@app.task\ndef t(): ...\n"
    sandbox = '[tool.celery-health.sandbox]\nqueues = ["celery"]\n'
    schedule = '[tool.celery-health.check.schedule]\nuse = "schedule"\n'
    contract.write_text(contract.read_text() + sandbox + schedule)
    good = "'good': {'task': 'tiny.t', 'schedule': 9}"
    bad = ", ".join(f"{name!r}: {entry}" for name, (entry, _) in BAD_ENTRIES.items())
    (tiny / "tiny.py").write_text(f"{app}app.conf.beat_schedule = {{{good}, {bad}}}\n")
    result = health(tiny)
    assert result.returncode == 1
    assert "FAILED pyproject.toml::schedule[sandbox] - tiny.gone is no task of the app" in result.stdout
    for _, message in BAD_ENTRIES.values():
        assert message in result.stdout
    assert "entry good" not in result.stdout
    assert "3 checks: 2 healthy, 1 unhealthy" in result.stdout
    (tiny / "tiny.py").write_text(f"{app}app.conf.beat_schedule = {{{good}}}\n")
    assert health(tiny).returncode == 0


@pytest.mark.slow
def test_celerys_beat_does_not_start_with_a_key_that_it_does_not_know(tiny: Path) -> None:
    with (tiny / "tiny.py").open("a") as app:
        app.write(f"app.conf.beat_schedule = {{'enabled': {BAD_ENTRIES['enabled'][0]}}}\n")
    beat = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "tiny", "beat", "-s", str(tiny / "kept")],
        cwd=tiny,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert beat.returncode != 0
    assert "unexpected keyword argument 'enabled'" in beat.stdout + beat.stderr


def test_an_app_that_does_not_load_is_told_at_once(tiny: Path, health: Health) -> None:
    (tiny / "tiny.py").write_text("import nowhere\n")
    result = health(tiny)
    assert result.returncode == 6
    assert "ERROR pyproject.toml::workers[sandbox] - cannot tell: " in result.stdout
    assert "No module named 'nowhere'" in result.stdout


@pytest.mark.slow
def test_a_hook_says_what_the_app_is(tiny: Path, health: Health) -> None:
    (tiny / "tiny.py").write_text(
        "from celery import Celery\n"
        "def build(name):\n"
        "    app = Celery(name)\n"
        "    @app.task(name=f'{name}.task')\n"
        "    def task(): pass\n"
        "    return app\n"
    )
    (tiny / "conftest.py").write_text(
        "def pytest_celery_health_app(target):\n    from tiny import build\n    return build(target)\n"
    )
    contract = tiny / "pyproject.toml"
    contract.write_text(
        contract.read_text().replace('app = "tiny:app"\n', "")
        + '[tool.celery-health.check.tasks]\nuse = "workers"\ntasks = ["sandbox.task"]\n'
    )
    result = health(tiny)
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_app_that_its_module_does_not_have_is_a_mistake_of_the_contract(
    tiny: Path, health: Health
) -> None:
    contract = tiny / "pyproject.toml"
    contract.write_text(contract.read_text().replace("tiny:app", "tiny:ap"))
    result = health(tiny)
    assert result.returncode == 4, result.stdout + result.stderr
    told = "pyproject.toml:3: [tool.celery-health] app: tiny has no 'ap'; did you mean 'app'?"
    assert f"ERROR: {told}\n" in result.stderr


def test_an_app_that_only_the_tests_process_finds_is_a_mistake_of_the_contract(
    tiny: Path, health: Health
) -> None:
    (tiny / "lib").mkdir()
    (tiny / "tiny.py").rename(tiny / "lib" / "tiny.py")
    (tiny / "conftest.py").write_text(f"import sys\nsys.path.insert(0, {str(tiny / 'lib')!r})\n")
    result = health(tiny)
    assert result.returncode == 4, result.stdout + result.stderr
    told = "pyproject.toml:3: [tool.celery-health] app: the sandbox finds no module tiny; name its folder in"
    assert f"ERROR: {told} pythonpath, in [tool.pytest.ini_options]\n" in result.stderr


@processes
def test_an_app_that_breaks_is_one_line_a_row_and_its_log_is_told_once(
    tiny: Path, health: Health, processes: tuple[str, ...]
) -> None:
    (tiny / "tiny.py").write_text("import sys\ndef load():\n    raise RuntimeError('kaboom')\nload()\n")
    contract = tiny / "pyproject.toml"
    contract.write_text(contract.read_text() + '[tool.celery-health.check.more]\nuse = "workers"\n')
    result = health(tiny, "-q", "-rE", *processes)
    assert result.returncode == 6, result.stdout + result.stderr
    sections, _, ends = result.stdout.partition("short test summary info")
    names = [row for row in ends.splitlines() if row.startswith("ERROR ")]
    assert len(names) >= 2
    why = "cannot tell: worker w1: RuntimeError: kaboom"
    assert {row.partition(" - ")[2].rpartition(" (")[0] for row in names} == {why}
    assert len(ends.strip().splitlines()) <= len(names) + 4
    assert sections.count("last lines of w1's log:") == 1
    assert sections.count("raise RuntimeError('kaboom')") == 1
    assert "<frozen importlib" not in sections


@processes
def test_a_check_without_a_contract_says_how_to_begin(
    tiny: Path, health: Health, processes: tuple[str, ...]
) -> None:
    (tiny / "pyproject.toml").unlink()
    (tiny / "test_tiny.py").write_text(
        "import pytest\nfrom pytest_celery_health import WorkersAnswer\n"
        "@pytest.mark.celery_health(WorkersAnswer())\ndef test_ready(): pass\n"
    )
    result = health(tiny, *processes)
    assert result.returncode == 4
    said = result.stdout + result.stderr
    assert said.count("ERROR: no contract says what the app is") == 1
    assert said.count("[tool.celery-health]") == 1
    assert "INTERNALERROR" not in said


def test_the_fixture_works_in_an_ordinary_run(tiny: Path, health: Health) -> None:
    (tiny / "test_tiny.py").write_text(
        "from pytest_celery_health import WorkersAnswer\n"
        "def test_answers(celery_health):\n    celery_health.expect(WorkersAnswer(at_least=1))\n"
    )
    args = [arg for arg in command() if arg != "--celery-health"]
    result = subprocess.run(args, cwd=tiny, capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda end: end.name)
def test_nothing_is_left_of_a_run_that_is_ended(tiny: Path, health: Health, end: signal.Signals) -> None:
    (tiny / "test_waits.py").write_text(WAITS)
    run = subprocess.Popen(command(), cwd=tiny, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: (tiny / "reached").exists(), within=100, what="the test's body")
        started = psutil.Process(run.pid).children(recursive=True)
        assert len(started) >= 4, "keeper, broker, worker and its pool"
        run.send_signal(end)
        run.wait(60)
    finally:
        run.kill()
        run.wait()
    wait_until(lambda: not any(map(lives, started)), within=60, what=f"the end of {started}")
    assert not [name for name in os.listdir("/proc") if name.isdigit() and is_of(name, tiny)]


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=lambda end: end.name)
def test_a_verdict_that_was_told_stands(tiny: Path, health: Health, end: signal.Signals) -> None:
    """A signal while the sandbox ends is no traceback, and no exit code that means something else."""
    with (tiny / "tiny.py").open("a") as more:
        more.write(  # a worker that has to be killed, so that the end takes its time
            "import signal\nfrom celery.signals import worker_ready\n"
            "@worker_ready.connect(weak=False)\n"
            "def stubborn(**_): signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        )
    pipe = subprocess.PIPE
    with subprocess.Popen(command("-k", "workers"), cwd=tiny, stdout=pipe, stderr=pipe, text=True) as run:
        try:
            assert run.stdout is not None
            assert any(" passed" in line for line in run.stdout)
            wait_until(lambda: ignores(run.pid, end), within=60, what="the sandbox is being ended")
            run.send_signal(end)
            _, error = run.communicate(timeout=60)
        finally:
            run.kill()
    assert (run.returncode, error) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [(), ("-p", "xdist.plugin", "-n", "2")], ids=["one", "xdist"])
@pytest.mark.parametrize(
    ("hook", "sent", "code"),
    [
        ("pytest_sessionstart", signal.SIGTERM, 143),
        ("pytest_sessionfinish", signal.SIGTERM, 143),
        ("pytest_sessionfinish", signal.SIGINT, 2),
        ("pytest_unconfigure", signal.SIGTERM, 0),
        ("pytest_unconfigure", signal.SIGINT, 0),
    ],
)
def test_the_exit_code_of_a_signal(
    tiny: Path, health: Health, hook: str, sent: signal.Signals, code: int, processes: tuple[str, ...]
) -> None:
    """The signal's own before a verdict was told, whatever pytest is at; the verdict's afterwards."""
    (tiny / "tiny.py").write_text("from celery import Celery\napp = Celery('tiny')\n")
    argument = "config" if hook == "pytest_unconfigure" else "session"
    (tiny / "conftest.py").write_text(HOLDS.format(hook=hook, argument=argument))
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command("-k", "workers", *processes), cwd=tiny, stdout=pipe, stderr=pipe, text=True
    ) as run:
        try:
            wait_until(lambda: (tiny / "held").exists(), within=100, what=hook)
            run.send_signal(sent)
            if not code:
                (tiny / "go").touch()
            _, error = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == code
    assert "Traceback" not in error


@processes
def test_a_run_that_is_ended_while_the_app_loads_is_over_at_once(
    tiny: Path, health: Health, processes: tuple[str, ...]
) -> None:
    (tiny / "tiny.py").write_text(
        "import pathlib, threading\n"
        "pathlib.Path(__file__).with_name('loads').touch()\n"
        "threading.Event().wait()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(command(*processes), cwd=tiny, stdout=pipe, stderr=pipe, text=True) as run:
        try:
            wait_until(lambda: (tiny / "loads").exists(), within=60, what="the app being loaded")
            began = time.monotonic()
            run.send_signal(signal.SIGTERM)
            output, error = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == 143
    assert time.monotonic() - began < 25  # a sandbox gives an app 30 s
    assert "Traceback" not in output + error
    assert "ended by SIGTERM" in output
    assert "passed" not in output


def ignores(pid: int, number: int) -> bool:
    """Whether a process ignores a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
    return bool(ignored & 1 << (number - 1))


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_of(pid: str, folder: Path) -> bool:
    """Whether a process works in `folder`."""
    try:
        return Path(f"/proc/{pid}/cwd").resolve() == folder
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("conf", "why"),
    [
        ("worker_enable_remote_control=False", "worker_enable_remote_control is off"),
        ("accept_content=['pickle'], task_serializer='pickle'", "accept_content leaves out JSON"),
    ],
)
def test_workers_that_cannot_answer_are_unknown(tiny: Path, health: Health, conf: str, why: str) -> None:
    """Not unhealthy: they may be well. A row that says `optional` is skipped."""
    (tiny / "tiny.py").write_text(
        f"from celery import Celery\napp = Celery('tiny')\napp.conf.update({conf})\n"
    )
    result = health(tiny)
    assert result.returncode == 6
    assert f"ERROR pyproject.toml::workers[sandbox] - cannot tell: {why}" in result.stdout
    contract = tiny / "pyproject.toml"
    contract.write_text(contract.read_text().replace('use = "workers"', 'use = "workers"\noptional = true'))
    assert "1 skipped" in health(tiny).stdout


@processes
def test_a_beat_entry_that_the_schedule_lacks_is_a_mistake_of_the_contract(
    tiny: Path, health: Health, processes: tuple[str, ...]
) -> None:
    """Only the app can show it, as soon as it is loaded; nothing is judged then."""
    with (tiny / "tiny.py").open("a") as app:
        app.write('app.conf.beat_schedule = {"heartbeat": {"task": "tiny.touch", "schedule": 60.0}}\n')
    with (tiny / "pyproject.toml").open("a") as contract:
        contract.write('[tool.celery-health.sandbox]\nworkers = 1\nbeat = [\n    "heartbeet",\n    "x",\n]\n')
    result = health(tiny, *processes)
    assert result.returncode == 4
    said = (
        "pyproject.toml:11: [tool.celery-health.sandbox] beat: the app's schedule has no entry 'heartbeet';"
        " did you mean 'heartbeat'?"
    )
    assert said in (result.stdout if processes else result.stderr)
    assert " passed" not in result.stdout
    if not processes:
        assert "has no entry 'x'; it has heartbeat" in result.stderr
