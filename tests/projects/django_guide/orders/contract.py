"""What the contract calls."""

from django.test import Client


def checkout():
    return Client().post("/checkout/?order=o1")
