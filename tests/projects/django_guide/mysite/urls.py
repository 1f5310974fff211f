from django.urls import path
from health_check.views import HealthCheckView
from orders import views

HEALTH = ["health_check.contrib.celery.Ping"]

urlpatterns = [
    path("checkout/", views.checkout),
    path("health/", HealthCheckView.as_view(checks=HEALTH)),
]
