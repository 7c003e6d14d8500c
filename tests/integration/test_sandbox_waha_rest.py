"""The sandbox's REST answers as WAHA's does, engine by engine."""

import base64
import struct
from typing import Any

import pytest

from wahastage import stage
from wsm.core.errors import BadInput
from wsm.sandbox.waha import Tempo

CUSTOMER = "5511977776666"
CHAT = f"{CUSTOMER}@c.us"
ENGINES = ("WEBJS", "WPP", "NOWEB", "GOWS")
STORE = {"noweb": {"store": {"enabled": True, "fullSync": False}}}


async def test_without_the_key_there_is_a_401_but_for_ping() -> None:
    async with stage() as on:
        on.api.headers.pop("X-Api-Key")
        assert (await on.api.get("/ping")).json() == {"message": "pong"}
        for path in ("/api/sessions", "/health", "/api/server/version"):
            refused = await on.api.get(path, headers={"X-Api-Key": "wrong"})
            assert refused.status_code == 401
            assert refused.json() == {"message": "Unauthorized", "statusCode": 401}
        assert (await on.api.get("/health", params={"x-api-key": on.waha.api_key})).json()["status"] == "ok"


async def test_a_changed_start_reveals_a_restart() -> None:
    async with stage() as on:
        before = await on.get("/api/server/status")
        await on.phone.kill()
        after = await on.get("/api/server/status")
        assert after["startTimestamp"] > before["startTimestamp"]
        assert (await on.get("/api/server/version"))["engine"] == "GOWS"


@pytest.mark.parametrize("engine", ENGINES)
async def test_no_two_engines_answer_a_send_alike_and_the_bare_id_is_in_each(engine: str) -> None:
    async with stage(engine=engine) as on:
        await on.session()
        response = await on.send("Custa R$ 10", id="3EB0AAAAAAAAAAAAAAAAAA")
        assert response.status_code == 201
        body = response.json()
        match engine:
            case "GOWS":
                assert set(body) == {"id", "_data"}
                bare = body["id"].split("_")[2]
            case "NOWEB":
                assert "id" not in body
                assert body["key"]["remoteJid"] == f"{CUSTOMER}@s.whatsapp.net"
                bare = body["key"]["id"]
            case "WEBJS":
                assert body["id"]["_serialized"] == f"true_{CHAT}_{body['id']['id']}"
                bare = body["id"]["id"]
            case _:
                assert body["from"] == (await on.get("/api/sessions/main"))["me"]["id"]
                bare = body["id"].split("_")[2]
        assert (bare == "3EB0AAAAAAAAAAAAAAAAAA") is (engine in {"NOWEB", "GOWS"})
        assert await on.phone.wait_idle()
        (received,) = await on.phone.inbox(CUSTOMER)
        assert (received["id"], received["text"], received["source"]) == (bare, "Custa R$ 10", "api")
        (echo,) = on.hook.events("message.any")
        assert echo["payload"]["id"] == f"true_{CHAT}_{bare}"
        acks = sorted(event["payload"]["ack"] for event in on.hook.events("message.ack"))
        assert acks == [1, 2]


async def test_a_used_id_is_sent_again_and_the_phone_shows_it_twice() -> None:
    async with stage() as on:
        await on.session()
        for _ in range(2):
            assert (await on.send("again", id="3EB0AAAAAAAAAAAAAAAAAA")).status_code == 201
        assert [got["id"] for got in await on.phone.inbox(CUSTOMER)] == ["3EB0AAAAAAAAAAAAAAAAAA"] * 2


async def test_a_missing_field_is_a_500_that_echoes_the_request_and_an_empty_text_is_sent() -> None:
    async with stage() as on:
        await on.session()
        for missing in ("text", "chatId"):
            body = {"session": "main", "chatId": CHAT, "text": "secret"}
            del body[missing]
            failed = await on.post("/api/sendText", 500, **body)
            assert failed["request"] == {"path": "/api/sendText", "method": "POST", "body": body, "query": {}}
            assert failed["exception"]["stack"].startswith("Error: Cannot read properties")
            assert failed["statusCode"] == 500
        assert (await on.post("/api/sendText", 400, chatId=CHAT, text="x"))["statusCode"] == 400
        assert (await on.send("")).status_code == 201


