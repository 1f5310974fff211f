"""The sets of worlds in which workers are broken."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from pytest_celery_health import Verdict
from tests.probes.conftest import Lab, bad
from tests.probes.test_states import SOURCE, calls

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RIGHT = {
    "workers": calls("consumed", "worker_check"),
    "ready": calls("consumed", "readiness"),
    "alive": calls("alive", "liveness"),
}
WRONG = {
    "ping": (
        calls("ping", "worker_check"),
        [
            "ping says healthy while only beat answers, as it does from Celery 5.7 on",
            "ping says healthy while no worker consumes a queue",
            "ping says healthy while every worker consumes another queue",
        ],
    ),
    "restarts": (
        calls("ping", "liveness"),
        [
            "ping says unhealthy while the broker refuses connections",
            "ping says unhealthy while the broker takes connections and never answers",
            "ping says unhealthy while the broker refuses the password",
            "ping says unhealthy while every worker is shutting down",
            "ping says unhealthy while every worker is a solo one, busy with a task",
        ],
    ),
}


@pytest.fixture(scope="module")
def verdicts(lab: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    root = tmp_path_factory.mktemp("workers")
    shutil.copy(SOURCE, root / "shop.py")
    made = lab("shop:app", root, workers=1, concurrency=1, redirect_env=("BROKER",))
    return made.verdicts({**RIGHT, **{name: check for name, (check, _) in WRONG.items()}})


@pytest.mark.parametrize("name", RIGHT)
def test_green_in_every_world(verdicts: dict[str, Verdict], name: str) -> None:
    assert bad(verdicts[name]) == []


@pytest.mark.parametrize("name", WRONG)
def test_red_where_it_is_wrong(verdicts: dict[str, Verdict], name: str) -> None:
    found = bad(verdicts[name])
    missing = [said for said in WRONG[name][1] if not any(line.startswith(said) for line in found)]
    assert not missing, found
    assert len(found) == len(WRONG[name][1]), found
