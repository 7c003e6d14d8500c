"""The sandbox sends what WAHA sends: every kind, on every engine, with what follows and what goes wrong."""

import base64
import hashlib
from typing import Any, Final

import pytest

from receiver import Receiver
from wahastage import ACTS, BYTES, CARD, KINDS, Stage, stage
from wsm.core.errors import BadInput

CUSTOMER = "5511977776666"
CHAT = f"{CUSTOMER}@c.us"
STRANGER = "5511933332222"
STORE: Final = {"noweb": {"store": {"enabled": True}}}
ENGINES: Final = ["WEBJS", "WPP", "NOWEB", "GOWS"]
TAKES_IDS: Final = {"NOWEB", "GOWS"}
MEDIA: Final = ("sendImage", "sendFile", "sendVoice", "sendVideo")


def bare_of(engine: str, answer: Any) -> str:
    """Find the bare id in an answer as the contract says."""
    if isinstance(answer.get("id"), str):
        return str(answer["id"].split("_")[2])
    return str(answer["key"]["id"] if engine == "NOWEB" else answer["id"]["id"])


def own(on: Stage, event: str, **payload: Any) -> list[Any]:
    """Return the payloads of own events that have these values."""
    said = [body["payload"] for body in on.hook.events(event)]
    return [each for each in said if all(each.get(key) == value for key, value in payload.items())]


@pytest.mark.parametrize("engine", ENGINES)
async def test_every_kind_leaves_arrives_is_echoed_and_is_found(
    engine: str,
) -> None:
    async with stage(engine=engine) as on:
        await on.session(webhooks=[on.webhook("*")], config=STORE)
        asked = await on.phone.say("main", CUSTOMER, "mande tudo")
        sent = {}
        for what in KINDS:
            answer = await on.give(what, reply_to=f"false_{CHAT}_{asked}")
            assert answer.status_code == 201, answer.text
            sent[what] = bare_of(engine, answer.json())
        assert await on.phone.wait_idle()

        got = {each["id"]: each for each in await on.phone.inbox(CUSTOMER)}
        assert [got[sent[what]]["kind"] for what in KINDS] == [
            "text", "image", "file", "voice", "video", "location", "contact", "poll",
        ]  # fmt: skip
        assert {each["reply_to"] for each in got.values()} == {f"false_{CHAT}_{asked}"}
        for what in MEDIA:
            file = got[sent[what]]["media"]
            assert (file["sha256"], file["size"]) == (hashlib.sha256(BYTES).hexdigest(), len(BYTES))
        assert got[sent["sendImage"]]["text"] == "olha"
        assert got[sent["sendImage"]]["media"]["mimetype"] == "image/png"
        assert got[sent["sendFile"]]["media"]["filename"] == "a.pdf"
        voice = got[sent["sendVoice"]]["media"]
        assert (voice["mimetype"], voice["converted"]) == ("audio/ogg; codecs=opus", True)
        assert got[sent["sendVideo"]]["media"]["note"] is True
        assert got[sent["sendLocation"]]["location"] == {
            "latitude": -23.5,
            "longitude": -46.6,
            "title": "Loja",
        }
        assert got[sent["sendContactVcard"]]["vcards"] == [CARD]
        assert got[sent["sendPoll"]]["poll"]["options"] == ["azul", "verde"]

        echoes = {
            each["id"].split("_")[2]: each for each in own(on, "message.any", fromMe=True, source="api")
        }
        assert set(echoes) == set(sent.values())
        for what, bare in sent.items():
            assert echoes[bare]["hasMedia"] is (what in MEDIA)
            found = await on.get(f"/api/main/chats/{CHAT}/messages/true_{CHAT}_{bare}")
            assert (found["body"], found["hasMedia"]) == (echoes[bare]["body"], what in MEDIA)
            assert found["ack"] == 2
        assert echoes[sent["sendImage"]]["body"] == "olha"
        assert echoes[sent["sendLocation"]]["location"]["latitude"] == "-23.5"
        assert echoes[sent["sendContactVcard"]]["vCards"] == [CARD]
        served = await on.api.get(echoes[sent["sendFile"]]["media"]["url"])
        assert (served.content, served.headers["content-type"]) == (BYTES, "application/pdf")


