"""What lies in deploy/ is complete, safe by default, and fits the program that it starts."""

import re
import shutil
import subprocess
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

import commandline
from wsm.config import Settings, WahaServer, load
from wsm.control.servers import judge
from wsm.core.pacing import Pace
from wsm.gateway.config import EVENTS
from wsm.gateway.environment import habits

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
OPT_IN = re.compile(r"^#(?=[\[a-z])", re.MULTILINE)  # a line that waits to be filled in
SECRET = re.compile(r"PASSWORD|SECRET|_KEY$|_KEYS$|_URL$")
REQUIRED = re.compile(r"\$\{[A-Z_]+:\?\}")

Unit = dict[str, dict[str, list[str]]]


def manual() -> str:
    return (DEPLOY / "wsm.toml").read_text(encoding="utf-8")


def filled_in() -> str:
    """The manual as an operator leaves it: every waiting line is opened, every empty value filled."""
    text = OPT_IN.sub("", manual())
    text = text.replace('k1 = ""', f'k1 = "{"ab" * 32}"')
    text = text.replace('redis_url = ""', 'redis_url = "redis://host"').replace('webhooks_url = ""', "")
    text = text.replace('username = ""', 'username = "acme"').replace('password = ""', 'password = "x"')
    return text.replace('_url = ""', '_url = "postgresql://host"').replace('url = ""', 'url = "http://waha"')


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    return found


def unit(path: Path) -> Unit:
    """Read a unit file: section, key, values in order."""
    sections: Unit = defaultdict(lambda: defaultdict(list))
    section = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and line[0] not in "#;":
            name, found, value = line.partition("=")
            assert found, f"{path.name}: {line}"
            sections[section][name].append(value)
    return sections


# The settings


def test_every_setting_stands_in_the_manual_once_and_nothing_else() -> None:
    named = tomllib.loads(OPT_IN.sub("", manual()))
    assert set(named) == {field.name for field in msgspec.structs.fields(Settings)}
    servers = {field.name for field in msgspec.structs.fields(WahaServer)}
    assert set(named["waha"]["default"]) == servers


def test_the_manuals_defaults_are_the_programs() -> None:
    stated = tomllib.loads(manual())
    defaults = {field.name: field.default for field in msgspec.structs.fields(Settings)}
    said = {name: tuple(value) if isinstance(value, list) else value for name, value in stated.items()}
    said["pace"] = msgspec.convert(said["pace"], Pace)
    assert stated["pace"].keys() == {field.name for field in msgspec.structs.fields(Pace)}
    assert said == {name: defaults[name] for name in stated}
    waiting = {"redis_url", "database_url", "system_database_url", "owner_database_url"}
    assert defaults.keys() - stated.keys() == {*waiting, "master_keys", "master_key_id", "waha", "exits"}


def test_every_setting_is_explained_above_it() -> None:
    lines = manual().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"#?[a-z_]+ = ", line):
            block = number
            while re.match(r"#?[a-z_0-9]+ = |#?\[", lines[block]):
                block -= 1
            assert lines[block].startswith("# "), f"nothing is said of {line}"


def test_the_manual_loads_once_its_secrets_are_filled_in(tmp_path: Path) -> None:
    path = tmp_path / "wsm.toml"
    path.write_text(filled_in(), encoding="utf-8")
    settings = load({"WSM_CONFIG": str(path)})
    assert settings.waha["default"].url == "http://waha"
    assert settings.master_key_id in settings.master_keys


# Compose


@pytest.mark.parametrize("name", sorted(compose()["services"]))
def test_no_secret_in_compose_has_a_default(name: str) -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{[^}]*\}", text)) == set(REQUIRED.findall(text))
    for key, value in compose()["services"][name].get("environment", {}).items():
        if re.search("PASSWORD|SECRET|MASTER_KEYS$|HMAC_KEY", key):
            assert REQUIRED.fullmatch(value), key
        if "@" in value:
            assert re.search(r":\$\{[A-Z_]+:\?\}@", value), f"{key} has a password in clear"


def test_every_secret_of_compose_is_named_in_its_head() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    head = set(re.findall(r"\b[A-Z_]{8,}\b", text.partition("\nname:")[0]))
    used = {name[2:-3] for name in REQUIRED.findall(text)}
    assert used <= head


def test_valkey_keeps_what_it_confirms() -> None:
    words = compose()["services"]["valkey"]["command"]
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "always"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--maxmemory"] == "1gb"
    defaults = {field.name: field.default for field in msgspec.structs.fields(Settings)}
    assert defaults["all_mailboxes_bytes"] * 2 == 1024**3
    assert compose()["services"]["valkey"]["volumes"] == ["valkey:/data"]


