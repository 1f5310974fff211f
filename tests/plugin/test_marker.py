"""The marker and the fixture."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import Project


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


def test_expect_judges_in_the_body_and_shows_the_line(project: Project) -> None:
    project.pytester.makepyfile(
        """
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
        """
    )
    result = project.run()
    result.assert_outcomes(passed=1, failed=2)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        [
            ">*celery_health.expect(Says(), Says(ok=False))",
            "FAILED *::test_red - billing holds 1,204 ready messages*",
            "FAILED *::test_blind - cannot tell: nobody answered",
        ]
    )
    assert project.run("-k", "test_blind").ret == 6


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


@pytest.mark.parametrize(
    "args", [(), pytest.param(("-n", "2"), marks=pytest.mark.slow)], ids=["one", "xdist"]
)
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
    told = result.stdout if args else result.stderr
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
