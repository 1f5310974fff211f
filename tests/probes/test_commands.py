"""What a command line leaves, starts and reaches: real processes, as an exec probe's."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from secrets import randbelow

import pytest

from pytest_celery_health import ProbeTells, Verdict
from pytest_celery_health.sandbox.seal import Seal
from tests.probes.conftest import Lab, bad
from tests.support.decoy import Decoy

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).with_name("checks_of_all_kinds.py")
LINUX = pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="impossible here: orphans are found in /proc"
)


@pytest.fixture
def judged(lab: Callable[..., Lab], tmp_path: Path) -> Callable[[str], Verdict]:
    shutil.copy(SOURCE, tmp_path / "shop.py")

    def judge(script: str) -> Verdict:
        check = ProbeTells(
            command=("sh", "-c", script), stays_healthy_when=("broker_refuses",), answers_within=1
        )
        return lab("shop:app", tmp_path).verdicts({"sh": check})["sh"]

    return judge


@pytest.fixture
def nap() -> str:
    """A command that nobody else runs."""
    return f"sleep {10_000 + randbelow(10**9) / 10**6}"


def running(command: str) -> list[str]:
    lines = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(each.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip())
        except OSError:
            continue
    return [line for line in lines if line == command]


@LINUX
def test_of_one_that_hangs_nothing_is_left_not_even_what_left_its_session(
    judged: Callable[[str], Verdict], nap: str
) -> None:
    verdict = judged(f"setsid {nap} & {nap}")
    assert "hung" in bad(verdict)[0]
    assert running(nap) == []


@LINUX
def test_a_process_that_is_left_with_each_call_is_named_and_ended(
    judged: Callable[[str], Verdict], nap: str
) -> None:
    verdict = judged(f"setsid {nap} & exit 0")
    assert f"leaves the process {nap} with each call in a healthy world" in bad(verdict)[0]
    assert running(nap) == []


@LINUX
def test_one_that_is_kept_for_the_next_call_is_no_leak(judged: Callable[[str], Verdict], nap: str) -> None:
    verdict = judged(f"kill -0 $(cat kept) || setsid {nap} & echo $! > kept")
    assert bad(verdict) == []
    assert running(nap) == []


@LINUX
def test_what_ends_a_little_later_is_not_left(judged: Callable[[str], Verdict]) -> None:
    assert bad(judged("sleep 0.1 & exit 0")) == []


@pytest.mark.skipif(
    not Seal((), Path()).layers()[1].in_force, reason="impossible here: this kernel has no TCP rules"
)
def test_what_is_not_python_reaches_nobody(judged: Callable[[str], Verdict]) -> None:
    decoy = Decoy(socket.SOCK_STREAM)
    verdict = judged(f"bash -c 'echo hello > /dev/tcp/127.0.0.1/{decoy.port}' && exit 1; exit 0")
    reached = decoy.reached()
    decoy.close()
    assert bad(verdict) == []
    assert reached == 0
