"""What ingest answers, and what lies in Redis afterwards: real HTTP, a real Valkey."""

import asyncio
import time

import structlog

from ingesting import (
    ANN,
    ANNS_NUMBER,
    BOB,
    HOOK,
    NOW_MS,
    connected,
    event,
    listed,
    path_of,
    refused,
    request,
    secret_of,
    site,
    to,
)
from wsm.core.ids import SessionAddress, SessionName, TenantId
from wsm.ingest.app import wall_clock_ms
from wsm.streams import keys
from wsm.streams.handover import Limits
from wsm.wire.signature import sign

BODY = event(ANN.session)
SIGNED = ("x-webhook-hmac", sign(secret_of(ANN), BODY))


async def test_a_signed_webhook_lies_in_the_mailbox_as_it_was_signed(redis_url: str) -> None:
    async with site(redis_url) as ingest:
        reply = await ingest.say(to(ANN, BODY, headers=[("x-webhook-hmac-algorithm", "sha512")]))
        assert (reply.status, reply.json) == (200, {"status": "accepted"})
        assert await ingest.entries(ANN) == [
            {
                b"at": str(NOW_MS).encode(),
                b"origin": b"waha",
                b"session": ANN.session.encode(),
                b"body": BODY,
            }
        ]


async def test_the_bytes_are_kept_and_not_their_meaning(redis_url: str) -> None:
    odd = b' {"session" :"%s",\t"event":"never.heard.of","x":"\xc3\xa9\\u00e9"}\n' % ANN.session.encode()
    async with site(redis_url) as ingest:
        assert (await ingest.say(to(ANN, odd))).status == 200
        assert [entry[b"body"] for entry in await ingest.entries(ANN)] == [odd]


async def test_what_is_not_rightly_signed_is_forbidden_and_leaves_nothing(redis_url: str) -> None:
    tries: list[tuple[list[tuple[str, str | bytes]], str]] = [
        ([], "signature_missing"),
        ([("x-webhook-hmac", "")], "signature_malformed"),
        ([("x-webhook-hmac", SIGNED[1][:-1])], "signature_malformed"),
        ([("x-webhook-hmac", SIGNED[1] + "0")], "signature_malformed"),
        ([("x-webhook-hmac", SIGNED[1].upper())], "signature_malformed"),
        ([("x-webhook-hmac", b"\xc3\xa9" * 64)], "signature_malformed"),
        ([("x-webhook-hmac", b"\xff" * 128)], "signature_malformed"),
        ([SIGNED, SIGNED], "signature_repeated"),
        ([SIGNED, ("X-Webhook-HMAC", "0" * 128)], "signature_repeated"),
        ([("x-webhook-hmac", "0" * 128)], "signature_mismatch"),
        ([("x-webhook-hmac", sign(secret_of(BOB), BODY))], "signature_mismatch"),
        ([("x-webhook-hmac", sign("hook-old", BODY))], "signature_mismatch"),
        ([SIGNED, ("x-webhook-hmac-algorithm", "md5")], "algorithm_unsupported"),
        ([SIGNED, ("x-webhook-hmac-algorithm", b"\xff")], "algorithm_unsupported"),
    ]
    async with site(redis_url) as ingest:
        for headers, reason in tries:
            assert refused(await ingest.say(request(path_of(ANN), BODY, headers=headers)), reason), headers
        assert await ingest.nothing_written()


