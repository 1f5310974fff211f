"""The contract's rows are pytest items, and behave like any other."""

from __future__ import annotations

import pytest

from tests.plugin.conftest import HEALTHY, UNHEALTHY, UNKNOWN, Project

STAGING = """
[tool.celery-health.target.staging]
broker = "redis://127.0.0.1:1/0"
expect_host = "127.0.0.1"
"""


def test_a_row_has_a_node_id_of_its_name_and_target(project: Project) -> None:
    project.contract(HEALTHY, UNHEALTHY, STAGING)
    result = project.run("--collect-only", "-q")
    result.stdout.fnmatch_lines(["pyproject.toml::good[[]sandbox[]]", "pyproject.toml::billing[[]sandbox[]]"])
    result = project.run("--collect-only", "-q", "--celery-health-target=staging")
    result.stdout.fnmatch_lines(["pyproject.toml::good[[]staging[]]"])


def test_collecting_looks_at_nothing_and_is_no_verdict(project: Project) -> None:
    project.contract(UNHEALTHY)
    result = project.run("--collect-only")
    assert result.ret == 0
    result.stdout.no_fnmatch_line("*holds 1,204*")


def test_a_row_is_selected_by_its_node_id(project: Project) -> None:
    project.contract(HEALTHY, UNHEALTHY)
    result = project.run("pyproject.toml::good[sandbox]")
    result.assert_outcomes(passed=1)
    assert result.ret == 0


def test_a_row_is_selected_by_k_and_m(project: Project) -> None:
    project.contract(HEALTHY, UNHEALTHY)
    project.run("-k", "good").assert_outcomes(passed=1, deselected=1)
    project.run("-m", "celery_health and not slow").assert_outcomes(passed=1, failed=1)


def test_a_row_is_collected_once_however_its_folder_is_named(project: Project) -> None:
    project.contract(HEALTHY)
    for args in ([], ["."], ["pyproject.toml"], [".", "pyproject.toml"]):
        project.run(*args).assert_outcomes(passed=1)


def test_the_last_failed_row_is_run_alone(project: Project) -> None:
    project.contract(HEALTHY, UNHEALTHY)
    project.run().assert_outcomes(passed=1, failed=1)
    project.run("--lf").assert_outcomes(failed=1)


def test_rows_and_marked_tests_are_all_that_a_health_run_runs(project: Project) -> None:
    project.contract(HEALTHY)
    project.pytester.makepyfile(
        """
        import pytest
        from acme import Says

        @pytest.mark.celery_health(Says())
        def test_marked(): pass

        def test_plain(): assert 0
        """
    )
    project.run().assert_outcomes(passed=2, deselected=1)


@pytest.mark.parametrize(
    ("name", "args", "why"),
    [
        ("goood[sandbox]", (), "pyproject.toml has no such row; did you mean good[sandbox]?"),
        ("payments", (), "pyproject.toml has no such row; rows: good[sandbox], only[staging]"),
        ("good[staging]", (), "in this run it is good[sandbox]; add --celery-health-target=staging"),
        (
            "good[sandbox]",
            ("--celery-health-target=staging",),
            "in this run it is good[staging]; leave out --celery-health-target",
        ),
    ],
)
def test_a_node_id_that_is_none_of_a_row(
    project: Project, name: str, args: tuple[str, ...], why: str
) -> None:
    only = HEALTHY.replace("good", "only") + 'on = ["staging"]\n'
    project.contract(HEALTHY, only, STAGING)
    result = project.run(f"pyproject.toml::{name}", *args)
    assert result.ret == 4
    assert f"ERROR: pyproject.toml::{name}: {why}" in result.stderr.lines


def test_a_test_named_by_its_node_id_runs_alone(project: Project) -> None:
    project.contract(UNHEALTHY)
    project.pytester.makepyfile(
        test_ready="import pytest\nfrom acme import Says\n"
        "@pytest.mark.celery_health(Says())\ndef test_marked(): pass"
    )
    project.run("test_ready.py::test_marked").assert_outcomes(passed=1)
    project.run("test_ready.py").assert_outcomes(passed=1, failed=1)


def test_rows_do_not_exist_without_a_health_run(project: Project) -> None:
    project.contract(UNHEALTHY)
    project.pytester.makepyfile("def test_plain(): pass")
    project.plain().assert_outcomes(passed=1)


@pytest.mark.slow
def test_rows_are_judged_under_xdist(project: Project) -> None:
    project.contract(HEALTHY, UNHEALTHY, UNKNOWN)
    result = project.run("-n", "2", "-rA")
    result.assert_outcomes(passed=1, failed=1, errors=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["3 checks: 1 healthy, 1 unhealthy, 1 unknown*"])
