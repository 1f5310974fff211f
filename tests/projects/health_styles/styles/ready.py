"""What Kubernetes runs: exit code 0 where somebody consumes."""

import sys

from styles.workers import require_consumers

if __name__ == "__main__":
    try:
        require_consumers()
    except Exception as error:  # noqa: BLE001 - whatever it is
        sys.exit(f"not ready: {type(error).__name__}")
