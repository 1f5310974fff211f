"""Each way in which a server is no broker, behind each kind of URL: told in time, in plain words, without the
password, and nothing is left of it."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from struct import pack

import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest
import trustme

from pytest_celery_health.facts import AskBeat, AskQueues, AskWorkers, Snapshot, Unseen
from pytest_celery_health.observe.look import look
from pytest_celery_health.observe.target import Target
from tests.observe.fleet import free_port
from tests.observe.proxy import Flood, begin, close, drip, hang, http, server
from tests.support.timing import in_time, wait_until

SECRET = "s3cr/t"
ASKS = (AskWorkers(), AskQueues(("celery",), unacked=True), AskBeat("redis:heartbeat"))
#: Of a look that has its verdict at once, whatever else this machine does.
DEADLINE = 4
SLACK = 0.25

SCHEMES = ("redis", "rediss", "unix", "sentinel", "redis twice", "amqp", "amqps", "amqp twice")


class Place:
    """Where a server of a scheme is, how to go there, and what it is called in a message."""

    def __init__(self, scheme: str, folder: Path, tls: ssl.SSLContext, ca: str) -> None:
        self.scheme = scheme
        self.tls = tls if scheme in ("rediss", "amqps") else None
        self.path = folder / "r.sock" if scheme == "unix" else None
        self._ca = ca

    @property
    def amqp(self) -> bool:
        return self.scheme.startswith("amqp")

    def urls(self, port: int, host: str = "127.0.0.1", secret: str = "s3cr%2Ft") -> list[str]:
        if self.path is not None:
            return [f"redis+socket://:{secret}@{self.path}"]
        scheme, _, twice = self.scheme.partition(" ")
        return [f"{scheme}://:{secret}@{host}:{port}/0"] * (2 if twice else 1)

    def target(self, port: int, host: str = "127.0.0.1") -> Target:
        options = {"master_name": "main", "sentinel_kwargs": {"password": SECRET}}
        trusted = {"amqps": {"ca_certs": self._ca, "cert_reqs": 2}, "rediss": {"ssl_ca_certs": self._ca}}
        return Target(
            "t",
            ";".join(self.urls(port, host)),
            options=options if self.scheme == "sentinel" else {},
            ssl=trusted.get(self.scheme),
        )

    def told(self, words: str, port: int, host: str = "127.0.0.1") -> str:
        """`words` of each of its URLs, as a message has them."""
        return "; ".join(words.format(url) for url in self.urls(port, host, "***"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    """What a server of 127.0.0.1 shows, and the file by which it is trusted."""
    ca, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(file))
    return context, str(file)


@pytest.fixture(params=SCHEMES)
def place(
    request: pytest.FixtureRequest, tmp_path: Path, authority: tuple[ssl.SSLContext, str]
) -> Iterator[Place]:
    """Nothing of a look is left at its end."""
    before = psutil.Process().num_fds()
    yield Place(request.param, tmp_path, *authority)
    wait_until(lambda: not looking(), within=3, what="the end of the look's thread")
    wait_until(lambda: psutil.Process().num_fds() <= before, within=3, what="the end of the look's sockets")


def looking() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "celery-health look"]


def why_not(target: Target, deadline: float = DEADLINE) -> str:
    """Why nothing was seen: said in time, of every fact, without the password."""
    found = in_time(lambda: look(target, ASKS, deadline=deadline), deadline + SLACK)
    assert SECRET not in repr(found)
    assert "s3cr%2Ft" not in repr(found)
    seen = found.snapshot
    assert isinstance(seen.queues(["celery"]), Unseen)
    assert isinstance(seen.unacked, Unseen)
    assert isinstance(beat_of(seen), Unseen)
    assert isinstance(seen.workers, Unseen)
    return seen.workers.why


def beat_of(seen: Snapshot) -> object:
    beat = seen.beat("redis:heartbeat")
    assert not isinstance(beat, Unseen)
    return beat.last_seen


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # redis-py 5 leaves a socket
def test_refuses(place: Place) -> None:
    port = free_port()
    words = "No such file or directory: {}" if place.path else "connection refused by {}"
    assert why_not(place.target(port)) == place.told(words, port)


@pytest.mark.parametrize("place", [each for each in SCHEMES if each != "unix"], indirect=True)
def test_does_not_resolve(place: Place) -> None:
    why = why_not(place.target(1, "nope.invalid"))
    words = "no such host: nope.invalid does not resolve ({})"
    # A resolver may take its time.
    assert why in (place.told(words, 1, "nope.invalid"), place.told("no answer within 4 s from {}", 1))


def test_closes(place: Place) -> None:
    at_once = "connection closed at once (does it want TLS, or is it another kind of server?) by {}"
    in_tls = "connection closed in the TLS handshake (does it want a client certificate?) by {}"
    with server(close, tls=place.tls, path=place.path) as port:
        assert why_not(place.target(port)) == place.told(in_tls if place.tls else at_once, port)


def test_speaks_another_protocol(place: Place) -> None:
    words = "another protocol spoken (answered 'HTTP/1.1 400 Bad Request') by {}"
    if place.scheme == "amqps":
        # The four bytes where AMQP has the length of a frame are "P/1.".
        words = "another protocol spoken (UnexpectedFrame: a frame of 1,345.3 MB) by {}"
    with server(http, tls=place.tls, path=place.path) as port:
        assert why_not(place.target(port)) == place.told(words, port)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["hangs", "drips", "hangs in mid-reply"])
def test_answers_too_late(place: Place, way: str) -> None:
    begun = b"\x01\x00\x00\x00\x00\x01\x00abc" if place.amqp else b"$100\r\nabc"
    ways = {"hangs": hang, "drips": drip(begun), "hangs in mid-reply": begin(begun)}
    with server(ways[way], tls=place.tls, path=place.path) as port:
        # A handshake takes a while on a loaded machine.
        why = why_not(place.target(port), deadline=1.5 if place.tls else 0.6)
    assert why.startswith("no answer")


FLOODS = {
    "a reply": (b"$9999999999\r\n", b"x" * 65536),
    "a line": (b"+", b"x" * 65536),
    "an array": (b"*999999999\r\n", (b"$9000\r\n" + b"x" * 9000 + b"\r\n") * 9),
    "a frame": (b"\x01\x00\x00" + pack(">I", 9_999_999), b"x" * 65536),
    "frames": (b"", (b"\x08\x00\x00" + pack(">I", 90_000) + b"x" * 90_000 + b"\xce")),
}


@pytest.mark.parametrize(
    ("place", "what"),
    [(scheme, what) for scheme in SCHEMES for what in FLOODS if ("amqp" in scheme) == ("frame" in what)],
    indirect=["place"],
)
def test_sends_without_end(place: Place, what: str) -> None:
    """No more than a megabyte is read of what is no answer, whatever it looks like."""
    flood = Flood(*FLOODS[what])
    with server(flood, tls=place.tls, path=place.path) as port:
        why = why_not(place.target(port))
    assert why == place.told("1 MB came, and no end of it: no broker's answer, from {}", port)
    # Sent, but not read: what the sockets' buffers took.
    assert flood.sent < 40_000_000


def test_answers_every_command_with_a_number() -> None:
    def serve(client: socket.socket) -> None:
        while asked := client.recv(65536):
            for _ in re.findall(rb"^\*\d+\r$", asked, re.MULTILINE):
                client.sendall(b"+PONG\r\n" if b"PING" in asked else b":-1\r\n")

    with server(serve) as port:
        why = why_not(Target("t", f"redis://127.0.0.1:{port}/0"))
    assert why == f"another protocol spoken (its answers make no sense) by redis://127.0.0.1:{port}/0"


@pytest.mark.parametrize(
    ("scheme", "body", "error"),
    [
        ("redis", b"*1\r\n" * 9000, "its answers make no sense)"),
        # What else redis-py says depends on its version.
        ("redis", b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n" * 2000, ""),
        ("redis", b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n" * 2000, ""),
        ("amqp", b"\x01\x00\x00\x7f\xff\xff\xff" * 9000, "UnexpectedFrame: a frame of 2,147.5 MB"),
    ],
    ids=["nested arrays", "pub/sub messages", "pushes", "a frame as long as can be"],
)
def test_answers_what_drivers_do_not_expect(scheme: str, body: bytes, error: str) -> None:
    with server(Flood(b"", body)) as port:
        why = why_not(Target("t", f"{scheme}://127.0.0.1:{port}/0"))
    assert why.startswith(f"another protocol spoken ({error}"), why
    assert why.endswith(f" by {scheme}://127.0.0.1:{port}/0")
