"""A command line of the project, judged by its exit code. Standard library only."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

from pytest_celery_health.facts import Answer
from pytest_celery_health.masking import mask, secrets_in
from pytest_celery_health.project.describe import Asked, Sealing
from pytest_celery_health.project.info import AppSpec
from pytest_celery_health.project.probe import give_up_after

_LONGEST = 300
#: Seconds beyond its own, for the child that runs it to start, and to call it once more.
_MORE = 15.0


class _Running:
    word = "probe"
    work = "pytest_celery_health.project.child.command:command"

    def read(self, value: Any) -> dict[str, Any]:
        return dict(value)


def run_command(
    spec: AppSpec,
    command: tuple[str, ...],
    world: str,
    *,
    within: float,
    sealed: Sealing,
    environ: Mapping[str, str],
) -> Answer:
    """What a command line says by its exit code, as an exec probe is judged.

    `python` is the one that runs us. It is killed, with all that it started, long after `within` seconds.
    Raises ProjectError when there is no child that could run it.
    """
    gives_up = give_up_after(within)
    job = {"function": command[0], "line": command, "gives_up": gives_up}
    told = Asked(_Running(), spec, job, 2 * gives_up + _MORE, sealed, environ).result()
    if "missing" in told:
        return Answer(world, unseen=f"{command[0]} cannot be run: {told['missing']}")
    secrets = [
        s for s in secrets_in(*(v for k, v in environ.items() if k.startswith("CELERY_"))) if len(s) > 3
    ]
    code, text, took = told["code"], told["text"], told["took"]
    said = " ".join(mask(text, secrets).split())[-_LONGEST:]
    shows = ("output",) if any(secret in text for secret in secrets) else ()
    if code is None:
        return Answer(world, "hung", "verdict", said, took=took, shows=shows)
    verdict = "healthy" if code == 0 else "unhealthy"
    if code < 0:
        verdict, said = "crashed", f"ended by {signal.Signals(-code).name}"
    left = tuple(f"the process {mask(one, secrets)} with each call" for one in told["left"])
    said = f"exit {code} {said}".strip()
    return Answer(world, verdict, "verdict", said, "", took, told["cpu"], left=left, shows=shows)
