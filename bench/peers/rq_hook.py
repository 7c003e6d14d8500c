"""The same work as a team writes it on stock RQ: `python -m bench.peers.rq_hook PORT` takes the webhooks.

Each webhook is a job. A customer's message is committed and answered; echoes, acks and what an agent types
are committed. There is no line, no place in it, no order, and nothing knows of a message whether it was sent:
less than wsm does. It guarantees less too: see `bench.workers`. The hook is wsm's own server, so that it is
no bottleneck; it checks the signature and enqueues.
"""

import hashlib
import hmac
import os
import sys
from functools import cache
from typing import Any

import httpx
import msgspec
import psycopg
from redis import Redis
from rq import Queue

from bench.peers.static_answer import Static, serve_alone
from bench.webhooks import secret
from wsm.core.ids import SessionAddress, SessionName, TenantId
from wsm.ingest.exchange import Answer, Request

QUEUE = "bench"
TABLES = """
create schema if not exists peer;
create table if not exists peer.messages (
    session text, id text, chat text, from_me boolean, body text, raw bytea, at timestamptz default now(),
    primary key (session, id, from_me));
create table if not exists peer.acks (
    session text, id text, level integer, at timestamptz default now(), primary key (session, id, level));
"""
_TAKEN, _FORGED = Answer(200, b"{}"), Answer(403, b"{}")


@cache
def _database() -> psycopg.Connection[Any]:
    return psycopg.connect(os.environ["DATABASE_URL"])


@cache
def _gateway() -> httpx.Client:
    return httpx.Client(base_url=os.environ["WAHA_URL"], headers={"X-Api-Key": "bench"}, trust_env=False)


def handle(body: bytes) -> None:
    """Handle one webhook: a job."""
    event = msgspec.json.decode(body)
    payload, session = event["payload"], event["session"]
    _, chat, bare = payload["id"].split("_")
    database = _database()
    if event["event"] == "message.ack":
        database.execute(
            "insert into peer.acks (session, id, level) values (%s, %s, %s) on conflict do nothing",
            [session, bare, payload["ack"]],
        )
        database.commit()
        return
    new = database.execute(
        "insert into peer.messages (session, id, chat, from_me, body, raw) values (%s, %s, %s, %s, %s, %s)"
        " on conflict do nothing",
        [session, bare, chat, payload["fromMe"], payload["body"], body],
    )
    database.commit()
    if new.rowcount and not payload["fromMe"]:
        text = {
            "session": session,
            "chatId": chat,
            "text": "Chegou a sua vez! Você está sendo atendido agora.",
        }
        _gateway().post("/api/sendText", json=text).raise_for_status()


@cache
def _secret(tenant: str, session: str) -> bytes:
    return secret(SessionAddress(TenantId(int(tenant)), SessionName(session))).encode()


class Hook(Static):
    """Takes webhooks: a job for each."""

    def __init__(self, redis_url: str) -> None:
        self._queue = Queue(QUEUE, connection=Redis.from_url(redis_url))

    def ends(self, request: Request) -> None:
        """Take one webhook."""
        body = request.body or b""
        _, _, _, tenant, session = request.path.decode().split("/")
        expected = hmac.new(_secret(tenant, session), body, hashlib.sha512).hexdigest()
        [claimed] = request.values(b"x-webhook-hmac") or [b""]
        if hmac.compare_digest(expected, claimed.decode()):
            self._queue.enqueue("bench.peers.rq_hook.handle", body, result_ttl=0)
            request.answer(_TAKEN)
        else:
            request.answer(_FORGED)


if __name__ == "__main__":
    serve_alone(Hook(os.environ["REDIS_URL"]), int(sys.argv[1]))
