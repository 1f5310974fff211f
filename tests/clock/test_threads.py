"""Frozen time is for the code under test: its thread, those that it starts, and its work in pools."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest

from pytest_celery_health.clock import CeleryClock
from pytest_celery_health.observe.clock import epoch
from tests.clock.conftest import NOON

EPOCH = NOON.timestamp()


def tell() -> float:
    return time.time()


def in_thread(ask: Callable[[], object]) -> object:
    told: queue.Queue[object] = queue.Queue()
    thread = threading.Thread(target=lambda: told.put(ask()))
    thread.start()
    thread.join()
    return told.get_nowait()


@pytest.fixture
def elsewhere() -> Iterator[Callable[[Callable[[], object]], object]]:
    """A thread that has been there before: asks what it is given, and returns what that said."""
    asked: queue.Queue[Callable[[], object] | None] = queue.Queue()
    told: queue.Queue[object] = queue.Queue()

    def answer() -> None:
        for ask in iter(asked.get, None):
            try:
                told.put(ask())
            except BaseException as error:  # noqa: BLE001 - for the test to look at
                told.put(error)

    thread = threading.Thread(target=answer)
    thread.start()

    def ask(question: Callable[[], object]) -> object:
        asked.put(question)
        return told.get(timeout=20)

    yield ask
    asked.put(None)
    thread.join()


def test_a_thread_that_was_there_before_sees_real_time(celery_clock: CeleryClock, elsewhere) -> None:
    celery_clock.freeze(NOON)
    assert abs(elsewhere(tell) - epoch()) < 60
    assert tell() == EPOCH


def test_a_thread_that_the_code_starts_sees_frozen_time(celery_clock: CeleryClock) -> None:
    celery_clock.freeze(NOON)
    assert in_thread(tell) == in_thread(lambda: in_thread(tell)) == EPOCH


def test_work_in_a_pool_is_of_whoever_hands_it_in(celery_clock: CeleryClock, elsewhere) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert abs(pool.submit(tell).result(20) - epoch()) < 60
        with celery_clock.freeze(NOON):
            assert pool.submit(tell).result(20) == EPOCH
            assert [*pool.map(lambda _: tell(), range(2))] == [EPOCH, EPOCH]
            assert abs(elsewhere(lambda: pool.submit(tell).result(20)) - epoch()) < 60
        assert abs(pool.submit(tell).result(20) - epoch()) < 60


def test_a_thread_of_an_earlier_freeze_is_one_that_was_there_before(celery_clock: CeleryClock) -> None:
    asked: queue.Queue[None] = queue.Queue()
    told: queue.Queue[float] = queue.Queue()

    def answer() -> None:
        for _ in range(2):
            asked.get(timeout=20)
            told.put(tell())

    with celery_clock.freeze(NOON):
        thread = threading.Thread(target=answer)
        thread.start()
        asked.put(None)
        assert told.get(timeout=20) == EPOCH
    with celery_clock.freeze(NOON):
        asked.put(None)
        assert abs(told.get(timeout=20) - epoch()) < 60
    thread.join()


def test_a_thread_cannot_freeze_what_another_has_frozen(celery_clock: CeleryClock, elsewhere) -> None:
    celery_clock.freeze(NOON)
    with CeleryClock() as other:
        refused = elsewhere(lambda: other.freeze("2030-01-01"))
        assert isinstance(refused, RuntimeError)
        assert str(refused) == "time is frozen already, by another thread"
        in_thread(lambda: other.freeze("2030-01-01"))
        assert tell() == 1893456000.0
    assert tell() == EPOCH


def test_a_thread_that_asks_all_the_time_never_sees_another(celery_clock: CeleryClock) -> None:
    """While freezes begin and end, and after: neither the moment nor an error."""
    seen: set[int] = set()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            seen.update((int(tell()), int(datetime.now().timestamp())))

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            for _ in range(10):
                with celery_clock.freeze(NOON), celery_clock.freeze("2030-01-01"):
                    pass
        finally:
            stop.set()
        asking.result(20)
    assert seen
    assert all(abs(each - epoch()) < 120 for each in seen)
