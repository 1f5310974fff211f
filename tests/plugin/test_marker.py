"""The marker and the fixture."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tests.plugin.conftest import Project, project_processes, usage_error


def test_an_unhealthy_check_fails_the_test_before_its_body(project: Project) -> None:
    project.pytester.makepyfile(
        """
        import pytest
        from acme import Says

        @pytest.mark.celery_health(Says(ok=False))
        def test_ready(): print("THE BODY RAN")
        """
    )
    result = project.run("-s")
    result.assert_outcomes(failed=1)
    assert result.ret == 1
    result.stdout.no_fnmatch_line("*THE BODY RAN*")
    result.stdout.fnmatch_lines(
        ["FAILED *::test_ready - billing holds 1,204 ready messages; wanted below 1,000*"]
    )


def test_an_unknown_check_is_an_error_of_the_test(project: Project) -> None:
    project.pytester.makepyfile(
        """
        import pytest
        from acme import Says

        @pytest.mark.celery_health(Says(why="nobody answered"))
        def test_ready(): pass
        """
    )
    result = project.run()
    result.assert_outcomes(errors=1)
    assert result.ret == 6
    result.stdout.fnmatch_lines(["ERROR *::test_ready - cannot tell: nobody answered"])


EXPECTS = """
import pytest
from acme import Says

@pytest.mark.celery_health
def test_red(celery_health):
    celery_health.expect(Says(), Says(ok=False))

@pytest.mark.celery_health
def test_blind(celery_health):
    celery_health.expect(Says(why="nobody answered"))

@pytest.mark.celery_health
def test_green(celery_health):
    assert celery_health.target == "sandbox"
    assert celery_health.expect(Says()).target == "sandbox"

@pytest.mark.celery_health
@pytest.mark.xfail
def test_expected(celery_health):
    celery_health.expect(Says(why="nobody answered"))

@pytest.fixture
def after(celery_health):
    yield
    celery_health.expect(Says(why="nobody answers any more"))

@pytest.mark.celery_health
def test_blind_at_last(after): pass
"""


@pytest.mark.parametrize("xdist", [[], pytest.param(["-n", "2"], marks=pytest.mark.slow)])
def test_expect_judges_in_the_body_and_shows_the_line(project: Project, xdist: list[str]) -> None:
    """What cannot be told is an error, not a failure, wherever it is asked."""
    project.pytester.makepyfile(EXPECTS)
    result = project.run("--junitxml=report.xml", *xdist)
    result.assert_outcomes(passed=2, failed=1, errors=2, xfailed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            "*ERROR at call of test_blind *",
            ">*celery_health.expect(Says(why=*",
            "*cannot tell: nobody answered",
        ]
    )
    result.stdout.fnmatch_lines([">*celery_health.expect(Says(), Says(ok=False))"])
    result.stdout.fnmatch_lines_random(
        [
            "6 checks: 2 healthy, 1 unhealthy, 3 unknown*",
            "FAILED *::test_red - billing holds 1,204 ready messages*",
            "ERROR *::test_blind - cannot tell: nobody answered",
            "ERROR *::test_blind_at_last - cannot tell: nobody answers any more",
        ]
    )
    suite = ElementTree.parse(project.pytester.path / "report.xml").getroot().find("testsuite")
    assert suite is not None
    assert {key: suite.get(key) for key in ("errors", "failures")} == {"errors": "2", "failures": "1"}
    told = [(case.get("name"), each.tag, each.get("message")) for case in suite for each in case]
    assert ("test_blind", "error", "cannot tell: nobody answered") in told
    assert {name for name, tag, _ in told if tag == "error"} == {"test_blind", "test_blind_at_last"}
    assert [name for name, tag, _ in told if tag == "failure"] == ["test_red"]
    assert len(suite) == 5


@pytest.mark.parametrize("args", [("-k", "blind"), ("-x", "-k", "blind"), ("--lf", "-k", "blind")])
def test_a_run_that_cannot_tell_ends_so(project: Project, args: tuple[str, ...]) -> None:
    project.pytester.makepyfile(EXPECTS)
    if "--lf" in args:
        project.run("-k", "blind")
    result = project.run(*args)
    assert result.ret == 6
    result.assert_outcomes(errors=1 if "-x" in args else 2, passed=0 if "-x" in args else 1)


def test_marked_tests_are_skipped_in_an_ordinary_run(project: Project) -> None:
    project.pytester.makepyfile(
        "import pytest\nfrom acme import Says\n@pytest.mark.celery_health(Says())\ndef test_ready(): assert 0"
    )
    result = project.plain("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*a health test: run pytest --celery-health*"])


@pytest.mark.parametrize("argument", ["Says", "'billing'"])
def test_what_is_no_check_is_refused(project: Project, argument: str) -> None:
    """A class without parentheses would decorate the class, and the test would vanish."""
    project.pytester.makepyfile(
        "import pytest\nfrom acme import Says\n"
        f"@pytest.mark.celery_health({argument})\ndef test_ready(x=1): pass"
    )
    result = project.run()
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*celery_health*" + ("Says(...)*" if argument == "Says" else "'billing'*")])


@project_processes
def test_whatever_is_wrong_with_markers_is_told_at_once(project: Project, args: tuple[str, ...]) -> None:
    project.pytester.makepyfile(
        """
        import pytest

        @pytest.mark.celery_health(at_least=2)
        class TestReady:
            def test_one(self): pass
            def test_two(self): pass

        @pytest.mark.celery_health("billing", 5)
        def test_three(): pass
        """
    )
    result = project.run(*args)
    assert result.ret == 4
    takes = "*: @pytest.mark.celery_health takes checks, not"
    told = usage_error(result, args)
    assert sum("takes checks" in line for line in told.lines) == 2
    told.fnmatch_lines([f"{takes} at_least=2: *", f"{takes} 'billing', 5: *"])


def test_markers_of_class_and_module_add_up(project: Project) -> None:
    project.pytester.makepyfile(
        """
        import pytest
        from acme import Says

        pytestmark = pytest.mark.celery_health(Says(ok=True))

        @pytest.mark.celery_health(Says(ok=False))
        class TestReady:
            def test_one(self): pass
        """
    )
    project.run().assert_outcomes(failed=1)


TWO_HEARTBEATS = """
[tool.celery-health.check.first]
use = "beat"
heartbeat = "redis:one"

[tool.celery-health.check.second]
use = "beat"
heartbeat = "file:two"
"""
WHICH = (
    "beat's heartbeat is not named, and the contract has redis:one (row first) and file:two (row second):"
    ' say which, heartbeat="redis:one"'
)


@project_processes
def test_a_marker_that_could_mean_two_heartbeats_is_a_mistake(
    project: Project, args: tuple[str, ...]
) -> None:
    project.contract(TWO_HEARTBEATS)
    project.pytester.makepyfile(
        """
        import pytest
        from pytest_celery_health import BeatFresh

        @pytest.mark.celery_health(BeatFresh())
        def test_beat(): pass
        """
    )
    result = project.run("-k", "test_beat", *args)
    assert result.ret == 4
    usage_error(result, args).fnmatch_lines([f"ERROR: *::test_beat: {WHICH}"])


def test_an_expectation_that_could_mean_two_heartbeats_fails(project: Project) -> None:
    project.contract(TWO_HEARTBEATS)
    project.pytester.makepyfile(
        """
        import pytest
        from pytest_celery_health import BeatFresh

        @pytest.mark.celery_health
        def test_beat(celery_health):
            celery_health.expect(BeatFresh())
        """
    )
    result = project.run("-k", "test_beat")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"E * ValueError: {WHICH}"])
