"""Sessions go through their statuses as they were seen to on each engine."""

import asyncio
import signal
import sys
from pathlib import Path

import httpx
import pytest

from wahastage import Stage, stage
from waiting import wait_for
from wsm.sandbox.waha import Engine, Tempo
from wsm.sandbox.waha.control import Phone

CUSTOMER = "5511977776666"
SLOWER = Tempo(waits=0.1, retries=0.01)
SERVE = """
import asyncio, sys
from pathlib import Path
from wsm.sandbox.waha import serve
asyncio.run(serve("127.0.0.1", 0, state_file=Path(sys.argv[1]), opened=lambda url: print(url, flush=True)))
"""


async def told(on: Stage) -> list[str]:
    assert await on.phone.wait_idle()
    return on.hook.statuses()


@pytest.mark.parametrize(
    ("engine", "statuses"),
    [
        ("NOWEB", ["STARTING", "SCAN_QR_CODE", "STARTING", "WORKING"]),
        ("GOWS", ["STARTING", "SCAN_QR_CODE", "WORKING"]),
        ("WEBJS", ["STARTING", "SCAN_QR_CODE", "WORKING"]),
    ],
)
async def test_pairing(engine: str, statuses: list[str]) -> None:
    async with stage(engine=engine, tempo=SLOWER) as on:
        await on.session()
        assert await told(on) == statuses
        last = max(on.hook.events("session.status"), key=lambda event: event["timestamp"])
        assert [point["status"] for point in last["payload"]["statuses"]] == statuses[-3:]


async def test_before_the_login_nobody_is_me() -> None:
    for engine, missing in (("NOWEB", {"me": None}), ("GOWS", {})):
        async with stage(engine=engine) as on:
            await on.session()
            first = on.hook.events()[0]
            assert {key: first[key] for key in ("me",) if key in first} == missing


async def test_who_scans_late_finds_another_code_and_who_never_does_a_failed_session() -> None:
    async with stage(engine="NOWEB", auto_scan=False, tempo=Tempo(waits=0.002)) as on:
        asked = {"webhooks": [on.webhook()]}
        await on.post("/api/sessions", name="main", start=True, config=asked)
        await wait_for(lambda: on.waha.session("main").status == "FAILED")
        assert await told(on) == ["STARTING", *["SCAN_QR_CODE"] * 6, "FAILED"]


@pytest.mark.parametrize(
    ("engine", "statuses"),
    [
        ("NOWEB", ["STARTING", "WORKING"]),
        ("GOWS", ["STARTING", "WORKING"]),
        ("WEBJS", ["FAILED", "STARTING", "WORKING"]),
    ],
)
async def test_a_drop(engine: str, statuses: list[str]) -> None:
    async with stage(engine=engine, tempo=SLOWER) as on:
        await on.session()
        before = len(await told(on))
        await on.phone.drop("main")
        assert (await told(on))[before:] == statuses


async def test_during_a_drop_sends_fail_at_once_and_what_was_said_comes_afterwards() -> None:
    async with stage(engine="NOWEB", tempo=Tempo(waits=0.2, retries=0.01)) as on:
        await on.session(webhooks=[on.webhook("message.any")])
        await on.phone.drop("main")
        assert await on.status() == "WORKING"
        refused = await on.send("into the void")
        assert refused.status_code == 500
        assert refused.json()["exception"]["message"] == "Connection Closed"
        for text in ("one", "two"):
            await on.phone.say("main", CUSTOMER, text)
        assert not on.hook.got
        assert await on.phone.wait_idle()
        assert sorted(event["payload"]["body"] for event in on.hook.events()) == ["one", "two"]
        assert not await on.phone.inbox(CUSTOMER)


async def test_noweb_says_starting_with_every_try_and_gives_up_after_sixty() -> None:
    async with stage(engine="NOWEB", tempo=Tempo(waits=0.001, retries=0.01)) as on:
        await on.session(webhooks=[])
        on.waha.courier.make_global([on.webhook()])
        await on.phone.drop("main", away_seconds=30)
        assert await told(on) == [*["STARTING"] * 61, "FAILED"]


async def test_a_device_removed_on_the_phone_fails_and_fails_again_until_it_is_logged_out() -> None:
    async with stage(engine="NOWEB", tempo=SLOWER) as on:
        await on.session()
        before = len(await told(on))
        await on.phone.unlink("main")
        await on.post("/api/sessions/main/restart")
        assert (await told(on))[before:] == ["FAILED", "STOPPED", "STARTING", "FAILED"]
        await on.post("/api/sessions/main/logout")
        again = ["STOPPED", "STARTING", "SCAN_QR_CODE", "STARTING", "WORKING"]
        assert (await told(on))[before + 4 :] == again


