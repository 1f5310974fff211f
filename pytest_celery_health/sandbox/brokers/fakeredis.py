"""fakeredis' TCP server in a process of its own: pure Python, for machines where nothing else runs.

It is slow (about 90 ms a task) and speaks Redis well enough for a worker or two, not for load.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from pytest_celery_health.sandbox.brokers import Launch, free_port
from pytest_celery_health.sandbox.brokers.redis_server import POLLING_INTERVAL

LOCAL = ""


def available() -> str:
    """ "" if it is installed with Lua, which kombu's Redis transport needs."""
    for name in ("fakeredis", "lupa"):
        if importlib.util.find_spec(name) is None:
            return f"no {name}; pip install 'fakeredis[lua]'"
    return ""


def launch(folder: Path, _password: str) -> Launch:
    """A fake without a password, which its TCP server does not enforce."""
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    argv = (sys.executable, "-c", _SERVE, str(port), str(folder / f"fakeredis-{port}"))
    return Launch(argv, url, url, {"polling_interval": POLLING_INTERVAL})


# An error reply is raised in the fake's handler, which then hangs up: kombu's NOSCRIPT would cost the
# connection that SCRIPT LOAD is about to use. With Nagle's algorithm a reply after what was pushed would wait
# 40 ms for the client's delayed acknowledgement. Of changed keys Redis tells who subscribes only where it is
# configured to; the fake does always, and holds each write against the pattern of each simulated worker.
_SERVE = """
import sys
from fakeredis import TcpFakeServer
from redis.exceptions import ResponseError

TcpFakeServer.request_queue_size = 128
server = TcpFakeServer(("127.0.0.1", int(sys.argv[1])), server_type="redis")
server.daemon_threads = True

class Handler(server.RequestHandlerClass):
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        read = self.current_client.read_response

        def read_response(*args, **kwargs):
            try:
                return read(*args, **kwargs)
            except ResponseError as error:
                return error

        self.current_client.read_response = read_response
        self.current_client.get_socket()._keyspace_notifications = lambda *_: None

server.RequestHandlerClass = Handler
open(sys.argv[2], "w").close()
server.serve_forever()
"""


def answers(launch: Launch) -> str:
    """Name and version once it says that the port is its own: a stranger there would answer as well."""
    if not Path(launch.argv[-1]).exists():
        return ""
    from importlib.metadata import version

    return f"fakeredis {version('fakeredis')}"


def port_was_taken(log: str) -> bool:
    """Whether the log says so."""
    return "Address already in use" in log
