"""What the sandbox's processes may connect to: its own endpoints, what the contract allows, and no more.

The half that runs in those processes is `sealed/celery_health_seal.py`. Two layers: Python itself refuses
and names each connection; where the kernel can, it refuses TCP to other ports for whatever is not Python
(C libraries, subprocesses), which then cannot connect.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from pytest_celery_health.project.variables import redirecting

_SEALED = Path(__file__).with_name("sealed")
_DROPPED_SUFFIX = "_proxy"
#: Names the folder in which the processes of a prometheus_client in multiprocess mode keep their metrics.
MULTIPROC_DIR = "PROMETHEUS_MULTIPROC_DIR"


@dataclass(frozen=True)
class Layer:
    """One layer of the seal. `why_not` says why it is not in force; "" when it is."""

    name: str
    why_not: str = ""

    @property
    def in_force(self) -> bool:
        return not self.why_not


@dataclass(frozen=True)
class Refusal:
    """A connection that was refused: to `address`, asked for at `where` (file:line) in a process."""

    address: str
    where: str
    role: str
    pid: int


def endpoint_complaint(endpoint: str) -> str:
    """Why `endpoint` is no "host:port" or "host:*", or ""."""
    host, _, port = endpoint.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or (":" in bare and bare == host):
        why = "is not an endpoint"
    elif port != "*" and not (port.isdecimal() and 0 < int(port) < 65536):
        why = "has no port"
    elif any(sign in bare for sign in "*?/@ "):
        why = "does not name one host"
    else:
        return ""
    return f"{endpoint!r} {why}; write host:port, such as 'localhost:5432'"


@dataclass(frozen=True)
class Seal:
    """What a sealed process may reach. Unix sockets always; listening is free.

    allow: "host:port" of the sandbox's own endpoints and of what the contract allows; "host:*" for any port.
    log: file that refusals are appended to.

    Raises ValueError for an endpoint of another form.
    """

    allow: tuple[str, ...]
    log: Path

    def __post_init__(self) -> None:
        for endpoint in self.allow:
            if complaint := endpoint_complaint(endpoint):
                raise ValueError(complaint)

    def environ(self, base: Mapping[str, str], *, role: str) -> dict[str, str]:
        """`base` with what seals a Python process and all that it starts. `role` is told with refusals."""
        environ = {**base}
        environ.pop("CELERY_HEALTH_SEAL_KERNEL", None)
        environ["CELERY_HEALTH_SEAL"] = " ".join(self.allow)
        environ["CELERY_HEALTH_SEAL_LOG"] = str(self.log)
        environ["CELERY_HEALTH_SEAL_ROLE"] = role
        path = [entry for entry in base.get("PYTHONPATH", "").split(os.pathsep) if entry]
        environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(_SEALED), *path]))
        return environ

    def layers(self) -> tuple[Layer, ...]:
        """Which layers are in force on this machine, for a report."""
        why_not = ""
        if _child_half().kernel_abi() < 4:
            why_not = "the kernel has no Landlock rules for TCP (Linux 6.7)"
        elif any(endpoint.endswith(":*") for endpoint in self.allow):
            why_not = "allow holds a port *"
        return Layer("Python"), Layer("kernel", why_not)


def refusals(log: Path) -> list[Refusal]:
    """What was refused so far, in order."""
    try:
        lines = log.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [Refusal(**json.loads(line)) for line in lines if line.endswith("}")]


def clean_environ(
    base: Mapping[str, str],
    *,
    broker_url: str,
    backend_url: str,
    redirect_env: Iterable[str] = (),
    own: Mapping[str, str] | None = None,
    private: Path | None = None,
) -> dict[str, str]:
    """`base` with nothing in it that leads out of the sandbox as far as names can tell.

    `own` are the contract's variables, which stay but must not win over the sandbox's. `redirect_env` are
    further variables that shall hold the broker's URL. Where metrics are kept in files, these go below the
    folder `private`, not among the project's own.
    """
    environ = {
        key: value
        for key, value in base.items()
        if not key.startswith("CELERY_") and not key.lower().endswith(_DROPPED_SUFFIX)
    }
    environ.update(own or {})
    for name, value in redirecting(broker_url, backend_url, redirect_env).items():
        if value is None:
            environ.pop(name, None)
        else:
            environ[name] = value
    for name in (MULTIPROC_DIR, MULTIPROC_DIR.lower()):
        if private is not None and name in environ:
            metrics = private / "metrics"
            metrics.mkdir(exist_ok=True)
            environ[name] = str(metrics)
    environ["CELERY_HEALTH_SANDBOX"] = "1"
    environ["C_FORCE_ROOT"] = "1"  # a root container must run the app's workers whatever they accept
    return environ


@lru_cache(maxsize=1)
def _child_half() -> ModuleType:
    # By path: its folder must not be on the path of the pytest process.
    spec = importlib.util.spec_from_file_location("celery_health_seal", _SEALED / "celery_health_seal.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(_SEALED)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