@pytest.mark.parametrize("engine", ENGINES)
async def test_acts_reach_the_customer_and_are_echoed(
    engine: str,
) -> None:
    async with stage(engine=engine) as on:
        await on.session(webhooks=[on.webhook("*")], config=STORE)
        said = await on.phone.say("main", CUSTOMER, "oi")
        sent = bare_of(engine, (await on.send("velho")).json())
        for what, full in (("edit", f"true_{CHAT}_{sent}"), ("reaction", f"false_{CHAT}_{said}")):
            answer = await on.act(what, full)
            assert answer.status_code == 200, answer.text
        deleted = await on.act("delete", f"true_{CHAT}_{sent}")
        assert deleted.status_code == 200
        if engine in TAKES_IDS:  # The act is a message of its own.
            assert bare_of(engine, deleted.json()) not in {sent, said}
        assert await on.phone.wait_idle()

        screen = await on.phone.screen(CUSTOMER)
        (entry,) = screen["inbox"]
        assert (entry["text"], entry["edits"], entry["deleted"]) == ("novo", ["velho"], True)
        acts = [(each["kind"], each["target"], each["text"]) for each in screen["acts"]]
        assert acts == [("edit", sent, "novo"), ("reaction", said, "👍"), ("revoke", sent, "")]
        assert [each["what"] for each in screen["timeline"]] == ["text", "edit", "reaction", "revoke"]

        (edited,) = own(on, "message.edited", fromMe=True, source="api")
        assert (edited["editedMessageId"], edited["body"]) == (sent, "novo")
        (reacted,) = own(on, "message.reaction", fromMe=True)
        assert reacted["reaction"] == {"text": "👍", "messageId": f"false_{CHAT}_{said}"}
        (revoked,) = own(on, "message.revoked", revokedMessageId=sent)
        assert revoked["after"]["fromMe"] is True
        await on.phone.ack("main", sent, 3)
        found = await on.get(f"/api/main/chats/{CHAT}/messages/true_{CHAT}_{sent}")
        assert (found["body"], found["ack"]) == ("novo", 3)


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_chosen_id_is_taken_where_the_engine_takes_it_and_of_media_where_it_is_so_chosen(
    engine: str,
) -> None:
    async with stage(engine=engine) as on:
        await on.session(webhooks=[])
        chosen: dict[str, int] = {}
        for taken in (False, True):
            await on.phone.set_media_ids(taken=taken)
            for number, what in enumerate(KINDS):
                bare = f"3EB0{number:018X}"
                for _ in range(2):  # A used id is sent again.
                    answer = await on.give(what, id=bare)
                    chosen[what] = chosen.get(what, 0) + (bare_of(engine, answer.json()) == bare)
        ids = [each["id"] for each in await on.phone.inbox(CUSTOMER)]
        assert len(ids) == 4 * len(KINDS)
        for number, what in enumerate(KINDS):
            expected = (2 if what in MEDIA else 4) if engine in TAKES_IDS else 0
            assert chosen[what] == expected, what
            assert ids.count(f"3EB0{number:018X}") == expected, what


async def test_an_ack_that_comes_after_an_edit_does_not_bring_the_old_text_back() -> None:
    async with stage() as on:
        await on.session(webhooks=[])
        await on.phone.mute("main", "answer")  # everything waits, the acks for what is before them
        sent = (await on.send("velho")).json()["id"]
        await on.act("edit", sent)
        await on.phone.unmute("main")
        assert await on.phone.wait_idle()
        found = await on.get(f"/api/main/chats/{CHAT}/messages/{sent}")
        assert (found["body"], found["ack"]) == ("novo", 2)


async def test_seen_typing_and_a_message_are_seen_in_their_order() -> None:
    async with stage() as on:
        await on.session(webhooks=[])
        said = await on.phone.say("main", CUSTOMER, "oi")
        await on.post("/api/sendSeen", session="main", chatId=CHAT, messageIds=[f"false_{CHAT}_{said}"])
        for what in ("startTyping", "stopTyping"):
            await on.post(f"/api/{what}", session="main", chatId=CHAT)
        await on.give("sendImage")
        screen = await on.phone.screen(CUSTOMER)
        assert [each["what"] for each in screen["timeline"]] == ["seen", "typing", "paused", "image"]
        times = [each["at_ms"] for each in screen["timeline"]]
        assert times == sorted(times)
        assert screen["signals"][0]["ids"] == [f"false_{CHAT}_{said}"]


@pytest.mark.parametrize("engine", ENGINES)
async def test_what_is_not_known_is_sent_all_the_same_or_fails(engine: str) -> None:
    async with stage(engine=engine) as on:
        await on.session(webhooks=[on.webhook("message.revoked", "message.edited", "message.reaction")])
        for what in ACTS:
            answer = await on.act(what, f"true_{CHAT}_3EB0UNKNOWN")
            assert answer.status_code == (200 if engine in TAKES_IDS else 500), what
            bare = await on.act(what, "3EB0UNKNOWN")
            assert bare.status_code == (200 if (engine, what) == ("GOWS", "edit") else 500), what
        assert await on.phone.wait_idle()
        assert not await on.phone.inbox(CUSTOMER)
        seen = [each["kind"] for each in (await on.phone.screen(CUSTOMER))["acts"]]
        expected = {"GOWS": ["reaction", "edit", "edit", "revoke"], "NOWEB": ["reaction", "edit", "revoke"]}
        assert seen == expected.get(engine, [])


