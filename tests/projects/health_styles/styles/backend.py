"""A class as django-health-check has them, without Django."""

from styles.workers import require_consumers


class ServiceUnavailable(Exception):
    pass


class CeleryWorkers:
    critical_service = True

    def __init__(self):
        self.errors = []

    def check_status(self):
        try:
            require_consumers()
        except Exception as error:
            raise ServiceUnavailable(type(error).__name__) from error

    def run_check(self):
        self.errors = []
        try:
            self.check_status()
        except ServiceUnavailable as error:
            self.errors.append(error)
