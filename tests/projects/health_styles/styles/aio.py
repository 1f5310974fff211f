import asyncio

from styles.workers import require_consumers


async def celery_is_healthy() -> tuple[bool, str]:
    try:
        consumers = await asyncio.to_thread(require_consumers)
    except Exception as error:  # noqa: BLE001 - whatever it is
        return False, type(error).__name__
    return True, ", ".join(consumers)
