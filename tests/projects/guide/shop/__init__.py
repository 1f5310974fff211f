"""The shop of examples/shop, with the mistakes of the well-known guides kept on purpose."""
