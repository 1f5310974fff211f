"""What the processes of a pytest-xdist run have in common: one sandbox, one look, one tally."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pytest_celery_health.report.terminal import Tally
from pytest_celery_health.sandbox.client import Client

_INPUT = "celery_health_share"
_OUTPUT = "celery_health"


def shared_folder(config: pytest.Config) -> Path | None:
    """The folder that the controller of this process made; None in a run of one process."""
    folder = getattr(config, "workerinput", {}).get(_INPUT)
    return None if folder is None else Path(folder)


class Processes:
    """Hooks of the controller. Its folder is a keeper's, and so goes with it, also when it is killed."""

    def __init__(self, config: pytest.Config, tally: Tally) -> None:
        self.config = config
        self.tally = tally
        self.is_worker = hasattr(config, "workerinput")
        self.share: Path | None = None
        self._keeper: Client | None = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        if self.share is None:
            self._keeper = Client.start()
            self.share = self._keeper.folder / "share"
            self.share.mkdir(mode=0o700)
        node.workerinput[_INPUT] = str(self.share)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.tally.join(getattr(node, "workeroutput", {}).get(_OUTPUT, {}))

    def send(self) -> None:
        """Of a worker: have the controller count what was counted here."""
        self.config.workeroutput[_OUTPUT] = self.tally.shipped()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Remove the folder."""
        if self._keeper is not None:
            keeper, self._keeper = self._keeper, None
            keeper.leave()
