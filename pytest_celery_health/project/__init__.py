"""The user's Celery app: loaded in child processes, never in the pytest process."""