@pytest.mark.parametrize(
    ("engine", "what", "wrong", "status", "text"),
    [
        ("GOWS", "sendImage", {"file": None}, 500, "Cannot use 'in' operator"),
        ("GOWS", "sendImage", {"file": {"mimetype": "image/png"}}, 500, "must be of type string"),
        ("NOWEB", "sendFile", {"file": {"mimetype": "image/png"}}, 422, 'Either \\"file.url\\"'),
        ("GOWS", "sendFile", {"file": {"url": "http://127.0.0.1:1/a"}}, 500, "fetch of the file failed"),
        ("NOWEB", "sendLocation", {"latitude": "north"}, 500, "number expected"),
        ("GOWS", "sendContactVcard", {"contacts": None}, 500, "Cannot read properties"),
        ("GOWS", "sendContactVcard", {"contacts": ["Ana"]}, 500, "Cannot read properties"),
        ("WEBJS", "sendPoll", {"poll": {"name": "Cor?"}}, 500, "Cannot read properties"),
        ("GOWS", "sendPoll", {"session": ""}, 400, "session is required"),
        ("GOWS", "sendVoice", {"session": "none"}, 422, "didn't find a session"),
        ("WPP", "sendVideo", {"chatId": None}, 500, "Cannot read properties"),
    ],
)
async def test_what_cannot_be_sent_is_refused_as_waha_refuses_it(
    engine: str, what: str, wrong: dict[str, Any], status: int, text: str
) -> None:
    async with stage(engine=engine) as on:
        await on.session(webhooks=[])
        answer = await on.give(what, **wrong)
        assert (answer.status_code, text in answer.text) == (status, True), answer.text
        assert not await on.phone.inbox(CUSTOMER)


async def test_media_are_no_part_of_an_old_core() -> None:
    async with stage(engine="NOWEB", version="2026.2.1") as on:
        await on.session(webhooks=[])
        refused = await on.give("sendImage")
        assert refused.status_code == 422
        assert "only in Plus version" in refused.text
        assert (await on.give("sendLocation")).status_code == 201


async def test_a_file_is_fetched_by_waha_itself_or_decoded_as_leniently_as_node_does() -> None:
    async with stage() as on, Receiver() as page:
        await on.session(webhooks=[])
        await on.give("sendFile", file={"mimetype": "text/plain", "url": page.url})
        lenient = base64.urlsafe_b64encode(BYTES).decode().rstrip("=")
        await on.give("sendFile", file={"mimetype": "image/png", "data": f"{lenient[:5]}\n{lenient[5:]}"})
        fetched, decoded = await on.phone.inbox(CUSTOMER)
        assert page.got[0].method == "GET"
        assert fetched["media"]["mimetype"] == "text/plain"
        assert decoded["media"]["sha256"] == hashlib.sha256(BYTES).hexdigest()


@pytest.mark.parametrize(
    ("kind", "more", "status", "text", "arrives"),
    [
        ("fail_before", {}, 500, "info query timed out", False),
        ("fail_after", {}, 500, "info query timed out", True),
        ("fail_then_send", {"seconds": 0.02}, 500, "Maximum execution time", True),
        ("error_463", {}, 500, "2 UNKNOWN: server returned error 463", False),
        ("rate_overlimit", {}, 500, "rate-overlimit", False),
        ("too_many", {}, 429, "Too Many Requests", False),
        ("too_many", {"retry_after": "17"}, 429, "Too Many Requests", False),
        ("not_implemented", {}, 501, "is not implemented by", False),
        ("hang", {"seconds": 0.02}, None, "", True),
        ("error_ack", {}, None, "", False),
    ],
)
async def test_everything_that_is_sent_can_go_wrong(
    kind: str, more: dict[str, Any], status: int | None, text: str, arrives: bool
) -> None:
    async with stage() as on:
        await on.session(webhooks=[on.webhook("message.ack")])
        await on.phone.set_acks([])
        said = await on.phone.say("main", CUSTOMER, "oi")
        for what in (*KINDS, *ACTS):
            before = len((await on.phone.screen(CUSTOMER))["timeline"])
            await on.phone.fault(kind, call=what, **more)
            answer = await (on.give(what) if what in KINDS else on.act(what, f"false_{CHAT}_{said}"))
            assert answer.status_code == (status or (201 if what in KINDS else 200)), what
            assert text in answer.text
            assert answer.headers.get("retry-after") == more.get("retry_after")
            assert await on.phone.wait_idle()
            assert (len((await on.phone.screen(CUSTOMER))["timeline"]) > before) is arrives, what
        failed = own(on, "message.ack", ack=-1, ackName="ERROR")
        assert len(failed) == (len(KINDS) + len(ACTS) if kind == "error_ack" else 0)
        assert not any("error" in each for each in failed)


