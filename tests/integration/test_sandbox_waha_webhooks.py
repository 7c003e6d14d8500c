"""The sandbox's webhooks have every habit of WAHA's."""

import asyncio
import re
from typing import Any

import pytest

from receiver import Reply
from wahastage import KEY, stage
from waiting import wait_for
from wsm.sandbox.waha.webhooks import Policy
from wsm.wire.signature import Verifier

CUSTOMER = "5511977776666"


def quick(**retries: Any) -> dict[str, Any]:
    return {"retries": {"policy": "constant", "delaySeconds": 2, "attempts": 15, **retries}}


async def test_a_body_is_compact_json_with_its_letters_as_they_are_and_signed_over_its_bytes() -> None:
    async with stage() as on:
        await on.session(config={"metadata": {"org": "42"}})
        await on.phone.say("main", CUSTOMER, "olá – quanto custa? 😀")
        got = (await on.hook.wait(1, lambda got: "olá".encode() in got.body))[-1]
        assert "olá – quanto custa? 😀".encode() in got.body
        assert b'", "' not in got.body
        headers = got.headers
        Verifier([KEY]).check([headers["x-webhook-hmac"].encode()], [b"sha512"], got.body)
        assert headers["x-webhook-hmac-algorithm"] == "sha512"
        assert headers["x-webhook-timestamp"] == str(got.json["timestamp"])
        assert headers["user-agent"] == "WAHA/2026.7.1"
        assert headers["content-type"] == "application/json"
        assert re.fullmatch("evt_[0-9a-z]{26}", got.json["id"])
        assert list(got.json) == [
            "id", "timestamp", "event", "session", "metadata", "me", "payload", "engine", "environment",
        ]  # fmt: skip


async def test_without_a_key_nothing_is_signed_and_custom_headers_arrive_as_sent() -> None:
    async with stage() as on:
        headers = [{"name": "X-Tenant", "value": "org42"}]
        hook = {"url": on.hook.url, "events": ["*"], "customHeaders": headers}
        await on.session(webhooks=[hook])
        got = on.hook.got[0]
        assert got.headers["x-tenant"] == "org42"
        assert not [name for name in got.headers if name.startswith("x-webhook-hmac")]


@pytest.mark.parametrize(("engine", "same"), [("NOWEB", True), ("GOWS", True), ("WEBJS", False)])
async def test_message_and_message_any_have_one_id_but_in_the_browser(engine: str, same: bool) -> None:
    async with stage(engine=engine) as on:
        await on.session(webhooks=[on.webhook("message", "message.any")])
        await on.phone.say("main", CUSTOMER, "hi")
        assert await on.phone.wait_idle()
        (one,), (other,) = on.hook.events("message"), on.hook.events("message.any")
        assert (one["id"] == other["id"]) is same
        assert one["payload"] == other["payload"]
        assert len({got.headers["x-webhook-request-id"] for got in on.hook.got}) == 2


async def test_own_messages_are_echoed_under_message_any_alone() -> None:
    async with stage() as on:
        await on.session(webhooks=[on.webhook("message", "message.any")])
        await on.send("from the API")
        await on.phone.type_as_agent("main", CUSTOMER, "from the phone")
        assert await on.phone.wait_idle()
        assert not on.hook.events("message")
        sources = {event["payload"]["body"]: event["payload"]["source"] for event in on.hook.events()}
        assert sources == {"from the API": "api", "from the phone": "app"}
        assert all(event["payload"]["fromMe"] for event in on.hook.events())


async def test_a_refused_webhook_is_tried_sixteen_times_byte_for_byte_and_given_up() -> None:
    async with stage() as on:
        await on.session(webhooks=[on.webhook("message.any")])
        on.hook.usual = Reply(500)
        await on.phone.say("main", CUSTOMER, "hi")
        assert await on.phone.wait_idle()
        assert len(on.hook.got) == 16
        assert len({got.body for got in on.hook.got}) == 1
        assert len({tuple(sorted(got.headers.items())) for got in on.hook.got}) == 1
        (delivery,) = await on.phone.deliveries(event="message.any")
        assert delivery["answers"] == [500] * 16
        assert delivery["state"] == "given_up"


@pytest.mark.parametrize("status", [304, 400, 401, 403, 404, 410, 413, 429, 500, 503])
async def test_everything_that_is_no_2xx_is_tried_again(status: int) -> None:
    async with stage() as on:
        on.hook.replies.append(Reply(status))
        await on.session(webhooks=[on.webhook("message.any")])
        await on.phone.say("main", CUSTOMER, "hi")
        assert await on.phone.wait_idle()
        (delivery,) = await on.phone.deliveries(event="message.any")
        assert delivery["answers"] == [status, 200]