async def test_one_flipped_byte_is_forbidden(redis_url: str) -> None:
    async with site(redis_url) as ingest:
        for index in (0, len(BODY) // 2, len(BODY) - 1):
            flipped = bytearray(BODY)
            flipped[index] ^= 1
            reply = await ingest.say(request(path_of(ANN), bytes(flipped), headers=[SIGNED]))
            assert refused(reply, "signature_mismatch")
        assert await ingest.nothing_written()


async def test_a_signature_in_a_trailer_is_none(redis_url: str) -> None:
    chunked = b"%x\r\n%s\r\n0\r\nx-webhook-hmac: %s\r\n\r\n" % (len(BODY), BODY, SIGNED[1].encode())
    head = f"POST {path_of(ANN)} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    async with site(redis_url) as ingest:
        assert refused(await ingest.say(head + chunked), "signature_missing")


async def test_every_generation_of_a_rotation_is_accepted_and_no_other(redis_url: str) -> None:
    async with site(redis_url, sessions=[listed(ANN, generations=(2, 3))]) as ingest:
        statuses = [
            (await ingest.say(to(ANN, BODY, secret=secret_of(ANN, generation)))).status
            for generation in (1, 2, 3, 4)
        ]
        assert statuses == [403, 200, 200, 403]


async def test_a_retired_generation_and_a_removed_session_end_with_the_next_directory(redis_url: str) -> None:
    async with site(redis_url, sessions=[listed(ANN, generations=(1, 2)), listed(BOB)]) as ingest:
        assert (await ingest.say(to(ANN, BODY))).status == 200
        assert (await ingest.say(to(BOB, event(BOB.session)))).status == 200
        await ingest.publish([listed(ANN, generations=(2,))], "2")
        assert (await ingest.say(to(ANN, BODY))).status == 403
        assert (await ingest.say(to(ANN, BODY, secret=secret_of(ANN, 2)))).status == 200
        assert (await ingest.say(to(BOB, event(BOB.session)))).status == 403


async def test_an_unknown_session_is_told_what_a_wrong_key_is_told(redis_url: str) -> None:
    nobody = SessionAddress(TenantId(4), SessionName("user_4"))
    elsewhere = SessionAddress(BOB.tenant, ANN.session)
    with structlog.testing.capture_logs() as lines:
        async with site(redis_url) as ingest:
            known = await ingest.say(to(ANN, BODY, secret="wrong"))
            for address in (nobody, elsewhere):
                unknown = await ingest.say(to(address, event(address.session)))
                assert (unknown.status, unknown.body) == (known.status, known.body)
                unsigned = await ingest.say(request(path_of(address), BODY))
                assert refused(unsigned, "signature_missing")
            assert await ingest.nothing_written()
    said = [line for line in lines if line["event"] == "webhook_refused"]
    assert [line.get("tenant") for line in said] == [ANN.tenant, None, None, None, None]
    assert [line["reason"] for line in said[:2]] == ["signature_mismatch", "session_unknown"]
    assert all(line["address"] == "127.0.0.1" for line in said)
    assert nobody.session not in str(said)
    assert "evt_" not in str(said)
    assert sign("wrong", BODY) not in str(said)


async def test_signed_but_no_webhook_is_answered_400_with_the_field(redis_url: str) -> None:
    async with site(redis_url) as ingest:
        for body, field in [
            (b"", "body"),
            (b"no json", "body"),
            (b"[]", "body"),
            (b"\xff\xfe", "body"),
            (b"[" * 20_000, "body"),
            (b'{"session":"user_1460561546"}', "event"),
            (b'{"event":"message"}', "session"),
            (b'{"event":"message","session":7}', "session"),
            (b'{"event":"","session":"user_1460561546"}', "event"),
        ]:
            reply = await ingest.say(to(ANN, body))
            assert (reply.status, reply.json["field"]) == (400, field), body
            assert reply.json["reason"]
        assert await ingest.nothing_written()


async def test_the_body_must_name_the_session_of_the_path(redis_url: str) -> None:
    async with site(redis_url) as ingest:
        assert refused(await ingest.say(to(ANN, event(BOB.session))), "session_mismatch")
        assert await ingest.nothing_written()


async def test_another_number_is_quarantined_and_the_same_in_any_form_is_not(redis_url: str) -> None:
    same = [ANNS_NUMBER + "@c.us", ANNS_NUMBER + ":12@s.whatsapp.net", "144444444444444@lid", None]
    async with site(redis_url) as ingest:
        for me in same:
            reply = await ingest.say(to(ANN, event(ANN.session, me=me and {"id": me})))
            assert reply.json == {"status": "accepted"}, me
        other = event(ANN.session, me={"id": "5511888880000@c.us"})
        reply = await ingest.say(to(ANN, other))
        assert (reply.status, reply.json) == (200, {"status": "quarantined"})
        assert len(await ingest.entries(ANN)) == len(same)
        assert [(found[b"reason"], found[b"body"]) for found in await ingest.misfits()] == [
            (b"other_number", other)
        ]


async def test_another_path_is_not_found_and_never_a_redirect(redis_url: str) -> None:
    async with site(redis_url) as ingest:
        for path in [
            "/",
            "//",
            "/webhooks",
            "/webhooks/waha/",
            "/webhooks/waha/1460561546",
            "/webhooks/waha/1460561546/",
            path_of(ANN) + "/",
            path_of(ANN) + "/x",
            "/webhooks/waha//user_1460561546",
            "/webhooks/waha/%2e%2e/x",
            "/webhooks/waha/../webhooks/waha",
            "/webhooks/waha/01460561546/user_1460561546",
            "/webhooks/waha/+1460561546/user_1460561546",
            "/webhooks/waha/1460561546/user%5F1460561546",
            "/webhooks/waha/1460561546/user_1460561546%00",
            "/webhooks/waha/1460561546/user_1460561546%0a",
            "/webhooks/waha/" + "9" * 5000 + "/x",
            "/webhooks/waha/1/" + "x" * 55,
            "/" + "x" * 60_000,
            "/WEBHOOKS/waha/1460561546/user_1460561546",
        ]:
            reply = await ingest.say(request(path, BODY, secret=secret_of(ANN)))
            assert refused(reply, "not_found", 404), path
            assert "location" not in reply.headers
        assert await ingest.nothing_written()


async def test_a_tenant_id_beyond_bigint_is_just_unknown(redis_url: str) -> None:
    async with site(redis_url) as ingest:
        reply = await ingest.say(request("/webhooks/waha/" + "9" * 19 + "/x", BODY, secret="any"))
        assert refused(reply, "signature_mismatch")


async def test_what_is_no_target_at_all_is_answered_4xx(redis_url: str) -> None:
    async with site(redis_url) as ingest:
        for target in ("*", "x", "/" + "y" * 70_000, "http://[::/", "/\xff\xfe", ""):
            line = f"POST {target} HTTP/1.1\r\n".encode("latin-1")
            reply = await ingest.say(line + b"host: x\r\ncontent-length: 0\r\n\r\n")
            assert 400 <= reply.status < 500, target[:10]


async def test_another_method_is_answered_405(redis_url: str) -> None:
    async with site(redis_url) as ingest:
        for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH"):
            for path in (HOOK, path_of(ANN)):
                reply = await ingest.say(request(path, method=method))
                assert refused(reply, "wrong_method", 405)
                assert reply.headers["allow"] == "POST"


async def test_the_operators_paths_are_served_beside(redis_url: str) -> None:
    async with site(redis_url) as ingest:
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await ingest.say(request(path, method="GET"))).status == 200
        page = (await ingest.say(request("/metrics", method="GET"))).body.decode()
        assert "wsm_ingest_requests_total" in page
        assert ANN.session not in page


