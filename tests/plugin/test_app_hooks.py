"""Where the hook `pytest_celery_health_app` may be: in any conftest.py that pytest loads, and in a plugin."""

from __future__ import annotations

import pytest

from pytest_celery_health.session import run_of
from tests.plugin.conftest import HEALTHY, HERE, PLUGIN, Project, project_processes, usage_error

SAYS = "def pytest_celery_health_app(target):\n    return {!r}\n"


@pytest.fixture
def project(project: Project) -> Project:
    """Its contract does not say what the app is."""
    project.contract("[tool.celery-health]", HEALTHY)
    project.pytester.makepyfile(test_root="def test_root(): pass")
    for folder in ("tests", "tests/api", "tests/web"):
        project.pytester.mkdir(folder)
        name = folder.replace("/", "_")
        (project.pytester.path / folder / f"test_{name}.py").write_text("def test_it(): pass")
    return project


def hooked(project: Project, apps: dict[str, str | None]) -> None:
    """Have the conftest.py of each of these folders say what the app is."""
    for folder, app in apps.items():
        (project.pytester.path / folder / "conftest.py").write_text(SAYS.format(app))


@pytest.mark.parametrize("folder", ["", "tests", "tests/api"])
def test_at_any_depth(project: Project, folder: str) -> None:
    hooked(project, {folder: "shop:app"})
    assert project.run().ret == 0


@pytest.mark.slow
def test_that_the_controller_of_xdist_does_not_know(project: Project) -> None:
    hooked(project, {"tests/api": "shop:app"})
    assert project.run("-n", "2").ret == 0


@project_processes
def test_nowhere(project: Project, args: tuple[str, ...]) -> None:
    result = project.run(*args)
    assert result.ret == 4
    usage_error(result, args).fnmatch_lines(
        ["ERROR: pyproject.toml:2: [[]tool.celery-health] app is missing, and without a live target, *"]
    )
    assert "INTERNALERROR" not in result.stdout.str()


def test_the_deepest_is_asked_first(project: Project) -> None:
    hooked(project, {"": "shop:app", "tests": "tests:app", "tests/api": None})
    found: list[str] = []

    class Watch:
        def pytest_sessionfinish(self, session: pytest.Session) -> None:
            found.extend(run_of(session.config).hooks)

    root = project.pytester.path
    result = project.pytester.inline_run(*PLUGIN, *HERE, "--celery-health", plugins=[Watch()])
    assert result.ret == 0
    assert found == [
        f"{root / folder}/conftest.py:pytest_celery_health_app" for folder in ("tests/api", "tests", "")
    ]


@project_processes
def test_two_beside_each_other_are_an_error(project: Project, args: tuple[str, ...]) -> None:
    hooked(project, {"tests/api": "shop:app", "tests/web": "shop:app"})
    result = project.run(*args)
    assert result.ret == 4
    usage_error(result, args).fnmatch_lines(
        [
            "ERROR: the hook pytest_celery_health_app is in tests/api/conftest.py and"
            " tests/web/conftest.py, and one run has one app: keep it in a conftest.py above both, or run"
            " each folder by itself"
        ]
    )
    assert project.run("tests/web").ret == 0


def test_a_hook_that_no_child_can_import_is_an_error(project: Project) -> None:
    project.contract(HEALTHY)
    project.pytester.makeconftest(
        "class Apps:\n    def pytest_celery_health_app(self, target): return 'shop:app'\n"
        "def pytest_addoption(parser, pluginmanager): pluginmanager.register(Apps())"
    )
    result = project.run()
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        [
            "ERROR: the hook pytest_celery_health_app is Apps.pytest_celery_health_app, which no child"
            " process can import: make it a function of a module,"
            " at the top level of a conftest.py or of a plugin"
        ]
    )


def test_the_header_says_who_says_what_the_app_is(project: Project) -> None:
    hooked(project, {"": "shop:app"})
    project.run().stdout.fnmatch_lines(["celery-health: app from the hook of conftest.py"])
    (project.pytester.path / "conftest.py").unlink()
    project.contract(HEALTHY)
    project.run().stdout.fnmatch_lines(["celery-health: app shop:app, from pyproject.toml"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("1", "what *conftest.py:pytest_celery_health_app returned is an int, not a Celery app"),
        (
            "'nosuch:app'",
            "*conftest.py:pytest_celery_health_app returned 'nosuch:app', and there is no module nosuch",
        ),
        (
            "'shop:nosuch'",
            "*conftest.py:pytest_celery_health_app returned 'shop:nosuch': shop has no 'nosuch'",
        ),
    ],
)
def test_a_hook_that_returns_no_app_is_a_mistake_as_a_wrong_app_is(
    project: Project, returned: str, message: str
) -> None:
    project.contract("[tool.celery-health]", '[tool.celery-health.check.w]\nuse = "workers"\n')
    project.pytester.makeconftest(f"def pytest_celery_health_app(target):\n    return {returned}\n")
    result = project.run()
    assert result.ret == 4, result.stdout.str()
    result.stderr.fnmatch_lines([f"*{message}*"])
