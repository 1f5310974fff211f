"""What is written into a project: an app, and health checks that do it right and wrong."""

# ruff: noqa: BLE001, T201

import asyncio
import json
import logging
import os
import socket
import sys
import threading
import time
from urllib.parse import urlsplit

import redis
from celery import Celery

app = Celery("shop", broker=os.environ.get("BROKER", "redis://production.example:6379/0"))
BOUNDS = {"socket_timeout": 1, "socket_connect_timeout": 1, "max_retries": 0}
KEPT = []
STREAMS = {}
CALLED = []


@app.task
def pay():
    pass


def connection():
    return app.connection_for_read(connect_timeout=1, transport_options=BOUNDS)


def asked(command):
    with connection() as own:
        replies = getattr(app.control.inspect(timeout=0.5, limit=1, connection=own), command)()
    if not replies:
        raise LookupError("no worker answered")
    return replies


# How health checks answer.


def returns_bool():
    try:
        return bool(asked("ping"))
    except Exception:
        return False


def returns_mapping():
    try:
        return {"status": "ok", "workers": len(asked("ping"))}
    except Exception as error:
        return {"status": "error", "error": str(error)}


def returns_json():
    return json.dumps(returns_mapping())


def returns_json_that_lies():
    return json.dumps({"healthy": True}).encode()


def returns_nothing_or_raises():
    asked("ping")


def returns_two():
    return (True, "fine") if returns_bool() else (False, "no worker")


def returns_a_response():
    class Response:
        status_code = 200 if returns_bool() else 503
        body = b'{"healthy": true}' if status_code == 200 else b"{}"

    return Response()


def returns_a_response_of_json():
    return returns_mapping(), 200


async def is_async():
    return returns_bool()


def tells_of_workers():
    """As a guide has it: what workers say of themselves holds None here and there."""
    return {"active": asked("active"), "reserved": asked("reserved"), "stats": asked("stats")}


class Backend:
    """As django-health-check has them."""

    def __init__(self):
        self.errors = []

    def check_status(self):
        if not returns_bool():
            self.errors.append("no worker")


class Raises:
    async def check_status(self):
        asked("ping")


class Runs:
    """As django-health-check 4 has them."""

    def run(self):
        asked("ping")


async def keeps_its_stream():
    """A connection of asyncio's that lives as long as the process and its loop."""
    try:
        if "stream" not in STREAMS:
            place = urlsplit(app.conf.broker_url)
            STREAMS["stream"] = await asyncio.open_connection(place.hostname, place.port)
        reader, writer = STREAMS["stream"]
        writer.write(b"PING\r\n")
        return bool(await asyncio.wait_for(reader.readline(), 1))
    except Exception:
        return False


async def gives_a_thread_up():
    """In time, and the thread ends soon."""
    try:
        return await asyncio.wait_for(asyncio.to_thread(hangs_for_a_while), 3)
    except asyncio.TimeoutError:
        return False


def hangs_for_a_while():
    return returns_bool() or threading.Event().wait(4)


def takes_arguments(*, command):
    return bool(asked(command))


def wsgi(environ, start_response):
    if environ["PATH_INFO"] != "/healthz":
        start_response("404 Not Found", [])
        return [b"no such page"]
    healthy = returns_bool() and environ.get("HTTP_X_ASKER") == "kubelet"
    start_response("200 OK" if healthy else "503 Service Unavailable", [("Content-Type", "text/plain")])
    return [b"up" if healthy else b"down"]


def wsgi_raises(environ, start_response):
    asked("ping")
    start_response("200 OK", [])
    return []


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        scope["state"]["started"] = True
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    healthy = scope["path"] == "/healthz" and scope["state"].get("started") and returns_bool()
    await send({"type": "http.response.start", "status": 200 if healthy else 503, "headers": []})
    await send({"type": "http.response.body", "body": b'{"healthy": true}' if healthy else b"{}"})


async def asgi_without_lifespan(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200 if returns_bool() else 503, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def asgi_of_json(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    body = b'{"status": "%s"}' % (b"up" if returns_bool() else b"down")
    await send({"type": "http.response.body", "body": body})


def pooled():
    """Keeps the connection of the app's pool, as a long-lived process does."""
    try:
        with app.pool.acquire(timeout=1) as own:
            return bool(app.control.inspect(timeout=0.5, limit=1, connection=own).ping())
    except Exception:
        return False


# What they do wrong.


def always_green():
    return True


def always_red():
    return {"healthy": False, "reason": "it is Monday"}


def green_once():
    CALLED.append(1)
    return returns_bool() and len(CALLED) < 2


def raises():
    return bool(asked("ping"))


def is_late():
    time.sleep(0.6)
    return True


def hangs():
    return returns_bool() or threading.Event().wait()


async def hangs_in_the_loop():
    return returns_bool() or await never()


async def hangs_in_a_task():
    return returns_bool() or await asyncio.gather(never())


async def never():
    await asyncio.Event().wait()


def ends_its_process():
    return returns_bool() or os._exit(3)


def exits():
    return returns_bool() or sys.exit("no worker")


def is_unclear():
    return {"status": "purple"}


def leaves_a_thread():
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    return returns_bool()


def leaves_a_thread_in_an_outage():
    healthy = returns_bool()
    if not healthy:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return healthy


def leaves_a_connection_in_an_outage():
    healthy = returns_bool()
    if not healthy:
        KEPT.append(socket.socket())
    return healthy


def keeps_one_thread_in_an_outage():
    healthy = returns_bool()
    if not healthy and not KEPT:
        KEPT.append(threading.Thread(target=threading.Event().wait, daemon=True))
        KEPT[0].start()
    return healthy


def thread_that_ends_soon_in_an_outage():
    healthy = returns_bool()
    if not healthy:
        threading.Timer(0.5, str).start()
    return healthy


async def gives_a_thread_up_for_good():
    """In time, but the thread never ends."""
    try:
        return await asyncio.wait_for(asyncio.to_thread(hangs), 3)
    except asyncio.TimeoutError:
        return False


def leaves_a_connection():
    kept = socket.socketpair()
    KEPT.append(kept)
    return returns_bool()


def leaves_a_queue():
    with connection() as own:
        own.SimpleQueue("mispelt").close()
    return returns_bool()


def leaves_a_key():
    with redis.Redis.from_url(app.conf.broker_url) as client:
        client.set("probed-at", time.time())
    return returns_bool()


def shows_the_password():
    return {"healthy": returns_bool(), "broker": app.conf.broker_url}


def logs_the_password():
    logging.getLogger("shop").warning("asking %s", app.conf.broker_url)
    return returns_bool()


def prints_the_password():
    print(app.conf.broker_url)
    return returns_bool()


def raises_the_password():
    if not returns_bool():
        raise ConnectionError(f"no answer from {app.conf.broker_url}")


def burns():
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    return returns_bool()


if __name__ == "__main__":
    if "--password" in sys.argv:
        print(app.conf.broker_url)
    if "--hang" in sys.argv and not returns_bool():
        threading.Event().wait()
    sys.exit(0 if returns_bool() else 1)
