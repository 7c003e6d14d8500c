"""The command line: what is wrong is said in one sentence, with the exit code for it."""

import os

import pytest

from wsm.cli import main


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's own environment has names that are no settings."""
    for name in os.environ:
        if name.startswith(("WSM_", "WAHA_")) or name in {"REDIS_URL", "DATABASE_URL"}:
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "tenant", ["0", "-1", "9223372036854775808", "99999999999999999999", "ana", "1.5", ""]
)
@pytest.mark.parametrize("command", [("line", "show"), ("tenant", "add"), ("history",), ("line", "close")])
def test_what_is_no_tenant_is_wrong_usage(
    command: tuple[str, ...], tenant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chat = ("5511900000001",) if command in {("history",), ("line", "close")} else ()
    with pytest.raises(SystemExit) as ended:
        main([*command, "--", tenant, *chat])
    assert ended.value.code == 2
    assert "tenant" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("tenant", "add"), ("session", "create")])
def test_a_way_out_is_a_choice_that_somebody_has_to_make(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for ways in ((), ("--direct", "--exit", "br")):
        with pytest.raises(SystemExit) as ended:
            main([*command, "77", *ways])
        assert ended.value.code == 2
        told = capsys.readouterr().err
        assert "--exit" in told
        assert "--direct" in told


@pytest.mark.parametrize("command", ["ingest", "worker", "clock", "migrate"])
def test_a_process_without_its_settings_names_the_first_that_it_misses(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsm.telemetry.configure_logging", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main([command])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("wsm: ")
    assert "is needed here and not set" in told
    assert len(told.splitlines()) == 1


def test_an_odd_setting_stops_the_start(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSM_PORT", "70000")
    with pytest.raises(SystemExit) as ended:
        main(["ingest"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("wsm: port: ")