async def test_a_session_that_does_not_work_refuses_a_send_only_after_the_wait() -> None:
    async with stage(auto_scan=False, tempo=Tempo(waits=0.02)) as on:
        unknown = await on.post("/api/sendText", 422, session="none", chatId=CHAT, text="x")
        assert set(unknown) == {"error", "session"}
        await on.post("/api/sessions", name="main", start=True)
        waiting = (await on.send("x")).json()
        assert waiting["status"] == "SCAN_QR_CODE"
        assert waiting["expected"] == ["WORKING"]
        assert "statusCode" not in waiting
        assert not await on.phone.inbox(CUSTOMER)


async def test_a_send_waits_for_a_session_that_is_starting() -> None:
    async with stage(tempo=Tempo(waits=0.05)) as on:
        await on.post("/api/sessions", name="main", start=True)
        assert (await on.send("as soon as it works")).status_code == 201


@pytest.mark.parametrize("engine", ENGINES)
async def test_new_message_ids_are_made_by_noweb_and_gows_alone(engine: str) -> None:
    async with stage(engine=engine) as on:
        await on.session(webhooks=[])
        if engine in {"NOWEB", "GOWS"}:
            assert (await on.get("/api/main/new-message-id"))["id"].startswith("3EB0")
        else:
            assert (await on.get("/api/main/new-message-id", 501))["statusCode"] == 501


async def test_a_waha_of_before_knows_no_new_message_ids_and_starts_nothing_twice() -> None:
    async with stage(engine="NOWEB", version="2026.2.1") as on:
        await on.session(webhooks=[])
        await on.get("/api/main/new-message-id", 404)
        await on.post("/api/sessions/main/start", 422)


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_message_is_found_with_its_latest_ack(engine: str) -> None:
    async with stage(engine=engine) as on:
        await on.session(webhooks=[], config=STORE)
        await on.send("find me")
        assert await on.phone.wait_idle()
        (received,) = await on.phone.inbox(CUSTOMER)
        full = f"true_{CHAT}_{received['id']}"
        await on.phone.ack("main", received["id"], 3)
        found = await on.get(f"/api/main/chats/{CHAT.replace('@', '%40')}/messages/{full}")
        assert (found["id"], found["ack"], found["ackName"]) == (full, 3, "READ")
        bare_in_all = f"/api/main/chats/all/messages/{received['id']}"
        assert (await on.api.get(bare_in_all)).status_code == (200 if engine in {"NOWEB", "GOWS"} else 404)
        bare_in_chat = f"/api/main/chats/{CHAT}/messages/{received['id']}"
        assert (await on.api.get(bare_in_chat)).status_code == (200 if engine in {"NOWEB", "GOWS"} else 404)
        missing = await on.get(f"/api/main/chats/{CHAT}/messages/true_{CHAT}_3EB0", 404)
        assert missing == {"message": "Message not found", "error": "Not Found", "statusCode": 404}


async def test_noweb_without_its_store_looks_nothing_up() -> None:
    async with stage(engine="NOWEB") as on:
        await on.session(webhooks=[])
        for path in (
            *("chats/overview", "chats/all/messages", f"chats/{CHAT}/messages", "chats/all/messages/3EB0"),
            *("lids", "lids/count"),
        ):
            refused = await on.get(f"/api/main/{path}", 400)
            assert refused["message"].startswith("Enable NOWEB store")


