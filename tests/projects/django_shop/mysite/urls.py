from django.urls import path
from health_check.views import HealthCheckView
from orders import views

HEALTH = ["orders.healthchecks.Workers"]

urlpatterns = [
    path("checkout/", views.checkout),
    path("health/", HealthCheckView.as_view(checks=HEALTH)),
]
