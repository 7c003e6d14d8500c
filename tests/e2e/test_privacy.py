"""What customers write, who they are and every secret stay out of logs, metrics, RQ's jobs and refusals.

And out of Redis, but for the mailbox, and out of what is sent to anybody else.
They go the good way and every bad one: forged, malformed, refused by the database with the row in its error,
echoed by a gateway's 500, in flight while a server dies.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from e2e.canaries import (
    HOOK_SECRET,
    NAME,
    NEIGHBOURS_PHONE,
    NEIGHBOURS_TEXT,
    OTHER,
    PASSWORD,
    PHONES,
    SHOP,
    TEXT,
    check_redis,
    check_silent,
    secret_of,
)
from e2e.town import YOUR_TURN, Ground, Town, session_of, town
from integration.test_metric_bounds import check_words
from waiting import wait_for
from wsm.core.ids import SessionAddress
from wsm.sandbox.servers import command_line
from wsm.sandbox.site import PROCESSES, UNPACED
from wsm.sandbox.waha.asgi import Answer, Request
from wsm.sandbox.waha.faults import Wrong
from wsm.telemetry import OPS_PAGES
from wsm.wire.signature import sign

KINDS = (
    *("session.status", "message", "message.any", "message.reaction", "message.ack", "message.ack.group"),
    *("message.waiting", "message.revoked", "message.edited", "group.v2.join", "group.v2.leave"),
    *("group.v2.update", "group.v2.participants", "presence.update", "poll.vote", "poll.vote.failed"),
    *("chat.archive", "call.received", "call.accepted", "call.rejected", "label.upsert", "label.deleted"),
    *("label.chat.added", "label.chat.deleted", "event.response", "event.response.failed"),
    *("engine.event", "group.join", "group.leave", "state.change", "command.close", TEXT),
)
"""Every event that WAHA has (CONTRACT 2), one that only wsm may write, and one that nobody knows."""
LINUX = sys.platform == "linux"
ADDRESSES = [f"127.0.0.{number}" for number in range(2, 100)]


async def test_no_canary_is_heard_anywhere(ground: Ground) -> None:
    urls = {
        name: url.replace("@", f":{PASSWORD}@", 1)
        for name, url in {
            "DATABASE_URL": ground.database.app_url,
            "WSM_SYSTEM_DATABASE_URL": ground.database.system_url,
            "WSM_PACE": UNPACED,
        }.items()
    }
    changed = {
        **urls,
        "WSM_EVIDENCE_SECONDS": "2",
        "WSM_LOG_LEVEL": "debug",
        "WEBHOOK_HMAC_SECRET": HOOK_SECRET,
    }
    async with town(ground, changed=changed) as at:
        asked = overheard(at)
        await at.found(SHOP, capacity=5)
        await at.found(OTHER)
        await the_good_way(at)
        answers = [*await forged_and_malformed(at), *await every_kind(at), *await every_page(at)]
        await a_job_of_somebody(at)
        await a_row_that_the_database_refuses(at)
        await a_gateway_that_echoes(at)
        await everything_in_redis(at)
        await servers_die_in_the_middle(at)
        metrics = await every_metric(at)

        for answer in answers:
            check_silent(at, "an answer", f"{answer.status_code} {answer.headers} {answer.text}")
        check_silent(at, "a metric", metrics)
        check_asked(at, asked)
        for folder in (ground.home, ground.servers.home):
            for log in (folder / "log").glob("*.log*"):
                check_silent(at, log.name, log.read_text(errors="replace"))
        servers = [ground.servers.valkey.pid, ground.servers.postgres.pid]
        for pid in (*servers, *map(at.site.supervisor.pid, PROCESSES)):
            check_silent(at, "a command line", command_line(pid))
        for pid in servers if LINUX else ():
            check_silent(at, "an environment", Path(f"/proc/{pid}/environ").read_text(errors="replace"))


def overheard(at: Town) -> list[Request]:
    """Listen to what WAHA is asked, from now on."""
    asked: list[Request] = []
    answer = at.waha._answer

    async def listening(request: Request) -> Answer:
        if not request.path.startswith("/sandbox"):
            asked.append(request)
        return await answer(request)

    at.waha._answer = listening  # type: ignore[method-assign]
    return asked


def check_asked(at: Town, asked: list[Request]) -> None:
    """WAHA heard of each session what is its own: of customers their chats, of secrets one, once."""
    mine, theirs = (session_of(tenant) for tenant in (SHOP, OTHER))
    own = {mine: tuple(f"phone {number}" for number in range(len(PHONES))), theirs: (f"phone {len(PHONES)}",)}
    own_secret = {mine: f"secret of {SHOP}", theirs: f"secret of {OTHER}"}
    heard = set()
    for request in asked:
        headers = {name: value for name, value in request.headers.items() if name != "x-api-key"}
        said = f"{request.path} {request.query} {headers} {request.body.decode()}"
        [named] = [name for name in (mine, theirs) if name in said]
        is_made = (request.method, request.path) == ("POST", "/api/sessions")
        check_silent(at, "a call", said, but=(*own[named], *([own_secret[named]] if is_made else [])))
        heard.add(request.path.replace(named, "…"))
    assert heard >= {"/api/sessions", "/api/sendText", "/api/…/new-message-id"}


async def the_good_way(at: Town) -> None:
    await at.says(OTHER, NEIGHBOURS_PHONE, NEIGHBOURS_TEXT, push_name=NAME)
    await at.hears(NEIGHBOURS_PHONE, YOUR_TURN)
    await at.says(SHOP, PHONES[0], TEXT, push_name=NAME)
    await at.hears(PHONES[0], YOUR_TURN)
    await at.quiet()
    assert await at.value("select count(*) from messages where body = %s", TEXT) == 1


async def forged_and_malformed(at: Town) -> list[httpx.Response]:
    """Post what is refused, and what is only quarantined, each with canaries in it."""
    address = SessionAddress(SHOP, session_of(SHOP))
    secret = at.site.secret(address)
    hook = at.site.webhooks_url
    own, other = f"{hook}/{SHOP}/{address.session}", f"{hook}/{PHONES[1]}/{TEXT}"
    payload = f'"payload":{{"id":"false_{PHONES[1]}@c.us_{TEXT}","body":"{TEXT}"}}'
    right = f'{{"event":"message.any","session":"{address.session}",{payload}}}'
    signature = sign(secret, right.encode())
    refused = [
        (own, right, {}, 403, "signature_missing"),
        (own, right, {"X-Webhook-Hmac": TEXT}, 403, "signature_malformed"),
        (own, right, {"X-Webhook-Hmac": sign("wrong", right.encode())}, 403, "signature_mismatch"),
        (
            own,
            right,
            {"X-Webhook-Hmac": signature, "X-Webhook-Hmac-Algorithm": TEXT},
            403,
            "algorithm_unsupported",
        ),
        (other, right, {"X-Webhook-Hmac": signature}, 403, "session_unknown"),
        (f"{other}/more", right, {"X-Webhook-Hmac": signature}, 404, "not_found"),
        (f"{hook}?server={TEXT}", right, {"X-Webhook-Hmac": signature}, 403, "server_unknown"),
        (own, right + TEXT * 100_000, {"X-Webhook-Hmac": signature}, 413, "too_large"),
    ]
    for body, status, reason in (
        (f'{{"event":"{TEXT}', 400, "bad_input"),
        (f'["{TEXT}"]', 400, "bad_input"),
        (f'{{"event":["{TEXT}"],"session":"{TEXT}"}}', 400, "bad_input"),
        (f'{{"event":"{TEXT}","session":{{"{PHONES[1]}":1}}}}', 400, "bad_input"),
        (TEXT, 400, "bad_input"),
        (f'{{"event":"message.any","session":"{TEXT}"}}', 403, "session_mismatch"),
    ):
        refused.append((own, body, {"X-Webhook-Hmac": sign(secret, body.encode())}, status, reason))

    answers = []
    for number, (url, body, headers, status, reason) in enumerate(refused, 2):
        answer = await post_from(number, url, body, headers)
        assert answer.status_code == status, (reason, answer.text)
        answers.append(answer)
    if LINUX:
        logged = [line["reason"] for line in at.log_lines("ingest") if line.get("address") in ADDRESSES]
        assert logged == [reason for *_, reason in refused], "each has its line"
    stray = right.replace(address.session, "nobody")
    headers = {"X-Webhook-Hmac": sign(HOOK_SECRET, stray.encode())}
    answers.append(await post_from(1, hook, stray, headers))
    assert answers[-1].json() == {"status": "quarantined"}
    return answers


async def every_kind(at: Town) -> list[httpx.Response]:
    """Post every kind of event, well signed at the session's own path and at the hook, and forged."""
    session, chat = session_of(SHOP), f"{PHONES[5]}@c.us"
    own = f"{at.site.webhooks_url}/{SHOP}/{session}"
    answers = []
    for number, kind in enumerate(KINDS):
        payload = {
            "id": f"false_{chat}_{TEXT}{number}", "from": chat, "to": chat, "body": f"{TEXT} {kind}",
            "name": TEXT, "status": TEXT, "ack": 2, "reaction": {"text": TEXT}, "chat": chat, "by": TEXT,
            "editedMessageId": TEXT, "after": {"id": chat, "body": TEXT}, "vote": {"id": chat}, "label": TEXT,
            "_data": {"Info": {"Sender": chat, "PushName": NAME}, "message": {"conversation": TEXT}},
        }  # fmt: skip
        for name in (session, PHONES[5]):
            body = json.dumps({"id": f"{TEXT}{number}", "event": kind, "session": name, "payload": payload})
            for url, secret in ((own, secret_of(at, SHOP)), (at.site.webhooks_url, HOOK_SECRET), (own, TEXT)):
                headers = {"X-Webhook-Hmac": sign(secret, body.encode())}
                answers.append(await post_from(100, url, body, headers))
    assert {answer.status_code for answer in answers} == {200, 403}
    await at.quiet()
    assert await at.value("select count(*) from session_events where name = %s", TEXT) == 1
    return answers


