"""Ways out of a sandbox. Each tries once, in earnest, and goes on whatever comes of it."""

import logging
import os
import socket
import urllib.request

import redis
import requests

logger = logging.getLogger(__name__)


def _address(name):
    host, _, port = os.environ[name].rpartition(":")
    return host, int(port)


def by_redis(where):
    url = f"redis://{os.environ['DECOY_REDIS']}/0"
    with redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1) as client:
        client.set("leak", where)


def by_tcp(where):
    with socket.create_connection(_address("DECOY_POSTGRES"), timeout=1) as connection:
        connection.sendall(where.encode())


def by_urllib(where):
    with urllib.request.urlopen(f"http://{os.environ['DECOY_HTTP']}/{where}", timeout=1):
        pass


def by_requests(where):
    requests.post(f"http://{os.environ['DECOY_HTTP']}/{where}", timeout=1)


def by_udp(where):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(where.encode(), _address("DECOY_UDP"))


def every_way(where):
    for way in (by_redis, by_tcp, by_urllib, by_requests, by_udp):
        try:
            way(where)
        except Exception as error:  # noqa: BLE001 - whatever refused it
            logger.warning("%s kept %s in: %r", where, way.__name__, error)
        else:
            logger.warning("%s got out %s", where, way.__name__)