async def test_the_list_is_filtered_cut_and_newest_first() -> None:
    async with stage() as on:
        await on.session(webhooks=[])
        for number in range(5):
            at = 1_795_000_000_000 + number * 1000
            await on.phone.say("main", CUSTOMER, f"in {number}", timestamp_ms=at)
        await on.phone.say("main", CUSTOMER, "hidden", as_lid=True, timestamp_ms=1_795_000_009_000)
        await on.phone.say("main", "5511933332222", "another chat")
        await on.send("out")
        assert await on.phone.wait_idle()

        async def bodies(**query: Any) -> list[str]:
            path = f"/api/main/chats/{CHAT}/messages"
            return [said["body"] for said in await on.get(path, query={"downloadMedia": "false", **query})]

        assert await bodies() == ["out", "hidden", "in 4", "in 3", "in 2", "in 1", "in 0"]
        assert await bodies(limit=2, offset=1) == ["hidden", "in 4"]
        assert await bodies(sortOrder="asc", limit=1) == ["in 0"]
        assert await bodies(merge="false", limit=2) == ["out", "in 4"]
        assert await bodies(**{"filter.fromMe": "true"}) == ["out"]
        window = {"filter.timestamp.gte": 1_795_000_001, "filter.timestamp.lte": 1_795_000_003}
        assert await bodies(**window) == ["in 3", "in 2", "in 1"]
        assert await bodies(**{"filter.ack": "DEVICE"}, limit=1) == ["out"]
        await on.get(f"/api/main/chats/{CHAT}/messages", 400, {"limit": "many"})


@pytest.mark.parametrize("engine", ENGINES)
async def test_what_was_said_in_all_chats_is_one_list_where_there_is_no_browser(engine: str) -> None:
    async with stage(engine=engine) as on:
        await on.session(webhooks=[], config=STORE)
        await on.phone.say("main", CUSTOMER, "second", timestamp_ms=1_795_000_002_000)
        await on.phone.say("main", "5511933332222", "first", timestamp_ms=1_795_000_001_000, as_lid=True)
        query = {"sortOrder": "asc", "downloadMedia": "false"}
        if engine in {"NOWEB", "GOWS"}:
            said = await on.get("/api/main/chats/all/messages", query=query)
            assert [each["body"] for each in said] == ["first", "second"]
        else:
            refused = await on.get("/api/main/chats/all/messages", 501, query)
            assert refused["message"] == f"Can not get messages from 'all' in {engine}"


@pytest.mark.parametrize("engine", ENGINES)
async def test_chats_are_listed_by_their_last_messages_a_person_once(engine: str) -> None:
    async with stage(engine=engine) as on:
        await on.session(webhooks=[], config=STORE)
        for number, (phone, as_lid) in enumerate(
            [(CUSTOMER, False), ("5511933332222", False), (CUSTOMER, True), ("5511944443333", False)]
        ):
            at = 1_795_000_000_000 + number * 1000
            await on.phone.say("main", phone, f"in {number}", timestamp_ms=at, as_lid=as_lid)
        listed = await on.get("/api/main/chats/overview")
        assert [each["lastMessage"]["body"] for each in listed] == ["in 3", "in 2", "in 1"]
        assert listed[1]["id"] == f"9{CUSTOMER}@lid"
        assert len(await on.get("/api/main/chats/overview", query={"merge": "false"})) == 4
        cut = await on.get("/api/main/chats/overview", query={"limit": 1, "offset": 1})
        assert [each["lastMessage"]["body"] for each in cut] == ["in 2"]


async def test_a_message_whose_webhook_is_lost_is_there_and_nobody_is_told() -> None:
    async with stage() as on:
        await on.session()
        before = len(on.hook.got)
        await on.phone.say("main", CUSTOMER, "lost", told=False)
        await on.phone.say("main", CUSTOMER, "a lost picture", media=True, told=False)
        await on.phone.set_acks([])
        await on.phone.type_as_agent("main", CUSTOMER, "lost, too", told=False)
        assert await on.phone.wait_idle()
        assert len(on.hook.got) == before
        said = await on.get(f"/api/main/chats/{CHAT}/messages")
        assert {each["body"] for each in said} == {"lost", "a lost picture", "lost, too"}
        assert [each["text"] for each in await on.phone.inbox(CUSTOMER)] == ["lost, too"]


