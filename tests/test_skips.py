"""The suite's own rule: under CI a test that skips has failed, unless it says that it is impossible there."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import IMPOSSIBLE

pytestmark = pytest.mark.slow


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest((Path(__file__).parents[1] / "conftest.py").read_text())
    pytester.makepyfile(
        test_few=f"""
        import pytest

        def test_lacks_a_broker(): pytest.skip("no RabbitMQ on port 5672")
        @pytest.mark.skipif(True, reason="no redis-server")
        def test_marked(): pass
        def test_needs_another_platform(): pytest.skip("{IMPOSSIBLE}no wheel for Python 3.10")
        @pytest.mark.xfail(reason="known")
        def test_known(): assert 0
        """,
        test_module="import pytest\npytest.importorskip('no_such_package_anywhere')",
    )
    return pytester


def test_a_skip_fails_under_ci(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    result = suite.runpytest_subprocess("--continue-on-collection-errors", "-ra")
    result.assert_outcomes(failed=1, errors=2, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines(["*: skipped under CI: no RabbitMQ on port 5672"])


def test_a_skip_is_a_skip_elsewhere(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    suite.runpytest_subprocess().assert_outcomes(skipped=4, xfailed=1)