async def test_an_asked_upgrade_changes_nothing(redis_url: str) -> None:
    upgrade = [SIGNED, ("connection", "upgrade"), ("upgrade", "websocket")]
    async with site(redis_url) as ingest:
        reply = await ingest.say(request(path_of(ANN), BODY, headers=upgrade))
        assert reply.status in {200, 400, 403}
        assert len(await ingest.entries(ANN)) == (reply.status == 200)


async def test_as_many_entries_lie_there_as_were_answered_2xx(redis_url: str) -> None:
    async with site(redis_url) as ingest:

        async def keep_sending(first: int) -> int:
            async with connected(ingest.port) as connection:
                accepted = 0
                for number in range(first, first + 25):
                    body = event(ANN.session, number=number)
                    await connection.send(to(ANN, body, secret="wrong" if number % 5 == 0 else None))
                    accepted += (await connection.reply()).status == 200
                return accepted

        counts = await asyncio.gather(*(keep_sending(first * 25) for first in range(40)))
        assert sum(counts) == 800
        assert len({entry[b"body"] for entry in await ingest.entries(ANN)}) == 800


async def test_a_full_mailbox_refuses_its_tenant_alone(redis_url: str) -> None:
    async with site(redis_url, limits=Limits(3, 1 << 20, 1 << 20, 10)) as ingest:
        for number in range(3):
            assert (await ingest.say(to(ANN, event(ANN.session, number=number)))).status == 200
        reply = await ingest.say(to(ANN, BODY))
        assert refused(reply, "mailbox_full_tenant", 503)
        assert reply.headers["retry-after"] == "20"
        assert (await ingest.say(to(BOB, event(BOB.session)))).status == 200
        assert (await ingest.say(request(HOOK, BODY, secret="hook-old"))).status == 503
        await ingest.redis.delete(keys.mailbox(ANN.tenant), keys.load(ANN.tenant))
        assert (await ingest.say(to(ANN, BODY))).status == 200


async def test_a_mailbox_is_full_by_bytes_too_and_so_are_all_of_them(redis_url: str) -> None:
    size = len(BODY)
    async with site(redis_url, limits=Limits(100, 2 * size, 3 * size, 10)) as ingest:
        assert [(await ingest.say(to(ANN, BODY))).status for _ in range(3)] == [200, 200, 503]
        small = event(BOB.session)
        assert (await ingest.say(to(BOB, small))).status == 200
        assert refused(await ingest.say(to(BOB, small)), "mailbox_full_all", 503)


def test_the_clock_of_the_arrival_is_the_walls() -> None:
    before = int(time.time() * 1000)
    assert before <= wall_clock_ms() <= int(time.time() * 1000)
