"""What could not be seen, in JUnit XML too: an `<error>` that starts with the evidence."""

from __future__ import annotations

import pytest


def tell_unknown(config: pytest.Config, report: pytest.TestReport) -> None:
    """Take pytest's `failed on setup with "` off the message, and have no `<failure>` of a test's body.

    pytest has no public way to it: where its internals differ, it stays as pytest has it, and so does what
    a teardown tells, which is written when this is called.
    """
    if report.when == "teardown":
        return
    try:
        from _pytest.junitxml import xml_key

        xml = config.stash.get(xml_key, None)
        if xml is None:
            return
        node = [node for node in xml.node_reporter(report).nodes if node.tag in ("error", "failure")][-1]
        node.set("message", report.longrepr.reprcrash.message)  # type: ignore[union-attr]
        if node.tag == "failure":
            xml.stats["failure"] -= 1
            xml.stats["error"] += 1
            node.tag = "error"
    except (ImportError, AttributeError, LookupError):
        return