async def every_page(at: Town) -> list[httpx.Response]:
    """Ask every process for its pages, and for what is none, with canaries all over."""
    urls = [*at.site.ops_urls.values(), at.site.webhooks_url.removesuffix("/webhooks/waha")]
    answers = []
    async with httpx.AsyncClient(trust_env=False, headers={"User-Agent": TEXT, "X-Api-Key": TEXT}) as client:
        for url in urls:
            for page in (*OPS_PAGES, f"/{TEXT}", f"/{PHONES[5]}/metrics"):
                for method in ("GET", "POST", TEXT.upper()[:8]):
                    asked = client.build_request(method, f"{url}{page}?{TEXT}={PHONES[5]}", content=b"")
                    answers.append(await client.send(asked))
    return answers


async def a_job_of_somebody(at: Town) -> None:
    """Let somebody's job fail over a canary: RQ keeps that with the job, as it always does, and no log."""

    def put() -> Job:
        with BlockingRedis.from_url(at.ground.servers.redis_url) as client:
            queue = Queue("jobs", connection=client, serializer=JSONSerializer)
            return queue.enqueue("builtins.int", TEXT, job_id="somebodys", failure_ttl=600)

    await asyncio.to_thread(put)
    ended = lambda: [line for line in at.log_lines() if line.get("job") == "somebodys"]  # noqa: E731
    await wait_for(ended)
    async with Redis.from_url(at.ground.servers.redis_url) as redis:
        found = [key async for key in redis.scan_iter("rq:*somebodys*")]
        assert found
        await redis.delete(*found)