def test_nothing_makes_postgresql_less_durable() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    assert not re.search("fsync *=|synchronous_commit|full_page_writes", text)


def test_postgresqls_log_quotes_no_statement_and_no_row() -> None:
    words = compose()["services"]["postgres"]["command"]
    assert {"log_error_verbosity=terse", "log_min_error_statement=panic"} <= {*words}
    assert not [word for word in words if "log_statement" in word or "log_min_duration" in word]


def test_each_process_is_given_the_secrets_that_it_needs_and_no_other() -> None:
    given = {
        name: set(re.findall(r"\$\{(\w+):\?\}", str(service.get("environment", {}))))
        for name, service in compose()["services"].items()
    }
    assert given == {
        "valkey": {"VALKEY_PASSWORD"},
        "postgres": {
            *("POSTGRES_PASSWORD", "WSM_MIGRATOR_PASSWORD", "WSM_APP_PASSWORD", "WSM_SYSTEM_PASSWORD"),
            "WAHA_DATABASE_PASSWORD",
        },
        "migrate": {"WSM_MIGRATOR_PASSWORD"},
        "ingest": {"VALKEY_PASSWORD", "WSM_MASTER_KEYS", "WEBHOOK_HMAC_SECRET"},
        "worker": {"VALKEY_PASSWORD", "WSM_APP_PASSWORD", "WAHA_API_KEY"},
        "clock": {"VALKEY_PASSWORD", "WSM_SYSTEM_PASSWORD"},
        "waha": {"WAHA_API_KEY", "WAHA_DATABASE_PASSWORD", "WEBHOOK_HMAC_SECRET"},
    }


def test_postgresql_keeps_each_role_to_its_own_side() -> None:
    service = compose()["services"]["postgres"]
    assert "max_connections=500" in service["command"]
    [rules] = [word.removeprefix("hba_file=") for word in service["command"] if "hba_file" in word]
    assert f"./postgres/pg_hba.conf:{rules}:ro" in service["volumes"]


def test_waha_keeps_its_sessions_in_its_own_database_under_a_name_of_its_own() -> None:
    service = compose()["services"]["waha"]
    found = habits(service["environment"])
    assert judge(found) == ("sessions in PostgreSQL", ())
    assert "waha:${WAHA_DATABASE_PASSWORD:?}@" in service["environment"]["WHATSAPP_SESSIONS_POSTGRESQL_URL"]
    others = [each for name, each in compose()["services"].items() if name not in {"waha", "postgres"}]
    assert not any("WAHA_DATABASE_PASSWORD" in str(each) for each in others)
    assert "/ping" in service["healthcheck"]["test"][-1]


def test_every_service_says_whether_it_is_well_and_waits_for_what_it_needs() -> None:
    services = compose()["services"]
    waits = {
        name: {on: how["condition"] for on, how in service.get("depends_on", {}).items()}
        for name, service in services.items()
    }
    assert {name for name, service in services.items() if "test" not in service["healthcheck"]} == {"migrate"}
    words = [word for service in services.values() for word in service["healthcheck"].get("test", ())]
    assert all(isinstance(word, str) for word in words), "` : ` makes a table of a word"
    assert waits == {
        "valkey": {},
        "postgres": {},
        "migrate": {"postgres": "service_healthy"},
        "ingest": {"valkey": "service_healthy"},
        "worker": {"valkey": "service_healthy", "migrate": "service_completed_successfully"},
        "clock": {"valkey": "service_healthy", "migrate": "service_completed_successfully"},
        "waha": {"postgres": "service_healthy", "ingest": "service_started"},
    }
    assert services["worker"]["deploy"]["replicas"] == 2


@pytest.mark.parametrize("name", ["migrate", "ingest", "worker", "clock"])
def test_compose_starts_commands_that_exist_with_settings_that_exist(name: str) -> None:
    service = compose()["services"][name]
    commandline.check_complete(service["command"])
    filled = {
        key: REQUIRED.sub("x", value) if key != "WSM_MASTER_KEYS" else f"k1:{'ab' * 32}"
        for key, value in service["environment"].items()
    }
    settings = load(filled)
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    if name == "migrate":
        return
    assert settings.ops_port == 9100
    assert f":{settings.ops_port}/readyz" in service["healthcheck"]["test"][-1]
    assert int(service["stop_grace_period"].removesuffix("s")) > settings.drain_seconds


def test_waha_posts_to_the_shared_hook_what_wsm_asks_for() -> None:
    environ = compose()["services"]["waha"]["environment"]
    assert tuple(environ["WHATSAPP_HOOK_EVENTS"].split(",")) == EVENTS
    assert environ["WHATSAPP_HOOK_URL"] == "http://ingest:8080/webhooks/waha"
    assert (
        environ["WHATSAPP_HOOK_HMAC_KEY"]
        == compose()["services"]["ingest"]["environment"]["WEBHOOK_HMAC_SECRET"]
    )
    assert "/waha?" in environ["WHATSAPP_SESSIONS_POSTGRESQL_URL"]


