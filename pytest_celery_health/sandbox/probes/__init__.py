"""The project's own health checks, called in a healthy world and in others."""
