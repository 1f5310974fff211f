import structlog
from app import app

log = structlog.get_logger()


@app.task(name="shop.pack")
def pack(order_id):
    structlog.contextvars.bind_contextvars(order_id=order_id)
    log.info("order_packed")
