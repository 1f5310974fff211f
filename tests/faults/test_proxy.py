"""The proxy, between a raw socket and a server that says what it hears."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_celery_health.sandbox.proxy import PASSES, Proxy, ProxyError, Way
from tests.observe.proxy import server

#: Seconds in which nothing comes where nothing is to come.
SILENCE = 0.1


def echo(client: socket.socket) -> None:
    while data := client.recv(1 << 16):
        client.sendall(data)
    client.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with server(echo) as port, Proxy(f"127.0.0.1:{port}") as proxy:
        yield proxy


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def say(client: socket.socket, words: bytes) -> bytes:
    """What comes back to it."""
    client.sendall(words)
    return hear(client, len(words))


def hear(client: socket.socket, most: int) -> bytes:
    heard = b""
    while len(heard) < most and (part := client.recv(1 << 16)):
        heard += part
    return heard


def is_silent(client: socket.socket) -> bool:
    before = client.gettimeout()
    client.settimeout(SILENCE)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(before)
    return False


def test_it_passes_both_ways_and_counts(proxy: Proxy) -> None:
    with connect(proxy) as one, connect(proxy) as other:
        assert say(one, b"hello") == b"hello"
        assert say(other, b"you") == b"you"
        assert (proxy.connections, proxy.requests, proxy.replies, proxy.open) == (2, 8, 8, 2)
        one.shutdown(socket.SHUT_WR)
        assert one.recv(1) == b""


def test_it_passes_more_than_it_holds_in_the_order_it_came(proxy: Proxy) -> None:
    text = os.urandom(8_000_000)
    with connect(proxy) as client:
        sending = threading.Thread(target=client.sendall, args=(text,))
        sending.start()
        assert hear(client, len(text)) == text
        sending.join()


def test_it_refuses_as_a_port_where_nobody_listens(proxy: Proxy) -> None:
    with connect(proxy) as before, proxy.going(Way(refuses=True)):
        for _ in range(3):
            with socket.socket() as client:
                assert client.connect_ex(("127.0.0.1", proxy.port)) == errno.ECONNREFUSED
        with pytest.raises(ConnectionResetError):
            before.recv(1)
        assert proxy.open == 0
    with connect(proxy) as client:
        assert say(client, b"back on the same port") == b"back on the same port"


def test_a_port_that_refuses_is_given_to_nobody_else(proxy: Proxy) -> None:
    with proxy.going(Way(refuses=True)), socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", proxy.port))


def test_a_port_that_was_taken_all_the_same_is_told(proxy: Proxy) -> None:
    proxy.go(Way(refuses=True))
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", proxy.port))
        other.listen()
        with pytest.raises(ProxyError, match=f"^another process took 127.0.0.1:{proxy.port} while"):
            proxy.go(PASSES)
    proxy.go(PASSES)
    with connect(proxy) as client:
        assert say(client, b"again") == b"again"


def test_it_hangs_and_then_goes_on(proxy: Proxy) -> None:
    with connect(proxy) as before, proxy.going(Way(hangs_after=0)), connect(proxy) as client:
        before.sendall(b"early")
        client.sendall(b"late")
        assert is_silent(before)
        assert is_silent(client)
        assert proxy.requests == 0
        proxy.go(PASSES)
        assert hear(before, 5) == b"early"
        assert hear(client, 4) == b"late"


def test_it_hangs_after_so_many_bytes_of_each_connection(proxy: Proxy) -> None:
    with connect(proxy) as before, proxy.going(Way(hangs_after=3)), connect(proxy) as client:
        for each in (before, client):
            each.sendall(b"hello")
            assert hear(each, 3) == b"hel"
            assert is_silent(each)
        proxy.go(PASSES)
        assert hear(before, 2) == hear(client, 2) == b"lo"


def test_every_reply_is_late(proxy: Proxy) -> None:
    with connect(proxy) as client, proxy.going(Way(latency=0.05)):
        for _ in range(3):
            began = time.perf_counter()
            assert say(client, b"hello") == b"hello"
            assert time.perf_counter() - began >= 0.05
        proxy.go(PASSES)
        assert say(client, b"quick") == b"quick"


def test_a_reply_comes_at_its_bandwidth_a_little_at_a_time(proxy: Proxy) -> None:
    with connect(proxy) as client, proxy.going(Way(bandwidth=10_000)):
        began = time.perf_counter()
        client.sendall(b"x" * 2000)
        first = client.recv(1 << 16)
        assert len(first) < 1000
        hear(client, 2000 - len(first))
        assert time.perf_counter() - began >= 0.19


def test_it_resets(proxy: Proxy) -> None:
    with connect(proxy) as before, proxy.going(Way(ends="reset")):
        with pytest.raises(ConnectionResetError):
            before.recv(1)
        with pytest.raises(ConnectionResetError), connect(proxy) as client:  # as it connects, or thereafter
            client.recv(1)


def test_it_closes(proxy: Proxy) -> None:
    with connect(proxy) as before, proxy.going(Way(ends="close")):
        assert before.recv(1) == b""
        with connect(proxy) as client:
            assert client.recv(1) == b""


def test_it_cuts_what_there_is_off_before_the_next_reply_and_leaves_the_rest_alone(proxy: Proxy) -> None:
    with connect(proxy) as old, connect(proxy) as idle:
        assert say(old, b"one") == b"one"
        assert say(idle, b"two") == b"two"
        with proxy.going(Way(cuts=True)):
            requests = proxy.requests
            old.sendall(b"three")
            with pytest.raises(ConnectionResetError):
                old.recv(100)
            assert proxy.requests == requests + 5  # the other side has it
            with connect(proxy) as new:
                assert say(new, b"four") == b"four"
        assert say(idle, b"five") == b"five"


def test_it_garbles_wherever_the_words_are_cut_in_two(proxy: Proxy) -> None:
    with connect(proxy) as before, proxy.going(Way(garbles=b"secret")):
        with pytest.raises(ConnectionResetError):
            before.recv(1)
        with connect(proxy) as client:
            client.sendall(b"AUTH sec")
            assert hear(client, 5) == b"AUTH "
            client.sendall(b"ret, no sec")
            assert hear(client, 11) == b"xecret, no "
            assert is_silent(client)
            client.sendall(b"ond")
            assert hear(client, 6) == b"second"


def test_it_can_stand_before_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "upstream")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with Proxy(path) as proxy, connect(proxy) as client:
            client.sendall(b"hello")
            upstream, _ = listener.accept()
            with upstream:
                assert hear(upstream, 5) == b"hello"


def test_an_upstream_that_is_not_there_is_a_reset() -> None:
    with server(echo) as port:
        pass
    with Proxy(f"127.0.0.1:{port}") as proxy, pytest.raises(ConnectionResetError), connect(proxy) as client:
        client.recv(1)


def test_it_may_lead_to_another_upstream(proxy: Proxy) -> None:
    def shout(client: socket.socket) -> None:
        client.sendall(client.recv(100).upper())

    with server(shout) as port, connect(proxy) as before:
        assert say(before, b"hello") == b"hello"
        proxy.lead_to(f"127.0.0.1:{port}")
        with pytest.raises(ConnectionResetError):
            before.recv(1)
        with connect(proxy) as client:
            assert say(client, b"hello") == b"HELLO"


def test_a_fork_does_not_keep_its_port_open(proxy: Proxy) -> None:
    ours, childs = socket.socketpair()
    with connect(proxy) as client, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this process has threads
        assert say(client, b"before") == b"before"
        child = os.fork()
        if not child:
            ours.close()
            childs.send(b".")
            childs.recv(1)  # until the parent has closed its end
            os._exit(0)
        childs.close()
        ours.settimeout(5)
        try:
            assert ours.recv(1)
            with proxy.going(Way(refuses=True)), socket.socket() as other:
                assert other.connect_ex(("127.0.0.1", proxy.port)) == errno.ECONNREFUSED
            with connect(proxy) as again:
                assert say(again, b"after") == b"after"
        finally:
            ours.close()
            os.waitpid(child, 0)


def test_nothing_is_left_of_it() -> None:
    files = len(os.listdir("/dev/fd"))
    with server(echo) as port:
        for way in (PASSES, Way(refuses=True), Way(hangs_after=0), Way(latency=9)):
            with Proxy(f"127.0.0.1:{port}") as proxy:
                clients = [connect(proxy) for _ in range(3)]
                for client in clients:
                    client.sendall(b"hello")
                proxy.go(way)
            for client in clients:
                client.close()
            with pytest.raises(ProxyError, match="is closed"):
                proxy.go(PASSES)
    assert not [each for each in threading.enumerate() if each.name == "celery-health proxy"]
    assert len(os.listdir("/dev/fd")) == files
