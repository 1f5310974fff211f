"""The only code that talks to a target: one bounded, read-only look."""
