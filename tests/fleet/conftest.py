"""An app of the test's own, and fleets on every broker."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from uuid import uuid4

import pytest
from celery import Celery, _state

from conftest import IMPOSSIBLE
from pytest_celery_health.sandbox import SandboxError
from pytest_celery_health.sandbox.embedded import EmbeddedBrokers
from pytest_celery_health.sandbox.fleet.here import CeleryFleet
from pytest_celery_health.sandbox.spec import SandboxSpec
from tests.observe.fleet import RABBIT, accepts
from tests.support.rabbit import forget

GUIDE = Path(__file__).parents[1] / "projects" / "guide" / "shop" / "health.py"
OWN = "redis://broker.invalid/0"
#: "rabbitmq" is the machine's, where names must be of the test's own; "" is the best real one at hand.
BROKERS = ["", "redis-server", "fakeredis", "memory", "rabbitmq"]

StartFleet = Callable[..., CeleryFleet]


@pytest.fixture
def app() -> Iterator[Celery]:
    """The current app, whose own broker does not exist."""
    current, default = _state._tls.current_app, _state.default_app
    app = Celery("shop", broker=OWN)

    @app.task(name="shop.pay", shared=False)
    def pay() -> str:
        return "paid"

    yield app
    app.close()
    _state._tls.current_app = current
    _state.set_default_app(default)


@pytest.fixture(scope="session")
def brokers() -> Iterator[EmbeddedBrokers]:
    started = EmbeddedBrokers(SandboxSpec(), Path.cwd())
    yield started
    started.close()


@pytest.fixture
def name() -> str:
    """Of a queue of the test's own."""
    return f"billing-{uuid4().hex[:8]}"


@pytest.fixture
def start_fleet(app: Celery, brokers: EmbeddedBrokers, name: str) -> Iterator[StartFleet]:
    """A fleet on one of BROKERS, or on a broker of the sandbox."""
    with ExitStack() as stack:

        def start(kind: str = "") -> CeleryFleet:
            if kind == "rabbitmq":
                if not accepts(5672):
                    pytest.skip("no RabbitMQ on 127.0.0.1:5672")
                control = app.conf.control_exchange = app.conf.event_exchange = f"fleet-{uuid4().hex[:8]}"
                app.conf.task_default_exchange = name
                stack.callback(forget, RABBIT, control, control, name)
                return stack.enter_context(CeleryFleet(app, RABBIT, "rpc://", broker=kind))
            try:
                broker = stack.enter_context(brokers.empty(kind))
            except SandboxError as error:
                pytest.skip(f"{IMPOSSIBLE if kind == 'valkey' else ''}{error}")
            fleet = CeleryFleet(
                app,
                broker.target.url,
                broker.launch.result,
                options=broker.target.options,
                broker=broker.broker,
            )
            return stack.enter_context(fleet)

        yield start


@pytest.fixture(params=BROKERS, ids=lambda name: name or "the best")
def fleet(request: pytest.FixtureRequest, start_fleet: StartFleet) -> CeleryFleet:
    return start_fleet(request.param)


@pytest.fixture
def best(start_fleet: StartFleet) -> CeleryFleet:
    """A fleet on the best real broker at hand."""
    return start_fleet()


@pytest.fixture(scope="session")
def guide() -> ModuleType:
    """The health functions of a well-known guide, which ask whatever app is current."""
    spec = importlib.util.spec_from_file_location("guides_health", GUIDE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