@pytest.mark.parametrize("engine", ["NOWEB", "GOWS", "WEBJS"])
async def test_stop_keeps_the_credentials_and_delete_wipes_them(engine: str) -> None:
    async with stage(engine=engine, tempo=SLOWER, auto_scan=False) as on:
        asked = {"webhooks": [on.webhook()]}
        await on.post("/api/sessions", name="main", start=True, config=asked)
        await wait_for(lambda: on.waha.session("main").status == "SCAN_QR_CODE")
        await on.phone.scan("main", phone="5511988887777")
        before = len(await told(on))
        await on.post("/api/sessions/main/stop")
        assert (await told(on))[before:] == ["STOPPED"]
        await on.post("/api/sessions/main/start")
        assert (await told(on))[before + 1 :] == ["STARTING", "WORKING"]
        starts = [body["payload"] for body in on.hook.events() if body["payload"]["status"] == "STARTING"]
        assert len(starts[-1]["statuses"]) == 1
        await on.api.delete("/api/sessions/main")
        assert (await told(on))[before + 3 :] == ["STOPPED"]
        await on.post("/api/sessions", name="main", start=True, config=asked)
        await wait_for(lambda: on.waha.session("main").status == "SCAN_QR_CODE")


async def test_a_muted_session_works_and_hears_nothing_until_it_is_restarted() -> None:
    async with stage(engine="GOWS") as on:
        await on.session(webhooks=[on.webhook("message.any", "message.ack")])
        await on.phone.mute("main")
        await on.phone.say("main", CUSTOMER, "is anybody there?")
        sent = await on.send("pending for ever")
        assert await on.phone.wait_idle()
        assert (sent.status_code, await on.status(), on.hook.got) == (201, "WORKING", [])
        assert not await on.phone.inbox(CUSTOMER)
        await on.post("/api/sessions/main/restart")
        assert await on.phone.wait_idle()
        texts = {event["payload"]["body"] for event in on.hook.events("message.any")}
        assert texts == {"is anybody there?", "pending for ever"}
        assert len(await on.phone.inbox(CUSTOMER)) == 1
        await on.phone.mute("main")
        await on.phone.say("main", CUSTOMER, "and now?")
        await on.phone.unmute("main")
        assert await on.phone.wait_idle()
        assert on.hook.events("message.any")[-1]["payload"]["body"] == "and now?"


@pytest.mark.parametrize("engine", Engine)
async def test_live_queries_of_a_muted_session_hang_or_fail_or_are_answered_as_was_asked(
    engine: Engine,
) -> None:
    asked = {"session": "main", "phone": CUSTOMER}
    async with stage(engine=engine, tempo=Tempo(waits=0.001)) as on:
        await on.session(webhooks=[])
        for queries, status in (("hang", 500), ("fail", 500), ("answer", 200)):
            await on.phone.mute("main", queries)
            answer = await on.get("/api/contacts/check-exists", status, asked)
            assert await on.status() == "WORKING"
            assert status == 200 or answer["exception"]["message"] == "2 UNKNOWN: info query timed out"
        await on.phone.mute("main")
        await on.post("/api/sessions/main/restart")
        await wait_for(lambda: on.waha.session("main").status == "WORKING")
        found = await on.get("/api/contacts/check-exists", query=asked)
        assert found == {"numberExists": True, "chatId": f"{CUSTOMER}@c.us"}
        await on.get("/api/contacts/check-exists", 500, {"session": "main"})


async def test_after_a_restart_of_waha_sessions_are_made_again_and_work_from_their_credentials() -> None:
    async with stage(tempo=SLOWER) as on:
        await on.session()
        number = (await on.get("/api/sessions/main"))["me"]["id"]
        await on.waha.stop()
        await on.waha.start()
        await on.get("/api/sessions/main", 404)
        await on.phone.say("main", CUSTOMER, "while you were away")
        before = len(on.hook.statuses())
        await on.session()
        assert (await told(on))[before:] == ["STARTING", "WORKING"]
        assert (await on.get("/api/sessions/main"))["me"]["id"] == number
        (heard,) = on.hook.events("message.any")
        assert heard["payload"]["body"] == "while you were away"


async def test_credentials_and_inboxes_survive_the_sigkill_of_the_process(tmp_path: Path) -> None:
    state = tmp_path / "state of the sandbox"

    async def run(*, before: int) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SERVE, str(state), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout
        url = (await process.stdout.readline()).decode().strip()
        headers = {"X-Api-Key": "sandbox-key"}
        async with Phone(url) as phone, httpx.AsyncClient(base_url=url, headers=headers) as api:
            made = await api.post("/api/sessions", json={"name": "main", "start": True})
            assert made.status_code == 201
            sent = await api.post(
                "/api/sendText",
                json={"session": "main", "chatId": f"{CUSTOMER}@c.us", "text": "hi", "id": "3EB0"},
            )
            assert sent.status_code == 201
            assert len(await phone.inbox(CUSTOMER)) == before + 1
            points = [point["status"] for point in (await phone.status())["sessions"]["main"]["statuses"]]
            assert ("SCAN_QR_CODE" in points) is (before == 0)
            assert (await api.get("/api/main/chats/all/messages/3EB0")).status_code == 200
        process.send_signal(signal.SIGKILL)
        await process.wait()

    await run(before=0)
    with state.open("ab") as journal:
        journal.write(b'{"type":"Arrived","phone":"torn')
    await run(before=1)
    await run(before=2)
