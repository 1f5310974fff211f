"""Drills: a real worker takes a task to one of its ends, and records what the app's handlers do then."""