async def test_people_are_found_by_phone_and_hidden_id() -> None:
    async with stage() as on:
        await on.session(webhooks=[])
        assert await on.get("/api/main/lids/count") == {"count": 0}
        await on.phone.say("main", CUSTOMER, "hi", as_lid=True)
        assert await on.get("/api/main/lids") == [{"lid": f"9{CUSTOMER}@lid", "pn": CHAT}]
        assert await on.get(f"/api/main/lids/9{CUSTOMER}@lid") == {"lid": f"9{CUSTOMER}@lid", "pn": CHAT}
        assert (await on.get(f"/api/main/lids/pn/{CUSTOMER}"))["lid"] == f"9{CUSTOMER}@lid"
        assert (await on.get("/api/main/lids/pn/5511900000001"))["lid"] is None
        exists = await on.get(
            "/api/contacts/check-exists", query={"session": "main", "phone": f"+{CUSTOMER}"}
        )
        assert exists == {"numberExists": True, "chatId": CHAT}
        nobody = await on.get("/api/contacts/check-exists", query={"session": "main", "phone": "nobody"})
        assert nobody == {"numberExists": False}


async def test_seen_and_typing_are_seen_by_the_customer() -> None:
    async with stage() as on:
        await on.session(webhooks=[])
        for call in ("sendSeen", "startTyping", "stopTyping"):
            await on.post(f"/api/{call}", session="main", chatId=CHAT)
        await on.post("/api/main/presence", presence="recording", chatId=CHAT)
        await on.post("/api/main/presence", presence="online")
        kinds = [signal["kind"] for signal in await on.phone.signals(CUSTOMER)]
        assert kinds == ["seen", "typing", "paused", "recording"]
        await on.post("/api/main/presence", 400, presence="typing")
        await on.post("/api/main/presence", 400, presence="online", chatId=CHAT)
        await on.post("/api/main/presence", 400, presence="asleep")


async def test_a_reply_names_what_it_answers() -> None:
    async with stage() as on:
        await on.session()
        bare = await on.phone.say("main", CUSTOMER, "quanto custa?")
        await on.send("R$ 10", reply_to=f"false_{CHAT}_{bare}")
        assert await on.phone.wait_idle()
        (reply,) = [event for event in on.hook.events("message.any") if event["payload"]["fromMe"]]
        assert reply["payload"]["replyTo"]["id"] == bare
        assert reply["payload"]["replyTo"]["body"] == "quanto custa?"


async def test_a_configuration_is_answered_verbatim_replaced_whole_and_cleaned_of_unknown_keys() -> None:
    async with stage() as on:
        proxy = {"server": "127.0.0.1:3128", "username": "exit", "password": "secret"}
        await on.session(config={"proxy": {**proxy, "scheme": "http"}, "proxi": proxy})
        config = (await on.get("/api/sessions/main"))["config"]
        assert config == {"proxy": proxy, "webhooks": [on.webhook()]}
        replaced = await on.api.put("/api/sessions/main", json={"config": {"metadata": {"a": "1"}}})
        assert replaced.json()["config"] == {"metadata": {"a": "1"}}
        assert await on.phone.wait_idle()
        assert await on.status() == "WORKING"
        assert "config" not in (await on.api.put("/api/sessions/main", json={})).json()
        assert (await on.api.put("/api/sessions/none", json={})).status_code == 404


@pytest.mark.parametrize(
    "hook",
    [
        {"url": "ftp://host/", "events": []},
        {"url": "http://host/", "events": ["mesage"]},
        {"url": "http://host/"},
        {"url": "http://host/", "events": [], "retries": {"policy": "sometimes"}},
    ],
)
async def test_a_webhook_that_cannot_be_is_refused(hook: dict[str, object]) -> None:
    async with stage() as on:
        refused = await on.post("/api/sessions", 400, name="main", config={"webhooks": [hook]})
        assert refused["error"] == "Bad Request"
        assert await on.get("/api/sessions", query={"all": "true"}) == []


