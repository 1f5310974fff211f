# ruff: noqa: E501 - the lines are as long as those that they quote
"""From a live target's words to what is looked at: the right host, or nothing."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from pytest_celery_health.contract.model import Contract, ContractError, TargetSpec
from pytest_celery_health.contract.targets import check_host, hosts, resolve
from pytest_celery_health.project.info import AppInfo, AppSpec

SECRET = "hunter2"


def contract(folder: Path = Path("/nowhere"), **spec: Any) -> Contract:
    given = {"broker": "env:BROKER", "expect_host": ("redis.stg",), **spec}
    return Contract(folder / "pyproject.toml", env={"A": "1"}, targets={"stg": TargetSpec("stg", **given)})


def app(broker_url: str = "redis://redis.stg/3", **info: Any) -> AppInfo:
    return AppInfo("shop", "5.7.0", broker_url, **info)


def problems(contract: Contract, environ: dict[str, str], app: AppInfo | None = None) -> list[str]:
    with pytest.raises(ContractError) as caught:
        resolve(contract, "stg", environ, app)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)
    return caught.value.problems


class TestUrl:
    def test_of_a_variable(self) -> None:
        target = resolve(contract(), "stg", {"BROKER": f"redis://:{SECRET}@redis.stg:6379/0\n"})

        assert target.url == f"redis://:{SECRET}@redis.stg:6379/0"
        assert SECRET not in repr(target)
        assert (target.name, target.options, target.ssl, target.app) == ("stg", {}, None, None)
        assert (target.control_exchange, target.event_exchange) == ("celery", "celeryev")
        assert target.env == {"A": "1"}

    def test_of_the_app(self) -> None:
        info = app(
            broker_transport_options={"global_keyprefix": "shop:", "sep": "!"},
            broker_use_ssl={"ssl_ca_certs": "x"},
            broker_login_method="PLAIN",
            control_exchange="shop",
            event_exchange="shopev",
        )
        spec = AppSpec("shop", Path("/nowhere"))

        target = resolve(contract(broker="app", transport_options={"sep": ":"}), "stg", {}, info, spec)

        assert target.url == "redis://redis.stg/3"
        assert target.options == {"global_keyprefix": "shop:", "sep": ":"}
        assert target.ssl == {"ssl_ca_certs": "x"}
        assert (target.login_method, target.control_exchange, target.event_exchange) == (
            "PLAIN",
            "shop",
            "shopev",
        )
        assert (target.app, target.spec) == (info, spec)

    def test_written_out(self) -> None:
        assert resolve(contract(broker="redis://redis.stg/0"), "stg", {}).url == "redis://redis.stg/0"

    @pytest.mark.parametrize(("environ", "state"), [({}, "not set"), ({"BROKER": " "}, "empty")])
    def test_of_a_variable_that_says_nothing(self, environ: dict[str, str], state: str) -> None:
        assert problems(contract(), environ) == [
            f'target stg: broker is "env:BROKER", and the variable BROKER is {state}; set it to a URL',
        ]

    def test_of_a_variable_that_holds_no_url(self) -> None:
        assert problems(contract(), {"BROKER": SECRET}) == [
            'target stg: the variable BROKER holds no URL: there is no "://" in it',
        ]

    def test_of_this_process(self) -> None:
        assert problems(contract(), {"BROKER": "memory://"}) == [
            'target stg: its broker is a URL of "memory", which lives in one process, so no worker could be seen;'
            " write the URL that the workers use, or leave the target out"
        ]

    def test_of_an_app_that_is_not_known(self) -> None:
        assert problems(contract(broker="app"), {}) == [
            'target stg: broker is "app", and the app is not known'
        ]

    def test_of_another_target(self) -> None:
        with pytest.raises(ContractError, match=r'^target "stgg" is not declared; did you mean stg\?$'):
            resolve(contract(), "stgg", {})

    def test_of_the_sandbox(self) -> None:
        with pytest.raises(ContractError, match="the sandbox is started"):
            resolve(contract(), "sandbox", {})


class TestHost:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("redis://redis.stg/0", "redis.stg"),
            ("redis://:pw@Redis.STG:6379/0", "redis.stg"),
            ("redis://redis.stg./0", "redis.stg"),
            ("redis://redis.stg/0", "REDIS.stg"),
            ("redis://redis.stg/0", "redis.stg:6379"),
            ("amqps://redis.stg//", "redis.stg:5671"),
            ("redis://:p%40ss@redis.stg/0", "redis.stg"),
            ("redis://:p@ss@redis.stg/0", "redis.stg"),
            ("redis://", "localhost"),
            ("amqp://guest:guest@//", "localhost"),
            ("redis://[::1]:6379/0", "::1"),
            ("redis://[::1]:6379/0", "[::1]:6379"),
            ("redis+socket:///run/redis.sock?virtual_host=1", "/run/redis.sock"),
            ("redis+socket:///run/redis.sock", "localhost"),
            ("sqs://key:secret@", "sqs"),
            ("filesystem://", "filesystem"),
            ("sqla+sqlite:////var/lib/broker.db", "sqla+sqlite"),
            ("memory://", "memory"),
            ("sqla+postgresql://me:pw@db.stg/broker", "db.stg"),
            ("sentinel://redis.stg:26379;sentinel://redis.stg:26380", "redis.stg"),
        ],
    )
    def test_expected(self, url: str, expected: str) -> None:
        check_host(TargetSpec("stg", "env:B", (expected,)), url)

    @pytest.mark.parametrize(
        ("url", "expected", "told"),
        [
            (
                "redis://:hunter2@redis.prod/0",
                ("redis.stg",),
                "its broker is redis.prod; expect_host wants redis.stg",
            ),
            ("redis://a;redis://b;redis://c", ("a", "c"), "its broker is b; expect_host wants a or c"),
            ("redis://a:6380/0", ("a:6379",), "its broker is a:6380; expect_host wants a:6379"),
            ("redis://a.b/0", ("b",), "its broker is a.b; expect_host wants b"),
            (
                "redis://redis.stg@redis.prod/0",
                ("redis.stg",),
                "its broker is redis.prod; expect_host wants redis.stg",
            ),
            (
                "redis://redis.prod/0?host=redis.stg",
                ("redis.stg",),
                "its broker is redis.prod; expect_host wants redis.stg",
            ),
            (
                "redis+socket:///run/a.sock",
                ("/run/b.sock",),
                "its broker is /run/a.sock; expect_host wants /run/b.sock",
            ),
            ("redis://a", (), "its broker is a; expect_host wants nothing"),
            (";", ("a",), "its broker's URL is empty"),
            (
                "redis://:hunter2/x@redis.stg/0",
                ("redis.stg",),
                "its broker's URL has a port that is no number; percent-encode /, ?, # and : in its password",
            ),
            (
                "redis://redis.stg:99999/0",
                ("redis.stg",),
                "its broker's URL has a port that is out of range (0 to 65535);"
                " percent-encode /, ?, # and : in its password",
            ),
            (
                f"redis://redis.stg/0?password={SECRET}",
                ("redis.stg",),
                "its broker's URL has password behind its ?; kombu wants SCHEME://USER:PASSWORD@HOST:PORT/",
            ),
            (
                "redis://me:1/hunter2@redis.stg/0",
                ("me",),
                "its broker's URL has an @ after its host; percent-encode it (%40), and /, ? and # in its password",
            ),
            (
                "redis://redis.stg#@redis.prod/0",
                ("redis.stg",),
                "its broker's URL has an @ after its host; percent-encode it (%40), and /, ? and # in its password",
            ),
        ],
    )
    def test_unexpected(self, url: str, expected: tuple[str, ...], told: str) -> None:
        with pytest.raises(ContractError) as caught:
            check_host(TargetSpec("stg", "env:B", expected), url)

        assert str(caught.value) == f"target stg: {told}; nothing was looked at"

    def test_is_the_one_that_kombu_connects_to(self) -> None:
        from kombu import Connection

        for url in (
            "redis://:p@ss@Redis.STG:6379/0",
            "amqp://a%40b:c@host//",
            "redis://redis.stg@redis.prod/0",
            "redis://[::1]/0",
            "amqp://%61bc/",
        ):
            (host,) = hosts(url)
            assert host.name == Connection(url).hostname.lower()

    def test_of_a_variable_is_compared_before_anything_else(self) -> None:
        assert problems(contract(), {"BROKER": f"redis://:{SECRET}@redis.prod/0"}) == [
            "target stg: its broker is redis.prod; expect_host wants redis.stg; nothing was looked at",
        ]

    def test_of_the_app_is_compared_too(self) -> None:
        assert problems(contract(broker="app"), {}, app(f"redis://:{SECRET}@redis.prod/0")) == [
            "target stg: its broker is redis.prod; expect_host wants redis.stg; nothing was looked at",
        ]


class TestOptions:
    def test_take_their_passwords_from_variables(self) -> None:
        options = {"master_name": "m", "sentinel_kwargs": {"password": "env:SENTINEL"}}

        target = resolve(
            contract(transport_options=options), "stg", {"BROKER": "sentinel://redis.stg", "SENTINEL": SECRET}
        )

        assert target.options == {"master_name": "m", "sentinel_kwargs": {"password": SECRET}}
        assert SECRET not in repr(target)

    def test_name_the_variable_that_is_not_set(self) -> None:
        told = problems(
            contract(transport_options={"sentinel_kwargs": {"password": "env:SENTINEL"}}),
            {"BROKER": "sentinel://redis.stg"},
        )

        assert told == [
            'target stg: transport_options has password = "env:SENTINEL", and SENTINEL is not set'
        ]

    def test_name_everything_that_is_missing(self) -> None:
        assert len(problems(contract(transport_options={"a": "env:A1", "b": "env:B1"}, ca="ca.pem"), {})) == 4

    def test_the_contract_s_exchange_wins(self) -> None:
        target = resolve(
            contract(control_exchange="mine"),
            "stg",
            {"BROKER": "redis://redis.stg"},
            app(control_exchange="shop"),
        )

        assert target.control_exchange == "mine"


class TestTls:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in ("ca.pem", "me.pem", "me.key"):
            (tmp_path / name).touch()
        return tmp_path

    def ssl(self, contract: Contract, url: str, app: AppInfo | None = None) -> Any:
        return resolve(contract, "stg", {"BROKER": url}, app).ssl

    def test_none_for_a_plain_url(self) -> None:
        assert self.ssl(contract(), "redis://redis.stg") is None

    def test_verifies_unless_it_is_told_otherwise(self) -> None:
        assert self.ssl(contract(), "rediss://redis.stg") == {
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
            "ssl_check_hostname": True,
        }
        assert self.ssl(contract(verify=False), "rediss://redis.stg") == {
            "ssl_cert_reqs": ssl.CERT_NONE,
            "ssl_check_hostname": False,
        }
        assert self.ssl(contract(), "amqps://redis.stg") == {
            "cert_reqs": ssl.CERT_REQUIRED,
            "server_hostname": None,
        }
        assert self.ssl(contract(verify=False), "amqps://redis.stg") == {"cert_reqs": ssl.CERT_NONE}

    def test_files_are_relative_to_the_contract(self, folder: Path) -> None:
        declared = contract(folder, ca="ca.pem", cert="me.pem", key=str(folder / "me.key"))

        assert self.ssl(declared, "rediss://redis.stg") == {
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
            "ssl_check_hostname": True,
            "ssl_ca_certs": f"{folder}/ca.pem",
            "ssl_certfile": f"{folder}/me.pem",
            "ssl_keyfile": f"{folder}/me.key",
        }
        assert self.ssl(declared, "amqps://redis.stg") == {
            "cert_reqs": ssl.CERT_REQUIRED,
            "server_hostname": None,
            "ca_certs": f"{folder}/ca.pem",
            "certfile": f"{folder}/me.pem",
            "keyfile": f"{folder}/me.key",
        }

    def test_a_missing_file_is_named(self, folder: Path) -> None:
        assert problems(contract(folder, ca="gone.pem"), {"BROKER": "rediss://redis.stg"}) == [
            f"target stg: ca is {folder}/gone.pem, which is no file",
        ]

    def test_the_app_s_own_is_kept_for_brokers_of_its_kind(self) -> None:
        info = app(broker_use_ssl={"ssl_cert_reqs": 0})

        assert self.ssl(contract(), "rediss://redis.stg", info) == {"ssl_cert_reqs": 0}
        assert self.ssl(contract(), "amqp://redis.stg", info) is None
        assert (
            self.ssl(contract(verify=True), "rediss://redis.stg", info)["ssl_cert_reqs"] == ssl.CERT_REQUIRED
        )

    def test_a_url_may_say_it_itself(self) -> None:
        assert self.ssl(contract(), "rediss://redis.stg?ssl_cert_reqs=none") is None

    def test_a_url_and_the_contract_may_not_both(self) -> None:
        assert problems(contract(verify=True), {"BROKER": "rediss://redis.stg?ssl_cert_reqs=none"}) == [
            "target stg: its broker's URL has ssl_ options and the contract has verify; keep one of the two",
        ]

    def test_of_other_transports_is_theirs(self) -> None:
        assert problems(contract(verify=True), {"BROKER": "kafka://redis.stg"}) == [
            "target stg: ca, cert, key and verify are not known for kafka; use its transport_options",
        ]
