"""How a verdict ends: in the terminal, in JUnit XML, and in the exit code."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from pytest_celery_health import Finding, Verdict
from tests.plugin.conftest import (
    HEALTHY,
    STAGING,
    UNHEALTHY,
    UNKNOWN,
    Project,
    project_processes,
    usage_error,
)
from tests.support.summary import at_80_columns

WARN = 'severity = "warn"\n'
SILENCE = 'silence = { until = 2999-12-01, why = "INC-812" }\n'


@pytest.mark.parametrize(
    ("tables", "code"),
    [
        ([HEALTHY], 0),
        ([HEALTHY, UNHEALTHY], 1),
        ([HEALTHY, UNKNOWN], 6),
        ([UNHEALTHY, UNKNOWN], 1),
        ([], 5),
        ([UNHEALTHY + WARN], 0),
        ([UNKNOWN + WARN], 0),
        ([UNKNOWN + 'if_unknown = "warn"\n'], 0),
        ([UNHEALTHY + 'if_unknown = "warn"\n'], 1),
        ([UNHEALTHY + SILENCE], 0),
        ([UNKNOWN + SILENCE, HEALTHY], 0),
        ([UNKNOWN + "never = true\noptional = true\n", HEALTHY], 0),
        ([UNKNOWN + "never = true\noptional = true\n"], 5),
        ([UNKNOWN + "never = true\n"], 6),
        ([UNKNOWN + "optional = true\n"], 6),
        ([UNHEALTHY + "oky = false\n"], 4),
    ],
)
def test_exit_code(project: Project, tables: list[str], code: int) -> None:
    project.contract(*tables)
    assert project.run().ret == code


@pytest.mark.slow
def test_the_exit_code_of_a_run_of_xdist_that_its_first_error_stops(project: Project) -> None:
    project.contract(UNKNOWN)
    assert project.run("-x", "-n", "1").ret == 6


def test_a_passing_plain_test_is_no_verdict(project: Project) -> None:
    project.contract(HEALTHY)
    project.pytester.makepyfile("def test_plain(): pass")
    assert project.run("-k", "test_plain").ret == 5


def test_a_marked_test_that_judges_nothing_is_no_verdict(project: Project) -> None:
    project.pytester.makepyfile("import pytest\n@pytest.mark.celery_health\ndef test_marked(): pass")
    assert project.run().ret == 5


def test_a_failing_body_is_a_failure_though_another_row_is_unknown(project: Project) -> None:
    project.contract(UNKNOWN)
    project.pytester.makepyfile(
        "import pytest\nfrom acme import Says\n"
        "@pytest.mark.celery_health(Says())\ndef test_marked(): assert 0"
    )
    assert project.run().ret == 1


def test_the_summary_starts_with_the_evidence(project: Project) -> None:
    project.contract(UNHEALTHY + 'owner = "payments"\nrunbook = "https://run/billing"\n', UNKNOWN)
    project.run().stdout.fnmatch_lines_random(
        [
            "FAILED pyproject.toml::billing[[]sandbox[]] - billing holds 1,204 ready messages;"
            " wanted below 1,000 (consumed by w1; payments; https://run/billing)",
            "ERROR pyproject.toml::beat[[]sandbox[]] - cannot tell: no key celery_beat_heartbeat",
            "2 checks: 1 unhealthy, 1 unknown*",
        ]
    )


BREAKS = """
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum
from pytest_celery_health import Check, Finding, Unseen

class Level(IntEnum):
    HIGH = 3

GOOD = Finding(True, "dlq", "is empty")

@dataclass(frozen=True)
class Breaks(Check):
    how: str = ""

    def asks(self):
        if self.how == "asks raises":
            raise RuntimeError("kaboom")
        if self.how == "asks text":
            yield "queues"

    def judge(self, seen):
        if self.how == "judge exits":
            raise SystemExit("kaboom")
        if self.how == "judge raises":
            raise RuntimeError("kaboom")
        odd = Finding(True, "dlq", "is empty", figures={"dlq.ready": Decimal(1)})
        said = {
            "judge returns None": None,
            "judge yields text": ["all is well"],
            "judge returns text": "all is well",
            "ok is 0": [Finding(0, "dlq", "is full")],
            "seen is None": [Finding(True, "dlq", None)],
            "figures": [odd],
            "subclasses": [Finding(True, "dlq", "is empty", figures={"dlq.level": Level.HIGH})],
        }
        return said.get(self.how, [GOOD])

    def table(self, seen):
        if self.how == "table raises":
            raise RuntimeError("kaboom")
        said = {
            "table returns None": None,
            "table yields text": ["queue"],
            "table is ragged": [("queue", "ready"), ("dlq",)],
        }
        return said.get(self.how, ())
