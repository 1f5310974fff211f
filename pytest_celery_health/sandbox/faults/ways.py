"""Faults of the way to a server: of a proxy, in front of the broker or of the result backend alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING

from pytest_celery_health.sandbox.faults.base import BACKEND, BROKER, PASSWORD, Fault, FaultError
from pytest_celery_health.sandbox.proxy import Way

if TYPE_CHECKING:
    from pytest_celery_health.sandbox.world import World

_Make = Callable[..., Way]

#: Seconds by which a slow server's replies are late.
LATENCY = 1.0


def _refuses() -> Way:
    return Way(refuses=True)


def _hangs() -> Way:
    return Way(hangs_after=0)


def _hangs_after(replied: int = 1) -> Way:
    if replied < 0:
        raise FaultError(f"hangs_after: replied={replied} are no bytes of replies; write 0 or more")
    return Way(hangs_after=replied)


def _slow(latency: float = LATENCY, bandwidth: float | None = None) -> Way:
    if latency < 0 or (bandwidth is not None and bandwidth <= 0):
        raise FaultError("slow: latency is seconds, 0 or more, and bandwidth bytes a second, more than 0")
    return Way(latency=latency, bandwidth=bandwidth)


def _resets() -> Way:
    return Way(ends="reset")


def _closes() -> Way:
    return Way(ends="close")


def _cuts() -> Way:
    return Way(cuts=True)


_ROWS: tuple[tuple[str, str, _Make], ...] = (
    ("refuses", "refuses connections: nobody listens on its port, and those there were are reset.", _refuses),
    ("hangs", "accepts connections and never says a word; those there were stall.", _hangs),
    (
        "hangs_after",
        "says `replied` more bytes (1) on each connection, and then never a word.",
        _hangs_after,
    ),
    (
        "slow",
        "is slow: a reply is `latency` seconds late (1), and comes at `bandwidth` bytes a second (no limit).",
        _slow,
    ),
    ("resets", "resets every connection as soon as it is made (RST), and those there were.", _resets),
    ("closes", "closes every connection as soon as it is made (FIN), and those there were.", _closes),
    (
        "cuts",
        "does what it is asked next, but every connection there was is reset before it can say so.",
        _cuts,
    ),
)


def _going(side: str, make: _Make) -> Callable[..., AbstractContextManager[None]]:
    @contextmanager
    def act(world: World, **arguments: float) -> Iterator[None]:
        with world.proxy(side).going(make(**arguments)):
            yield
        world.prove_way(side)

    own = Parameter("world", Parameter.POSITIONAL_ONLY)
    takes = Signature([own, *signature(make).parameters.values()])
    act.__signature__ = takes  # type: ignore[attr-defined]
    return act


def _wrong_password(side: str) -> Callable[..., AbstractContextManager[None]]:
    @contextmanager
    def act(world: World) -> Iterator[None]:
        with world.proxy(side).going(Way(garbles=world.password.encode())):
            yield
        world.prove_way(side)

    return act


def _faults(side: str, title: str) -> Iterator[Fault]:
    for name, what, make in _ROWS:
        yield Fault(f"{side}_{name}", f"{title} {what}", _going(side, make), (side,), (side,))
    what = "The password is wrong: the server itself refuses the login, and connections there were are reset."
    if side == BACKEND:
        what = "The password of the result backend is wrong, as for the broker."
    yield Fault(f"{side}_wrong_password", what, _wrong_password(side), (side, PASSWORD), (side,))


FAULTS: tuple[Fault, ...] = (*_faults(BROKER, "The broker"), *_faults(BACKEND, "The result backend"))
