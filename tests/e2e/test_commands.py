"""What the commands for people say when something is not there: one sentence, and a code that is not 0."""

from pathlib import Path

from e2e.telling import wsm


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