"""
BROKEN = {
    "asks raises": "RuntimeError: kaboom, at breaks.py:17",
    "asks text": "TypeError: asks yielded 'queues'; wanted an Ask, such as AskQueues, at breaks.py",
    "judge raises": "RuntimeError: kaboom, at breaks.py:25",
    "judge exits": "SystemExit: kaboom, at breaks.py:23",
    "judge returns None": "TypeError: judge returned None; yield a Finding at a time, at breaks.py",
    "judge yields text": "TypeError: judge yielded 'all is well'; wanted a Finding, at breaks.py",
    "judge returns text": "TypeError: judge returned 'all is well'; yield a Finding at a time, at breaks.py",
    "ok is 0": "TypeError: a Finding's ok is 0; wanted True, False or None, at breaks.py",
    "seen is None": "TypeError: a Finding's seen is None; wanted text, at breaks.py",
    "figures": "TypeError: a Finding's figures have 'dlq.ready' = Decimal('1');"
    " wanted numbers or text by name, at breaks.py",
    "table raises": "RuntimeError: kaboom, at breaks.py:40",
    "table returns None": "TypeError: table returned None; yield a row of text at a time, at breaks.py",
    "table yields text": "TypeError: table yielded 'queue'; wanted a row of text,"
    " with as many cells as the first, at breaks.py",
    "table is ragged": "TypeError: table yielded ('dlq',); wanted a row of text,"
    " with as many cells as the first, at breaks.py",
}


@pytest.mark.parametrize("xdist", [[], pytest.param(["-n", "2"], marks=pytest.mark.slow)])
def test_a_check_that_breaks_is_unknown_and_the_others_are_judged(project: Project, xdist: list[str]) -> None:
    project.pytester.makepyfile(breaks=BREAKS)
    rows = [
        f'[tool.celery-health.check.r{number}]\nuse = "breaks:Breaks"\nhow = "{how}"\n'
        for number, how in enumerate([*BROKEN, "subclasses"])
    ]
    project.contract(*rows, HEALTHY)
    result = project.run(*xdist)

    assert result.ret == 6
    assert sorted(line for line in result.outlines if line.startswith("ERROR ")) == sorted(
        f"ERROR pyproject.toml::r{number}[sandbox] - cannot tell: breaks:Breaks broke: {told}"
        for number, told in enumerate(BROKEN.values())
    )
    result.stdout.fnmatch_lines([f"{len(BROKEN) + 2} checks: 2 healthy, {len(BROKEN)} unknown*"])


def test_a_check_that_breaks_in_a_test_is_unknown(project: Project) -> None:
    project.pytester.makepyfile(
        "import pytest\nfrom breaks import Breaks\n"
        "@pytest.mark.celery_health(Breaks(how='judge raises'))\ndef test_marked(): pass\n"
        "@pytest.mark.celery_health\n"
        "def test_expects(celery_health): celery_health.expect(Breaks(how='asks raises'))",
        breaks=BREAKS,
    )
    result = project.run()

    assert result.ret == 6
    result.stdout.fnmatch_lines_random(
        [
            "ERROR *::test_marked - cannot tell: breaks:Breaks broke: RuntimeError: kaboom, at breaks.py:25",
            "*cannot tell: breaks:Breaks broke: RuntimeError: kaboom, at breaks.py:17",
        ]
    )


def test_softened_rows_are_told(project: Project) -> None:
    project.contract(UNHEALTHY + WARN, UNKNOWN + SILENCE)
    result = project.run("-v")
    result.stdout.fnmatch_lines_random(
        [
            "pyproject.toml::billing[[]sandbox[]] WARNED*",
            "WARNED pyproject.toml::billing[[]sandbox[]] - billing holds 1,204 ready messages*",
            "SILENCED pyproject.toml::beat[[]sandbox[]] - cannot tell: no key celery_beat_heartbeat*INC-812*",
        ]
    )


@pytest.mark.parametrize("xdist", [[], ["-n", "2"]])
def test_junit_starts_with_the_evidence_and_holds_the_figures(project: Project, xdist: list[str]) -> None:
    project.contract(UNHEALTHY, UNKNOWN)
    project.run("--junitxml=report.xml", *xdist)
    cases = {
        case.get("name"): case
        for case in ElementTree.parse(project.pytester.path / "report.xml").iter("testcase")
    }
    failure, error = cases["billing[sandbox]"].find("failure"), cases["beat[sandbox]"].find("error")
    assert failure is not None
    assert error is not None
    assert failure.get("message", "").startswith("billing holds 1,204 ready messages; wanted below 1,000")
    assert error.get("message") == "cannot tell: no key celery_beat_heartbeat"
    figures = {p.get("name"): p.get("value") for p in cases["billing[sandbox]"].iter("property")}
    assert figures["billing.ready"] == "1204"


@project_processes
def test_junit_has_the_evidence_of_what_fails_nothing(project: Project, args: tuple[str, ...]) -> None:
    """As properties for what reads the file, and as output for viewers that show it."""
    project.contract(UNHEALTHY + WARN, UNKNOWN + SILENCE, HEALTHY)
    result = project.run("--junitxml=report.xml", *args)
    assert result.ret == 0
    suite = ElementTree.parse(project.pytester.path / "report.xml").find("testsuite")
    assert suite is not None
    assert [suite.get(kind) for kind in ("tests", "failures", "errors", "skipped")] == ["3", "0", "0", "0"]
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    told = {
        name: (
            {each.get("name"): each.get("value") for each in case.iter("property")},
            [each.text for each in case.iter("system-out")],
        )
        for name, case in cases.items()
    }
    billing = "billing holds 1,204 ready messages; wanted below 1,000 (consumed by w1)"
    beat = "cannot tell: no key celery_beat_heartbeat (silenced until 2999-12-01: INC-812)"
    assert told["billing[sandbox]"] == (
        {"billing.ready": "1204", "celery_health.warned": billing},
        [f"WARNED {billing}\n"],
    )
    assert told["beat[sandbox]"] == ({"celery_health.silenced": beat}, [f"SILENCED {beat}\n"])
    assert told["good[sandbox]"][1] == []


@project_processes
def test_quiet_names_what_fails_nothing(project: Project, args: tuple[str, ...]) -> None:
    """In the one line that -q has."""
    project.contract(UNHEALTHY + WARN, UNKNOWN + SILENCE, HEALTHY)
    lines = [line for line in project.run("-q", *args).outlines if "check" in line]
    assert lines == [
        "3 checks: 1 healthy, 1 unhealthy, 1 unknown · 1 warned: billing · 1 silenced: beat · 0 looks, 0 B"
    ]


def test_quiet_names_a_few(project: Project) -> None:
    """Of forty rows that warn, the line stays a line."""
    rows = [
        f'[tool.celery-health.check.r{number}]\nuse = "acme:Says"\nok = false\n{WARN}' for number in range(7)
    ]
    project.contract(*rows)
    result = project.run("-q")
    result.stdout.fnmatch_lines(["7 checks: 7 unhealthy · 7 warned: r0, r1, r2, r3, r4 and 2 more · *"])


def test_the_section_has_its_gap_above_its_title(project: Project) -> None:
    project.contract(HEALTHY)
    result = project.run()
    result.stdout.fnmatch_lines(["*[[]100%]", "", "*-- celery-health: *", "?*"], consecutive=True)


def test_quiet_is_one_line(project: Project) -> None:
    project.contract(HEALTHY)
    lines = [line for line in project.run("-q").outlines if "check" in line]
    assert lines == ["1 check: 1 healthy · 0 looks, 0 B"]


def test_no_contract_and_no_marked_test_says_how_to_begin(project: Project) -> None:
    project.pytester.path.joinpath("pyproject.toml").unlink()
    project.pytester.makepyfile("def test_plain(): pass")
    result = project.run()
    assert result.ret == 5
    result.stdout.fnmatch_lines(["*[[]tool.celery-health[]]*", "*use = *"])


def test_a_misspelt_table_is_a_mistake_without_naming_the_file(project: Project) -> None:
    project.pytester.makepyprojecttoml('[tool.celery_health]\napp = "shop:app"\n')
    result = project.run()
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        ["ERROR: pyproject.toml has [[]tool.celery_health]; write [[]tool.celery-health]"]
    )


@pytest.mark.parametrize(
    ("interval", "told"),
    [
        (
            "0",
            "--celery-health-interval is 0, which is no pause; write 1 or more, or leave it out",
        ),
        (
            "0ms",
            "--celery-health-interval is 0, which is no pause; write 1 or more, or leave it out",
        ),
        ("-1", "--celery-health-interval: -1.0 is not a duration; it must be zero or more, and finite"),
    ],
)
def test_an_interval_that_cannot_be_kept_is_an_error(project: Project, interval: str, told: str) -> None:
    result = project.run("--celery-health-wait=5", f"--celery-health-interval={interval}")
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: {told}"])


def test_a_contract_without_a_row_says_so_and_how_to_write_one(project: Project) -> None:
    result = project.run()
    assert result.ret == 5
    result.stdout.fnmatch_lines(
        [
            "pyproject.toml has no row, and no test marked celery_health was found,*nothing to judge.",
            "Begin with this in pyproject.toml:",
            "",
            "    [[]tool.celery-health.check.workers]*",
            '    use = "workers"',
        ],
        consecutive=True,
    )


MARKED = (
    "import pytest\nfrom pytest_celery_health import WorkersAnswer\n"
    "@pytest.mark.celery_health(WorkersAnswer())\ndef test_ready(): pass"
)


def test_what_has_no_app_is_told_of_its_targets(project: Project) -> None:
    project.contract(STAGING)
    project.pytester.makepyfile(MARKED)
    result = project.run()
    assert result.ret == 4
    told = (
        "ERROR: pyproject.toml does not say what the app is, which the sandbox starts: write"
        ' app = "yourproject.celery:app" in [tool.celery-health], or look at a target:'
        " --celery-health-target=staging"
    )
    assert [line for line in result.errlines if line] == [told]


@pytest.mark.parametrize(("test", "code"), [("def test_plain(): pass", 5), (MARKED, 4)])
def test_contracts_below_are_told_where_there_is_none_above(project: Project, test: str, code: int) -> None:
    path = project.pytester.path
    (path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    for folder in ("services/billing", "services/mail", "node_modules/x", ".tox/y", "env/z"):
        (path / folder).mkdir(parents=True)
        (path / folder / "pyproject.toml").write_text('[tool.celery-health]\napp = "shop:app"\n')
    (path / "env" / "pyvenv.cfg").touch()
    (path / "services/billing/test_it.py").write_text(test)
    result = project.run()
    assert result.ret == code
    told = result.stderr if code == 4 else result.stdout
    told.fnmatch_lines(
        [
            "There is a contract below this folder; one run has one contract:",
            "",
            "    pytest services/billing --celery-health",
            "    pytest services/mail --celery-health",
            "",
        ],
        consecutive=True,
    )
    assert "Begin with" not in result.stdout.str() + result.stderr.str()


def test_the_summary_of_a_terminal_of_80_columns(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `at_80_columns` has it, with which the tests of each check look at their evidence."""
    monkeypatch.setenv("COLUMNS", "80")
    project.contract(UNHEALTHY)
    found = Verdict((Finding(False, "billing", "holds 1,204 ready messages", "below 1,000"),))
    told = "billing holds 1,204 ready messages;..."
    assert at_80_columns("billing", found) == told
    project.run().stdout.fnmatch_lines([f"FAILED pyproject.toml::billing[[]sandbox[]] - {told}"])


@pytest.mark.parametrize("option", ["target=staging", "contract=other.toml", "wait=5", "interval=1"])
def test_an_option_without_a_health_run_is_an_error(project: Project, option: str) -> None:
    result = project.plain(f"--celery-health-{option}")
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"*--celery-health-{option.split('=')[0]} needs --celery-health*"])


@project_processes
def test_an_app_that_is_not_there_is_an_error(project: Project, args: tuple[str, ...]) -> None:
    project.contract('[tool.celery-health]\napp = "shpo.celery:app"\n' + HEALTHY)
    result = project.run(*args)
    assert result.ret == 4
    usage_error(result, args).fnmatch_lines(
        [
            'ERROR: pyproject.toml:3: [[]tool.celery-health] app is "shpo.celery:app", and there is no module'
            " shpo; did you mean shop?"
        ]
    )


def test_an_undeclared_target_names_the_declared(project: Project) -> None:
    result = project.run("--celery-health-target=prod")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*declares no [[]tool.celery-health.target.prod] (declared: sandbox)*"])


def test_an_undeclared_target_is_told_the_nearest(project: Project) -> None:
    result = project.run("--celery-health-target=sandbx")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*target.sandbx]; did you mean sandbox? (declared: sandbox)*"])
