"""What the app's own handlers did while something happened: signals, handlers, logs, requests, metrics."""