async def test_sessions_are_made_once_and_what_is_not_there_is_stopped_and_deleted_all_the_same() -> None:
    async with stage() as on:
        made = await on.post("/api/sessions", name="main")
        assert made["status"] == "STOPPED"
        assert "config" not in made
        await on.post("/api/sessions", 422, name="main")
        await on.post("/api/sessions", 400, name="no name/like this")
        named = await on.post("/api/sessions")
        assert named["name"].startswith("session_")
        assert await on.get("/api/sessions") == []
        assert len(await on.get("/api/sessions", query={"all": "true"})) == 2
        assert await on.post("/api/sessions/none/stop") is None
        for _ in range(2):
            assert (await on.api.delete("/api/sessions/main")).status_code == 200
        for path in ("start", "restart", "logout"):
            await on.post(f"/api/sessions/none/{path}", 404)
        await on.get("/api/sessions/main", 404)
        await on.get("/api/sessions/main/me", 404)
        await on.get("/api/nothing/of/this", 404)


async def test_the_code_is_a_picture_a_text_or_both_and_only_while_it_is_shown() -> None:
    async with stage(auto_scan=False) as on:
        await on.post("/api/sessions", name="main", start=True)
        picture = await on.api.get("/api/main/auth/qr")
        assert picture.headers["content-type"] == "image/png"
        assert picture.content.startswith(b"\x89PNG\r\n\x1a\n")
        assert struct.unpack(">II", picture.content[16:24]) == (29, 29)
        described = (await on.api.get("/api/main/auth/qr", headers={"Accept": "application/json"})).json()
        assert base64.b64decode(described["data"]) == picture.content
        assert (await on.get("/api/main/auth/qr", query={"format": "raw"}))["value"].startswith("2@")
        await on.phone.scan("main", phone=CUSTOMER)
        assert await on.phone.wait_idle()
        assert (await on.get("/api/sessions/main/me"))["id"] == CHAT
        refused = await on.get("/api/main/auth/qr", 422)
        assert refused["expected"] == ["SCAN_QR_CODE"]
        await on.get("/api/none/auth/qr", 422)


async def test_who_waits_too_long_for_the_lock_of_a_session_gets_a_500() -> None:
    async with stage() as on:
        await on.session(webhooks=[])
        async with on.waha.lifecycle.alone("main"):
            refused = await on.post("/api/sessions/main/stop", 500)
        assert refused["exception"]["message"] == "async-lock timed out in queue main"


async def test_a_code_to_type_is_given_for_a_number_while_a_login_is_asked_for() -> None:
    async with stage(auto_scan=False, tempo=Tempo(waits=0.02, retries=0.01)) as on:
        await on.post("/api/sessions", name="main")
        await on.post("/api/main/auth/request-code", status=422, phoneNumber="5511960001234")
        await on.post("/api/sessions/main/start")
        for wrong in ({}, {"phoneNumber": "ana"}, {"phoneNumber": 5511960001234}):
            assert (await on.post("/api/main/auth/request-code", status=400, **wrong))["statusCode"] == 400
        code = (await on.post("/api/main/auth/request-code", phoneNumber="5511960001234"))["code"]
        with pytest.raises(BadInput, match="code"):
            await on.phone.enter_code("main", "AAAA-AAAA")
        assert await on.phone.enter_code("main", code) == "5511960001234"
        assert await on.phone.wait_idle()
        assert (await on.get("/api/sessions/main"))["me"]["id"] == "5511960001234@c.us"
        await on.post("/api/main/auth/request-code", status=422, phoneNumber="5511960001234")


async def test_noweb_takes_no_method_for_its_code_and_no_other_engine_than_gows_has_passkeys() -> None:
    async with stage(engine="NOWEB", auto_scan=False, tempo=Tempo(waits=0.1, retries=0.01)) as on:
        await on.post("/api/sessions", name="main", start=True)
        asked = {"phoneNumber": "5511960001234", "method": "sms"}
        await on.post("/api/main/auth/request-code", status=422, **asked)
        await on.post("/api/main/auth/request-code", phoneNumber="5511960001234")
        with pytest.raises(BadInput, match="GOWS"):
            await on.phone.scan("main", passkey=True)
        for path in ("challenge", "confirmation"):
            await on.get(f"/api/main/auth/passkey/{path}", status=422)
        await on.post("/api/main/auth/passkey/confirm", status=422)
        await on.post("/api/main/auth/passkey", status=400, id="a")
