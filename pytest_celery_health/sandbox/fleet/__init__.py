"""Simulated workers, and the fixture `celery_fleet`."""
