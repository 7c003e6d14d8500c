"""What customers write, who they are and every secret stay out of logs, metrics, RQ's jobs and refusals.

The canaries are used nowhere else. They go the good way and every bad one: forged, malformed, refused by the
database with the row in its error, echoed by a gateway's 500, in flight while a server dies.
"""

import asyncio
import secrets
import sys
import zlib
from collections.abc import Mapping
from typing import Any

import httpx
from redis.asyncio import Redis

from e2e.town import YOUR_TURN, Ground, Town, session_of, town
from waiting import wait_for
from wsm.core.ids import SessionAddress, TenantId
from wsm.sandbox.servers import command_line
from wsm.sandbox.site import PROCESSES
from wsm.sandbox.waha.faults import Wrong
from wsm.wire.signature import sign

SHOP = TenantId(1460561546)
PHONES = [f"5521{secrets.randbelow(10**9):09d}" for _ in range(5)]
TEXT, NAME, PASSWORD, HOOK_SECRET = (f"canario{secrets.token_hex(8)}" for _ in range(4))


def canaries(at: Town) -> Mapping[str, str]:
    """Everything that nobody may read elsewhere."""
    _, _, master_key = at.site.environ["WSM_MASTER_KEYS"].partition(":")
    return {
        **{f"phone {number}": phone for number, phone in enumerate(PHONES)},
        "text": TEXT,
        "name": NAME,
        "database password": PASSWORD,
        "hook secret": HOOK_SECRET,
        "API key": at.waha.api_key,
        "master key": master_key,
        "session's secret": at.site.secret(SessionAddress(SHOP, session_of(SHOP))),
    }


def check_silent(at: Town, where: str, said: str) -> None:
    """No canary sings in what was said."""
    heard = [what for what, canary in canaries(at).items() if canary in said]
    assert not heard, f"{where} tells {heard}: {said[:2000]}"


async def test_no_canary_is_heard_anywhere(ground: Ground) -> None:
    urls = {
        name: url.replace("@", f":{PASSWORD}@", 1)
        for name, url in {
            "DATABASE_URL": ground.database.app_url,
            "WSM_SYSTEM_DATABASE_URL": ground.database.system_url,
        }.items()
    }
    changed = {
        **urls,
        "WSM_EVIDENCE_SECONDS": "2",
        "WSM_LOG_LEVEL": "debug",
        "WEBHOOK_HMAC_SECRET": HOOK_SECRET,
    }
    async with town(ground, changed=changed) as at:
        await at.found(SHOP, capacity=5)
        await the_good_way(at)
        answers = await forged_and_malformed(at)
        await a_row_that_the_database_refuses(at)
        await a_gateway_that_echoes(at)
        jobs = await everything_of_rq(at)
        await servers_die_in_the_middle(at)
        metrics = await every_metric(at)

        for answer in answers:
            check_silent(at, "an answer", f"{answer.status_code} {answer.headers} {answer.text}")
        check_silent(at, "RQ", jobs)
        check_silent(at, "a metric", metrics)
        for folder in (ground.home, ground.servers.home):
            for log in (folder / "log").glob("*.log*"):
                check_silent(at, log.name, log.read_text(errors="replace"))
        for name in PROCESSES:
            check_silent(at, "a command line", command_line(at.site.supervisor.pid(name)))


async def the_good_way(at: Town) -> None:
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


LINUX = sys.platform == "linux"
ADDRESSES = [f"127.0.0.{number}" for number in range(2, 100)]


async def post_from(number: int, url: str, body: str, headers: Mapping[str, str]) -> httpx.Response:
    """Post from an address of its own where there are several: the log has a few lines for each."""
    local = f"127.0.0.{number}" if LINUX else None
    transport = httpx.AsyncHTTPTransport(local_address=local)
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


async def everything_of_rq(at: Town) -> str:
    """Read all of RQ's keys while a turn and its delivery are held in the middle."""
    async with at.held(SHOP), Redis.from_url(at.ground.servers.redis_url) as redis:
        await at.says(SHOP, PHONES[0], TEXT)

        async def jobs() -> list[bytes]:
            return [key async for key in redis.scan_iter("rq:job:*")]

        found: list[bytes] = await wait_for(jobs)
        said = []
        for key in found:
            job: Any = await redis.hgetall(key)
            said.append(f"{key!r} {job} {zlib.decompress(bytes(job[b'data']))!r}")
        said += [repr(key) async for key in redis.scan_iter("rq:*")]
        return "\n".join(said)


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
    return "\n".join(answer.text for answer in answers)
