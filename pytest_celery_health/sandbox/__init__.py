"""Brokers, workers and a beat of the project, as sealed child processes."""