async def test_seen_and_typing_go_wrong_by_name_alone() -> None:
    async with stage() as on:
        await on.session(webhooks=[])
        await on.phone.fault("fail_before")
        await on.phone.fault("fail_before", call="startTyping")
        await on.post("/api/sendSeen", session="main", chatId=CHAT)
        await on.post("/api/startTyping", 500, session="main", chatId=CHAT)
        assert (await on.send("x")).status_code == 500


async def test_an_error_ack_tells_why_as_newer_versions_do() -> None:
    error = {
        "code": "463",
        "blocked": True,
        "reason": "account_restricted",
        "until": "2026-12-01T00:00:00.000Z",
    }
    async with stage() as on:
        await on.session(webhooks=[on.webhook("message.any", "message.ack")])
        await on.phone.fault("error_ack", error=error)
        sent = bare_of("GOWS", (await on.send("frio")).json())
        assert await on.phone.wait_idle()
        (failed,) = own(on, "message.ack", ack=-1)
        assert (failed["id"], failed["error"]) == (f"true_{CHAT}_{sent}", error)
        assert len(own(on, "message.any", id=f"true_{CHAT}_{sent}")) == 1
        assert (await on.get(f"/api/main/chats/all/messages/{sent}"))["ackName"] == "ERROR"
        await on.phone.ack("main", sent, -1, error={"code": None, "blocked": False})
        assert await on.phone.wait_idle()
        assert own(on, "message.ack", error={"code": None, "blocked": False})
        with pytest.raises(BadInput, match="error"):
            await on.phone.ack("main", sent, -1, error={"codex": "463"})


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_restricted_account_is_told_begins_no_chat_and_goes_on_in_those_that_are_there(
    engine: str,
) -> None:
    async with stage(engine=engine) as on:
        await on.session(webhooks=[on.webhook("session.status", "message.ack")])
        await on.phone.say("main", CUSTOMER, "oi")
        await on.phone.restrict("main", until=1_800_000_000)
        cold, warm = await on.send("frio", f"{STRANGER}@c.us"), await on.send("quente")
        assert warm.status_code == 201
        at_once = engine == "GOWS"
        assert (cold.status_code, "error 463" in cold.text) == (500 if at_once else 201, at_once)
        assert await on.phone.wait_idle()
        assert not await on.phone.inbox(STRANGER)
        failed = own(on, "message.ack", ack=-1)
        assert len(failed) == (not at_once)
        assert [each["error"]["until"] for each in failed if "error" in each] == (
            ["2027-01-15T08:00:00.000Z"] if engine == "NOWEB" else []
        )
        await on.phone.drop("main")
        assert await on.phone.wait_idle()
        await on.phone.lift("main")
        assert (await on.send("frio", f"{STRANGER}@c.us")).status_code == 201
        assert await on.phone.wait_idle()
        told = [each["data"] for each in own(on, "session.status", status="WORKING")]
        locks = [data and data["reachoutTimelock"]["isActive"] for data in told]
        assert locks == [None, True, True, False]
        lock = {"enforcementType": "DEFAULT", "isActive": True, "timeEnforcementEnds": 1_800_000_000}
        assert told[1] == {"reachoutTimelock": lock}
        with pytest.raises(BadInput, match="restricted"):
            await on.phone.lift("main")


async def test_inboxes_keep_what_they_have_when_waha_is_started_again(tmp_path: Any) -> None:
    options = {"state_file": tmp_path / "state"}
    async with stage(**options) as on:
        await on.session(webhooks=[])
        for what in KINDS:
            await on.give(what)
        sent = (await on.send("velho")).json()["id"]
        for what in ACTS:
            await on.act(what, sent)
        before = await on.phone.screen(CUSTOMER)
    async with stage(**options) as on:
        after = await on.phone.screen(CUSTOMER)
    assert [before[key] for key in ("inbox", "acts", "timeline")] == [
        after[key] for key in ("inbox", "acts", "timeline")
    ]