def test_volumes_and_networks_are_declared_and_no_port_is_open_to_the_world() -> None:
    found = compose()
    for service in found["services"].values():
        assert set(service["networks"]) <= set(found["networks"])
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in found["volumes"] or (DEPLOY / source).exists()


# The image and Prometheus


def test_the_image_checks_hashes_and_is_not_root() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    instructions = [line for line in re.sub(r"\\\n", " ", text).splitlines() if re.match("[A-Z]+ ", line)]
    assert any("--require-hashes" in line and "requirements.lock" in line for line in instructions)
    assert all("--no-index" in line for line in instructions if "pip install" in line)
    last = instructions[[line.startswith("FROM ") for line in instructions].index(True, 1) :]
    (user,) = [line.split()[1] for line in last if line.startswith("USER ")]
    assert int(user.split(":")[0]) > 0
    assert 'ENTRYPOINT ["wsm"]' in last
    for line in instructions:
        for source in re.findall(r"^COPY (?!--)(.*) \S+$", line):
            for name in source.split():
                assert (DEPLOY.parent / name).exists(), name
                assert f"!{name}" in (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8")


def test_prometheus_scrapes_what_compose_runs() -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    found = set()
    for job in jobs:
        for static in job.get("static_configs", []):
            found |= {tuple(target.split(":")) for target in static["targets"]}
        for dns in job.get("dns_sd_configs", []):
            found |= {(name, str(dns["port"])) for name in dns["names"]}
    assert found == {(name, "9100") for name in ("ingest", "worker", "clock")}


# systemd


def test_there_is_a_unit_for_every_process() -> None:
    assert [path.name for path in UNITS] == [
        "wsm-clock.service", "wsm-ingest.service", "wsm-migrate.service", "wsm-worker@.service",
    ]  # fmt: skip


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_a_command_that_exists_with_its_own_settings(path: Path) -> None:
    service = unit(path)["Service"]
    (start,) = service["ExecStart"]
    words = commandline.after_wsm(start)
    assert words is not None
    commandline.check_complete(words)
    assert service["LoadCredential"] == [f"wsm.toml:/etc/wsm/{words[0]}.toml"]
    assert "WSM_CONFIG=%d/wsm.toml" in service["Environment"][0].split()


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_is_hardened(path: Path) -> None:
    service = {name: values[-1] for name, values in unit(path)["Service"].items()}
    for name in (
        "DynamicUser", "LockPersonality", "MemoryDenyWriteExecute", "NoNewPrivileges", "PrivateDevices",
        "PrivateTmp", "ProtectClock", "ProtectControlGroups", "ProtectHome", "ProtectHostname",
        "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "RestrictNamespaces",
        "RestrictRealtime", "RestrictSUIDSGID",
    ):  # fmt: skip
        assert service[name] == "yes", name
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    assert service["SystemCallFilter"] == "~@privileged @resources"
    assert service["RestrictAddressFamilies"] == "AF_INET AF_INET6 AF_UNIX"


@pytest.mark.parametrize("path", [path for path in UNITS if "migrate" not in path.name], ids=lambda p: p.name)
def test_a_process_has_time_to_drain_and_is_always_started_again(path: Path) -> None:
    sections = unit(path)
    service = {name: values[-1] for name, values in sections["Service"].items()}
    drain = next(f.default for f in msgspec.structs.fields(Settings) if f.name == "drain_seconds")
    assert service["KillSignal"] == "SIGTERM"
    assert float(service["TimeoutStopSec"]) > drain
    assert service["Restart"] == "always"
    assert sections["Unit"]["StartLimitIntervalSec"] == ["0"]
    assert sections["Install"]["WantedBy"] == ["wsm.target"]
    assert (DEPLOY / "systemd" / "wsm.target").exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_units_and_finds_them_tight(tmp_path: Path) -> None:
    for path in [*UNITS, DEPLOY / "systemd" / "wsm.target"]:
        text = path.read_text(encoding="utf-8").replace("/opt/wsm/bin/wsm", "/bin/true")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    for path in UNITS:
        copy = str(tmp_path / path.name.replace("@", "@1"))
        (tmp_path / path.name).rename(copy)
        verified = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False
        )
        assert (verified.returncode, path.name in verified.stderr) == (0, False), verified.stderr
        measured = ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", copy]
        found = subprocess.run(measured, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout[-200:] + found.stderr
