"""The evidence first in JUnit XML, too."""

from __future__ import annotations

import pytest


def evidence_first(config: pytest.Config, report: pytest.TestReport) -> None:
    """Take pytest's `failed on setup with "` off the message of an unknown row.

    pytest has no public way to it: where its internals differ, the prefix stays.
    """
    try:
        from _pytest.junitxml import xml_key

        xml = config.stash.get(xml_key, None)
        if xml is None:
            return
        message = report.longrepr.reprcrash.message  # type: ignore[union-attr]
        for node in xml.node_reporter(report).nodes:
            if node.tag == "error":
                node.set("message", message)
    except (ImportError, AttributeError):
        return
