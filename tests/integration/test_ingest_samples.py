"""Every webhook that WAHA is known to send is taken, byte for byte: its samples, and the captured ones."""

from pathlib import Path

import msgspec

from ingesting import KID, Connection, connected, path_of, request, secret_of, site
from wsm.core.ids import ServerName, SessionAddress, SessionName, TenantId
from wsm.wire.directory import Listed

CAPTURED_KEY = "s3cr3t-key"


def listed(tenant: int, body: bytes) -> Listed:
    """List the session that a body names, as a tenant's own."""
    session = SessionName(msgspec.json.decode(body)["session"])
    return Listed(TenantId(tenant), session, ServerName(f"server-{tenant}"), KID, (1,))


async def test_every_sample_is_taken_at_its_sessions_own_path(redis_url: str, waha_fixtures: Path) -> None:
    bodies = [file.read_bytes() for file in sorted((waha_fixtures / "samples").glob("*.json"))]
    assert bodies
    sessions = [listed(tenant, body) for tenant, body in enumerate(bodies, 1)]
    async with site(redis_url, sessions=sessions) as ingest, connected(ingest.port) as waha:
        for one, body in zip(sessions, bodies, strict=True):
            address = SessionAddress(one.tenant, one.session)
            await waha.send(request(path_of(address), body, secret=secret_of(address)))
            assert (await waha.reply()).json == {"status": "accepted"}
            assert [entry[b"body"] for entry in await ingest.entries(address)] == [body]


async def test_every_capture_is_taken_with_its_own_headers_and_signature(
    redis_url: str, waha_fixtures: Path
) -> None:
    captures = [
        file.read_bytes().partition(b"\r\n\r\n")
        for file in sorted((waha_fixtures / "captures").glob("*.http"))
    ]
    assert captures
    one = listed(1, captures[0][2])
    address = SessionAddress(one.tenant, one.session)
    async with (
        site(redis_url, sessions=[one], hook_secrets={one.server: [CAPTURED_KEY]}) as ingest,
        connected(ingest.port) as waha,
    ):
        for head, _, body in captures:
            await replay(waha, f"/webhooks/waha?server={one.server}", head, body)
            assert (await waha.reply()).json == {"status": "accepted"}
        assert [entry[b"body"] for entry in await ingest.entries(address)] == [body for *_, body in captures]
        for head, _, body in captures:
            await replay(waha, f"/webhooks/waha?server={one.server}", head, body[:-1] + b" ")
            assert (await waha.reply()).status == 403


async def replay(waha: Connection, path: str, head: bytes, body: bytes) -> None:
    """Send a captured request again, at another path."""
    _, *headers = head.split(b"\r\n")
    await waha.send(b"\r\n".join([f"POST {path} HTTP/1.1".encode(), *headers, b"", body]))
