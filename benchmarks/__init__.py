"""How long looking takes, against what guides do: `python -m benchmarks`."""
