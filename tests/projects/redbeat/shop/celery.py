import os

from celery import Celery

app = Celery("shop", broker=os.environ.get("REDIS_URL", "redis://localhost:6379/0"))
app.conf.update(
    beat_scheduler="redbeat.RedBeatScheduler",
    redbeat_redis_url=os.environ.get("DECOY_REDIS", "redis://redbeat.invalid:6379/1"),
    beat_schedule={"heartbeat": {"task": "shop.heartbeat", "schedule": 30.0, "enabled": True}},
)


@app.task(name="shop.heartbeat")
def heartbeat():
    pass
