import contextlib

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from styles.workers import require_consumers


@contextlib.asynccontextmanager
async def lifespan(_):
    yield {"started": True}


async def ready(request):
    assert request.state.started
    try:
        workers = await run_in_threadpool(require_consumers)
    except Exception as error:  # noqa: BLE001 - whatever it is
        return JSONResponse({"healthy": False, "error": type(error).__name__}, 503)
    return JSONResponse({"healthy": True, "workers": workers})


async def live(_):
    return PlainTextResponse("alive")


routes = [Route("/health/ready", ready), Route("/health/live", live)]
app = Starlette(routes=routes, lifespan=lifespan)
