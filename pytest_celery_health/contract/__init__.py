"""What a project promises, in `[tool.celery-health]`: found, read and validated as a whole."""