async def test_a_204_is_a_success_and_zero_attempts_are_one_delivery() -> None:
    async with stage() as on:
        on.hook.replies.extend([Reply(204), Reply(500)])
        await on.session(webhooks=[on.webhook("message.any", **quick(attempts=0))])
        for text in ("one", "two"):
            await on.phone.say("main", CUSTOMER, text)
            assert await on.phone.wait_idle()
        assert [delivery["answers"] for delivery in await on.phone.deliveries()] == [[204], [500]]


async def test_a_broken_and_a_refused_connection_are_tried_again() -> None:
    async with stage() as on:
        await on.session(webhooks=[on.webhook("message.any", **quick(delaySeconds=20))])
        on.hook.replies.append(Reply(cut=True))
        await on.phone.say("main", CUSTOMER, "hi")
        assert await on.phone.wait_idle()
        await on.hook.close()
        await on.phone.say("main", CUSTOMER, "again")
        await wait_for(lambda: on.waha.courier.log[-1].answers)
        await on.hook.open()
        assert await on.phone.wait_idle()
        broken, refused = await on.phone.deliveries(event="message.any")
        assert broken["answers"][1:] == [200]
        assert isinstance(broken["answers"][0], str)
        assert refused["answers"][0] == "ConnectError"
        assert refused["state"] == "delivered"


async def test_a_retry_after_makes_the_delay_longer_under_any_policy() -> None:
    async with stage() as on:
        on.hook.replies.append(Reply(503, (("Retry-After", "20"),)))
        await on.session(webhooks=[on.webhook("message.any", **quick(delaySeconds=0))])
        await on.phone.say("main", CUSTOMER, "hi")
        first, second = await on.hook.wait(2)
        assert second.at - first.at >= 0.2


def test_delays_grow_as_the_policy_says() -> None:
    assert [Policy.CONSTANT.delay(2, attempt) for attempt in (1, 2, 3)] == [2, 2, 2]
    assert [Policy.LINEAR.delay(1, attempt) for attempt in (1, 2, 3)] == [1, 2, 3]
    for attempt, least in ((1, 2), (2, 4), (3, 8)):
        assert least <= Policy.EXPONENTIAL.delay(1, attempt) <= least * 1.2


@pytest.mark.parametrize(("status", "method"), [(301, "GET"), (302, "GET"), (307, "POST"), (308, "POST")])
async def test_a_redirect_is_followed_and_a_301_or_302_loses_the_event(status: int, method: str) -> None:
    async with stage() as on:
        on.hook.replies.append(Reply(status, (("Location", "/elsewhere"),)))
        await on.session(webhooks=[on.webhook("message.any")])
        await on.phone.say("main", CUSTOMER, "hi")
        assert await on.phone.wait_idle()
        first, second = on.hook.got
        assert (second.method, second.path) == (method, "/elsewhere")
        assert second.body == (first.body if method == "POST" else b"")
        assert [delivery["answers"] for delivery in await on.phone.deliveries()] == [[200]]


async def test_sixty_messages_are_sixty_requests_at_once() -> None:
    async with stage() as on:
        await on.session(webhooks=[on.webhook("message.any")])
        on.hook.gate.clear()
        for number in range(60):
            await on.phone.say("main", CUSTOMER, str(number))
        await on.hook.wait(60)
        assert not await on.phone.wait_idle(0.01)
        on.hook.gate.set()
        assert await on.phone.wait_idle()


async def test_a_retry_arrives_after_newer_messages() -> None:
    async with stage() as on:
        on.hook.replies.append(Reply(500))
        await on.session(webhooks=[on.webhook("message.any", **quick(delaySeconds=50))])
        await on.phone.say("main", CUSTOMER, "older")
        await on.hook.wait(1)
        await on.phone.say("main", CUSTOMER, "newer")
        assert await on.phone.wait_idle()
        assert [event["payload"]["body"] for event in on.hook.events()] == ["older", "newer", "older"]


async def test_a_kill_loses_what_is_pending() -> None:
    async with stage() as on:
        on.hook.usual = Reply(503)
        await on.session("other", webhooks=[])
        await on.session(webhooks=[on.webhook("message.any", **quick(delaySeconds=6000))])
        await on.phone.say("main", CUSTOMER, "hi")
        await on.hook.wait(1)
        assert await on.phone.kill() == 1
        assert await on.phone.wait_idle()
        assert [delivery["state"] for delivery in await on.phone.deliveries()] == ["lost"]
        assert await on.get("/api/sessions", query={"all": "true"}) == []
        assert len(on.hook.got) == 1


