"""Production's addresses, and code that talks to it while settings are imported."""

import os

from leaky import leaks

leaks.every_way("settings")

broker_url = f"redis://{os.environ['DECOY_REDIS']}/0"
result_backend = broker_url
beat_schedule = {
    "leak": {"task": "leaky.leak", "schedule": 30.0},
    "unnamed": {"task": "leaky.unnamed", "schedule": 1.0},
}
