"""What JUnit XML would not tell by itself: what could not be seen, and what was bad and failed nothing.

pytest has no public way to it: where its internals differ, the report stays as pytest has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from xml.etree import ElementTree

import pytest

from pytest_celery_health.outcome import Outcome


def tell_unknown(config: pytest.Config, report: pytest.TestReport) -> None:
    """Have an `<error>` that starts with the evidence: without pytest's `failed on setup with "`, and not as
    the `<failure>` of a test's body.

    What a teardown tells stays as it is: it is written when this is called.
    """
    if report.when == "teardown":
        return
    try:
        xml, case = _case(config, report)
        node = [node for node in case.nodes if node.tag in ("error", "failure")][-1]
        node.set("message", report.longrepr.reprcrash.message)  # type: ignore[union-attr]
        if node.tag == "failure":
            xml.stats["failure"] -= 1
            xml.stats["error"] += 1
            node.tag = "error"
    except (ImportError, AttributeError, LookupError):
        return


def tell_softened(config: pytest.Config, report: pytest.TestReport, outcomes: Iterable[Outcome]) -> None:
    """Have it as a `<system-out>`, for viewers that show what a test wrote, also of one that passed."""
    lines = [f"{how.upper()} {evidence}\n" for outcome in outcomes for how, evidence in outcome.softened]
    if not lines or report.when == "teardown":
        return
    try:
        from _pytest.junitxml import bin_xml_escape

        _, case = _case(config, report)
        node = ElementTree.Element("system-out")
        node.text = bin_xml_escape("".join(lines))
        case.append(node)
    except (ImportError, AttributeError, LookupError):
        return


def _case(config: pytest.Config, report: pytest.TestReport) -> tuple[Any, Any]:
    """The report and its test case. Raises KeyError where no report is written."""
    from _pytest.junitxml import xml_key

    xml = config.stash[xml_key]
    return xml, xml.node_reporter(report)