async def test_a_url_that_is_global_too_is_told_twice_with_one_id() -> None:
    async with stage() as on:
        on.waha.courier.make_global([on.webhook("message.any", hmac={"key": "global"})])
        await on.session(webhooks=[on.webhook("message.any")])
        await on.phone.say("main", CUSTOMER, "hi")
        assert await on.phone.wait_idle()
        one, other = on.hook.got
        assert one.body == other.body
        assert one.headers["x-webhook-request-id"] != other.headers["x-webhook-request-id"]
        assert one.headers["x-webhook-hmac"] != other.headers["x-webhook-hmac"]
        assert len((await on.get("/api/sessions/main"))["config"]["webhooks"]) == 1


async def test_duplicates_are_the_identical_request_and_a_twin_is_another_event_of_the_same_message() -> None:
    async with stage() as on:
        await on.session(webhooks=[on.webhook("message.any")])
        bare = await on.phone.say("main", CUSTOMER, "thrice", duplicates=3)
        assert await on.phone.wait_idle()
        assert len({(got.body, got.headers["x-webhook-request-id"]) for got in on.hook.got}) == 1
        assert len(on.hook.got) == 3
        assert [delivery["answers"] for delivery in await on.phone.deliveries()] == [[200]] * 3
        twin = await on.phone.say("main", CUSTOMER, "under two ids", twin=True)
        assert await on.phone.wait_idle()
        one, other = on.hook.events()[3:]
        assert one["id"] != other["id"]
        assert {one["payload"]["id"], other["payload"]["id"]} == {
            f"false_{CUSTOMER}@c.us_{twin}",
            f"false_9{CUSTOMER}@lid_{twin}",
        }
        assert bare != twin


async def test_a_media_message_comes_after_the_text_that_was_written_later() -> None:
    async with stage() as on:
        await on.session(webhooks=[on.webhook("message.any")])
        bare = await on.phone.say(
            "main", CUSTOMER, "caption", media=True, late_seconds=0.5, timestamp_ms=1_795_000_000_000
        )
        await on.phone.say("main", CUSTOMER, "text")
        assert await on.phone.wait_idle()
        text, media = on.hook.events()
        assert text["payload"]["body"] == "text"
        assert media["payload"]["timestamp"] == 1_795_000_000
        assert media["timestamp"] > text["timestamp"]
        assert media["payload"]["media"]["mimetype"] == "image/jpeg"
        file = await on.api.get(media["payload"]["media"]["url"])
        assert file.headers["content-type"] == "image/jpeg"
        assert bare.encode() in file.content
        assert (await on.api.get("/api/files/main/none.jpeg")).json()["error"]["key"] == "FILE_NOT_FOUND"


async def test_ignored_chats_are_not_told_and_a_star_is_everything_but_the_engines_own() -> None:
    async with stage() as on:
        await on.session(webhooks=[on.webhook("*")], config={"ignore": {"groups": True}})
        await on.phone.say("main", CUSTOMER, "in a group", group="120363000000000001@g.us")
        await on.phone.say("main", CUSTOMER, "direct")
        await on.phone.emit("main", "engine.event", {"event": "raw", "data": {}})
        assert await on.phone.wait_idle()
        events = [event for event in on.hook.events() if event["event"] != "session.status"]
        assert [(event["event"], event["payload"]["body"]) for event in events] == [
            ("message", "direct"),
            ("message.any", "direct"),
        ]


async def test_two_sessions_that_write_to_each_other_see_one_bare_id() -> None:
    async with stage() as on:
        for name in ("main", "other"):
            await on.session(name, webhooks=[on.webhook("message.any")])
        other = (await on.get("/api/sessions/other"))["me"]["id"]
        await on.send("hello, me", other)
        assert await on.phone.wait_idle()
        seen = {event["session"]: event["payload"] for event in on.hook.events()}
        assert seen["main"]["fromMe"]
        assert not seen["other"]["fromMe"]
        assert seen["main"]["id"].split("_")[2] == seen["other"]["id"].split("_")[2]


async def test_who_stops_in_mid_delivery_stops_at_once() -> None:
    async with stage() as on:
        await on.session(webhooks=[on.webhook("message.any")])
        on.hook.gate.clear()
        await on.phone.say("main", CUSTOMER, "hi")
        await on.hook.wait(1)
        async with asyncio.timeout(5):
            await on.waha.stop()
