"""The commands for people: `wsm up` and what is asked of it, and one sentence when something is not there."""

import signal
from pathlib import Path

from e2e.telling import Running, wsm


def test_a_database_that_is_away_is_one_sentence(tmp_path: Path) -> None:
    urls = {"REDIS_URL": "unix:///nowhere", "DATABASE_URL": f"postgresql://wsm_app@/wsm?host={tmp_path}"}
    asked = wsm(tmp_path, "line", "show", "1460561546", environ=urls)
    assert (asked.returncode, asked.stdout) == (1, "")
    assert asked.stderr == "wsm: PostgreSQL does not answer: PoolTimeout\n"


def test_a_gateway_that_is_no_sandbox_is_one_sentence(tmp_path: Path) -> None:
    urls = {"REDIS_URL": "unix:///nowhere", "WAHA_URL": "http://127.0.0.1:9", "WAHA_API_KEY": "none"}
    for words in (("say", "user_1", "5511960000009", "oi"), ("inbox", "5511960000009")):
        asked = wsm(tmp_path, "sandbox", *words, environ=urls)
        assert (asked.returncode, asked.stdout) == (1, "")
        assert asked.stderr == "wsm: no sandbox answers at http://127.0.0.1:9: ConnectError\n"


def test_a_tenant_outlives_the_site_that_he_was_made_at(folder: Path) -> None:
    add = ("tenant", "add", "1460561546", "--name", "Loja", "--direct")
    for said in ((0, "webhook: /webhooks/waha/1460561546/user_1460561546\n", ""), THERE):
        with Running(folder, "up") as up:
            up.shows("webhooks: http://127.0.0.1:")
            done = wsm(folder, *add)
            assert (done.returncode, done.stdout, done.stderr) == said
            line = wsm(folder, "line", "show", "1460561546")
            assert (line.returncode, line.stdout) == (0, "nobody is in line\n")
            up.signal(signal.SIGTERM)
            assert up.ended() == 0


THERE = (2, "", "wsm: session: user_1460561546 exists\n")
