"""What runs in the child processes that load the user's app. Never imported by the pytest process.

`load` and `redirect` serve the sandbox's worker and beat too.
"""
