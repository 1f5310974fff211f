from celery import current_app
from health_check.backends import BaseHealthCheckBackend
from health_check.exceptions import HealthCheckException


class CeleryHealthCheck(BaseHealthCheckBackend):
    critical_service = True

    def check_status(self):
        try:
            if not current_app.control.ping(timeout=3):
                raise HealthCheckException("nobody answered ping")
        except Exception as e:
            raise HealthCheckException(str(e))

    def identifier(self):
        return "Celery Workers"
