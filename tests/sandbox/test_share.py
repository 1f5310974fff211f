"""Several processes with one sandbox: it lives until the last of them has gone."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.sandbox import Sandbox, SandboxError, SandboxSpec
from tests.sandbox.remains import Owner, Remains
from tests.support.timing import wait_until


@pytest.mark.slow
def test_it_lives_until_the_last_has_left(owner: Callable[..., Owner], tmp_path: Path) -> None:
    path = tmp_path / "sandbox.json"
    first = owner(share=path, workers=1, beat=["heartbeat"])
    second = owner(attach=path)
    everything = first.remains.alive()
    with Sandbox.attach(path) as third:
        assert first.end() == 0
        assert second.end(signal.SIGKILL) == -signal.SIGKILL
        assert set(first.remains.alive()) == set(everything)
        assert third.logs().keys() == {"beat", "broker", "w1"}
        assert path.exists()
    # Its keeper is another's child: all that can be left is its last instruction.
    assert first.remains.alive() in ([], [f"process {first.remains.keeper}"])
    wait_until(lambda: not first.remains.alive(), within=1)
    assert not path.exists()


def test_who_joins_has_the_same_in_hand(project: Callable[..., AppSpec], tmp_path: Path) -> None:
    with Sandbox(SandboxSpec(beat=("heartbeat",), allow=("127.0.0.1:1",)), project()) as first:
        first.share(tmp_path / "sandbox.json")
        with Sandbox.attach(tmp_path / "sandbox.json") as second:
            assert second.target == first.target
            assert second.target.url == first.target.url
            assert (second.spec, second.app) == (first.spec, first.app)
            assert (second.broker, second.notes) == (first.broker, first.notes)
            assert second.environ == first.environ
            assert second.seal == first.seal
            remains = Remains.of(second)
        assert first.logs()
    assert remains.alive() == []


def test_nothing_to_join_is_said(project: Callable[..., AppSpec], tmp_path: Path) -> None:
    path = tmp_path / "sandbox.json"
    with pytest.raises(SandboxError, match=r"^no sandbox is shared at sandbox.json: "):
        Sandbox.attach(path)
    with Sandbox(SandboxSpec(workers=0), project()) as sandbox:
        sandbox.share(path)
        kept = path.read_text()
    path.write_text(kept)
    with pytest.raises(SandboxError, match=r"^no sandbox is shared at sandbox.json: nobody listens at "):
        Sandbox.attach(path)


def test_the_file_of_another_sandbox_stays(project: Callable[..., AppSpec], tmp_path: Path) -> None:
    path = tmp_path / "sandbox.json"
    with Sandbox(SandboxSpec(workers=0), project()) as sandbox:
        sandbox.share(path)
        path.write_text("another's")
    assert path.read_text() == "another's"


def test_an_owner_that_is_killed_while_others_stay(owner: Callable[..., Owner], tmp_path: Path) -> None:
    path = tmp_path / "sandbox.json"
    first = owner(share=path, workers=0)
    with Sandbox.attach(path):
        first.end(signal.SIGKILL)
        assert first.remains.alive() != []
    wait_until(lambda: not first.remains.alive())