async def post_from(number: int, url: str, body: str, headers: Mapping[str, str]) -> httpx.Response:
    """Post from an address of its own where there are several: the log has a few lines for each."""
    local = f"127.0.0.{number}" if LINUX else None
    transport = httpx.AsyncHTTPTransport(local_address=local, verify=False)
    async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
        return await client.post(url, content=body.encode(), headers=dict(headers))


async def a_row_that_the_database_refuses(at: Town) -> None:
    """Let PostgreSQL quote a row in its error. (Under row-level security a constraint itself would not.)"""
    await at.execute(
        "create function explode() returns trigger language plpgsql as $$ begin raise check_violation"
        " using message = 'refused', detail = 'Failing row contains ' || new.body; end $$;"
        " create trigger explode before insert on messages for each row"
        " when (new.body like 'explode%') execute function explode()"
    )
    await at.says(SHOP, PHONES[2], f"explode {TEXT}", push_name=NAME)

    def failed() -> list[dict[str, Any]]:
        return [line for line in at.log_lines("worker-1", "worker-2") if line["event"] == "entry_failed"]

    await wait_for(failed)
    assert failed()[0]["fault"] == ["CheckViolation"]


async def a_gateway_that_echoes(at: Town) -> None:
    """WAHA's 500 repeats the request: chat, text, and the headers' neighbours."""
    await at.phone.fault(Wrong.FAIL_BEFORE, phone=PHONES[3])
    await at.says(SHOP, PHONES[3], TEXT)
    await at.hears(PHONES[3], YOUR_TURN)
    await at.phone.fault(Wrong.ERROR_463, phone=PHONES[4])
    await at.says(SHOP, PHONES[4], TEXT)
    await at.until("select count(*) from outbox where state = 'failed'")


async def everything_in_redis(at: Town) -> None:
    """Read every key while a turn and its delivery are held in the middle, and a chat is put aside."""
    async with at.held(SHOP), Redis.from_url(at.ground.servers.redis_url) as redis:
        await at.says(SHOP, PHONES[0], TEXT)

        async def jobs() -> list[bytes]:
            return [key async for key in redis.scan_iter("rq:job:*")]

        await wait_for(jobs)
        kinds = await check_redis(at)
    assert kinds >= {
        "wsm:…:in",
        "wsm:…:parked",
        "wsm:…:bell:turn",
        "wsm:quarantine",
        "wsm:directory",
        "rq:job:…",
    }


async def servers_die_in_the_middle(at: Town) -> None:
    for server in (at.ground.servers.postgres, at.ground.servers.valkey):
        await at.says(SHOP, PHONES[0], TEXT)
        await asyncio.to_thread(server.kill)
        await at.says(SHOP, PHONES[0], TEXT)
        await asyncio.to_thread(server.start)
    await at.until("select count(*) = %s from messages where body = %s and author = 'customer'", 8, TEXT)


async def every_metric(at: Town) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        urls = [*at.site.ops_urls.values(), at.site.webhooks_url.removesuffix("/webhooks/waha")]
        answers = [await client.get(f"{url}/metrics") for url in urls]
    assert all("wsm_entries_total" in answer.text for answer in answers)
    for answer in answers:
        check_words(answer.text)
    return "\n".join(answer.text for answer in answers)
