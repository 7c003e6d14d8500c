"""The shared hook of a WAHA server: its own secrets, and finding whose an event is."""

from ingesting import ANN, BOB, HOOK, event, listed, refused, request, secret_of, site, to
from wsm.core.ids import SessionAddress, TenantId

BODY = event(ANN.session)


async def test_the_shared_hook_finds_the_tenant_under_both_of_its_secrets(redis_url: str) -> None:
    async with site(redis_url) as ingest:
        for path in (HOOK, HOOK + "?server=default"):
            for secret in ("hook-old", "hook-new"):
                assert (await ingest.say(request(path, BODY, secret=secret))).status == 200
        assert len(await ingest.entries(ANN)) == 4
        assert await ingest.entries(BOB) == []


async def test_the_shared_hook_takes_its_own_servers_secret_only(redis_url: str) -> None:
    async with site(redis_url) as ingest:
        for query, secret, reason in [
            ("", "hook-other", "signature_mismatch"),
            ("", secret_of(ANN), "signature_mismatch"),
            ("?server=other", "hook-old", "signature_mismatch"),
            ("?server=nobody", "hook-old", "signature_mismatch"),
            ("?server=", "hook-old", "signature_mismatch"),
            ("?server=default&server=default", "hook-old", "signature_mismatch"),
            ("?" + "&".join(f"f{n}" for n in range(40)), "hook-old", "signature_mismatch"),
            ("?server=%FF%00", "hook-old", "signature_mismatch"),
            ("?server=mute", "hook-old", "hook_unconfigured"),
            ("?server=mute", "", "hook_unconfigured"),
        ]:
            assert refused(await ingest.say(request(HOOK + query, BODY, secret=secret)), reason), query
        assert await ingest.nothing_written()


async def test_without_a_secret_the_shared_hook_refuses_everything(redis_url: str) -> None:
    async with site(redis_url, hook_secrets={}) as ingest:
        for secret in ("", "hook-old", "None"):
            reply = await ingest.say(request(HOOK, BODY, secret=secret))
            assert refused(reply, "hook_unconfigured")
        assert (await ingest.say(to(ANN, BODY))).status == 200


async def test_authentic_but_nobodys_is_quarantined_with_the_reason(redis_url: str) -> None:
    twin = SessionAddress(TenantId(9), ANN.session)
    sessions = [listed(ANN), listed(twin, server="other")]
    stranger = event("x" * 500)
    async with site(redis_url, sessions=sessions) as ingest:
        for query, secret, body in [
            ("", "hook-old", stranger),
            ("", "hook-old", BODY),
            ("?server=other", "hook-other", event("user_0")),
            ("?server=default", "hook-old", event(ANN.session, me={"id": "1234567@c.us"})),
        ]:
            reply = await ingest.say(request(HOOK + query, body, secret=secret))
            assert (reply.status, reply.json) == (200, {"status": "quarantined"})
        found = await ingest.misfits()
        assert [(one[b"server"], one[b"reason"]) for one in found] == [
            (b"default", b"session_unmapped"),
            (b"default", b"session_ambiguous"),
            (b"other", b"session_unmapped"),
            (b"default", b"other_number"),
        ]
        assert found[0][b"body"] == stranger
        assert len(found[0][b"session"]) == 54
        # With the server named, the name is no longer ambiguous.
        assert (await ingest.say(request(HOOK + "?server=other", BODY, secret="hook-other"))).status == 200
        assert len(await ingest.entries(twin)) == 1
        assert await ingest.entries(ANN) == []
