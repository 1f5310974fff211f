"""A `redis-server` that is on the PATH; also what all servers of its kind have in common."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from pytest_celery_health.sandbox.brokers import Launch, converse, free_port, write_private

LOCAL = ""

#: Seconds between two polls of kombu's Redis transport. At its default of 1 a worker takes a second to stop.
POLLING_INTERVAL = 0.05


def available() -> str:
    """ "" if there is one on the PATH."""
    return "" if shutil.which("redis-server") else "no redis-server on the PATH"


def launch(folder: Path, password: str) -> Launch:
    """A Redis in memory only."""
    return launch_server(shutil.which("redis-server") or "redis-server", folder, password)


def launch_server(binary: str, folder: Path, password: str) -> Launch:
    """A server with Redis' configuration file, which keeps the password out of its arguments."""
    port = free_port()
    settings = {
        "bind": "127.0.0.1",
        "port": port,
        "requirepass": password,
        "dir": f'"{folder}"',
        "save": '""',
        "appendonly": "no",
        "daemonize": "no",
        "protected-mode": "yes",
    }
    config = folder / "redis.conf"
    write_private(config, "".join(f"{key} {value}\n" for key, value in settings.items()))
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    return Launch((binary, str(config)), url, url, {"polling_interval": POLLING_INTERVAL})


def answers(launch: Launch) -> str:
    """Name and version, from a server that takes our password: another on the port would not."""
    url = urlsplit(launch.url)
    said = converse(url.port or 0, f"AUTH {url.password}\r\nINFO server\r\n".encode(), b"run_id:")
    if not said.startswith(b"+OK"):
        return ""
    known = dict(re.findall(r"(\w+):(\S+)", said.decode(errors="replace")))
    if "valkey_version" in known:
        return f"valkey {known['valkey_version']}"
    return f"redis {known['redis_version']}" if "redis_version" in known else ""


def port_was_taken(log: str) -> bool:
    """Whether the log says so."""
    return "Address already in use" in log
