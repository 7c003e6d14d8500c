"""Two tenants in one database, and every way in which one may ask for what is the other's.

`ways` makes of each query what a careless application would send: as it is, about the other's rows, and
without any of its predicates; and of each table all that SQL can do to the whole of it. What a query's
parameters are called does not matter: their types are asked of the server, and numbers and texts are taken
from what the other one has.
"""

import itertools
import random
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import psycopg

from catalogue import owner_of
from databases import Database as Urls
from outboxes import Outbox
from shop import START, Shop
from wsm.bootstrap import opened
from wsm.core.ids import TenantId
from wsm.store import media
from wsm.store.database import Database, listed
from wsm.store.queries import QUERIES

_TOKEN = re.compile(r"--[^\n]*|'(?:[^']|'')*'|%\(\w+\)s|\w+|\s+|.", re.DOTALL)
_AFTER_WHERE = {"group", "order", "limit", "offset", "returning", "union", "for", "on", "window", "having"}
_AFTER_ON = _AFTER_WHERE | {"join", "left", "right", "inner", "cross", "full", "where"}
_PARAMETER = re.compile(r"%\((\w+)\)s")
_ROWS = re.compile(r"json_to_recordset\(%\((\w+)\)s\) as \w+ \(([^)]*)\)")
_REFUSED = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.IntegrityError,
    psycopg.errors.CardinalityViolation,  # what was one row with its predicate is many without
)
_TABLES = """
select c.relname as name, c.relispartition as part, bool_or(a.attname = 'tenant_id') as has_tenant,
       array_agg(quote_ident(a.attname) order by a.attnum) as columns,
       min(quote_ident(a.attname)) filter (where a.attidentity = ''
           and has_column_privilege('wsm_app', c.oid, a.attnum, 'update')) as changeable
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = 'wsm'::regnamespace and c.relkind in ('r', 'p')
group by c.oid order by c.relname
"""
_NUMBERS = "select distinct id from {} where tenant_id = %s"
_TEXTS = """
select name from sessions where tenant_id = %(whose)s
union select alias from contact_aliases where tenant_id = %(whose)s
union select key from inbound_dedupe where tenant_id = %(whose)s
union select bare_id from messages where tenant_id = %(whose)s
union select intent_key from outbox where tenant_id = %(whose)s
union select reserved_id from outbox where tenant_id = %(whose)s and reserved_id is not null
union select host(exit_ip) from proxy_leases where tenant_id = %(whose)s and exit_ip is not null
"""
_GIVEN = {"tenant": "bigint", "now": "timestamptz"}
"""What a transaction fills in, and as what."""
_CLOSED = {
    "state": ("pending", "sending", "indeterminate", "sent", "waiting", "served", "closed"),
    "kind": ("text", "direct"),
    "author": ("customer", "bot"),
    "locale": ("en",),
    "desired": ("running", "stopped"),
    "exit_policy": ("direct",),
    "exit_pool": (None,),
    "trouble": ("drift", None),
    "address": ("192.0.2.1",),
    "raw": ("eA==",),
    "budget": ("reply", None),
}
"""Words that a column takes, where it takes no others."""


def without_predicates(query: str) -> str:
    """Take every WHERE and every ON of a join out of a query, at every depth; `true` takes their place."""
    tokens = [token for token in _TOKEN.findall(query) if not token.startswith("--")]
    return "".join(_stripped(tokens))


def _stripped(tokens: list[str]) -> Iterator[str]:
    at = 0
    while at < len(tokens):
        word = tokens[at].lower()
        following = next((token.lower() for token in tokens[at + 1 :] if not token.isspace()), "")
        is_join = word == "on" and following != "conflict"
        if word == "where" or is_join:
            yield f"{word} true "
            at = _end_of_predicate(tokens, at + 1, _AFTER_ON if is_join else _AFTER_WHERE)
        else:
            yield tokens[at]
            at += 1


def _end_of_predicate(tokens: list[str], at: int, stops: set[str]) -> int:
    depth = 0
    while at < len(tokens):
        token = tokens[at].lower()
        if depth == 0 and (token in stops or token == ")"):
            return at
        depth += (token == "(") - (token == ")")
        at += 1
    return at


def ways(owner: psycopg.Connection[Any], other: TenantId) -> Iterator[tuple[str, str]]:
    """Every query as it is and without its predicates; and what can be done to each table as a whole."""
    for name, query in QUERIES.items():
        yield name, query.decode()
        yield f"{name}, bare", without_predicates(query.decode())
    for table in owner.execute(_TABLES.encode()).fetchall():
        yield f"read {table.name}", f"select * from {table.name}"
        yield f"lock {table.name}", f"select * from {table.name} for update"
        yield f"delete {table.name}", f"delete from {table.name} returning *"
        if table.changeable:
            change = f"update {table.name} set {table.changeable} = {table.changeable} returning *"
            yield f"change {table.name}", change
        if table.has_tenant:
            yield f"give away {table.name}", f"update {table.name} set tenant_id = {other}"
            theirs = ", ".join(str(other) if each == "tenant_id" else each for each in table.columns)
            into = f"insert into {table.name} ({', '.join(table.columns)}) overriding system value"
            yield f"slip into {table.name}", f"{into} select {theirs} from {table.name}"


class Strangers:
    """One who asks, and one who is not to be found: everything of his bears `mark`, or a number of a million.

    asks  as whom statements are run: `mine`, unless the test says another one, or nobody
    """

    def __init__(self, urls: Urls, mine: Shop, theirs: Shop, chance: random.Random) -> None:
        self.mine = mine
        self.theirs = theirs
        self.mark = f"segredo{theirs.tenant}"
        self.asks: TenantId | None = mine.tenant
        self._urls = urls
        self._first = theirs.tenant * 10**6
        self._chance = chance
        self._numbers: list[int] = []
        self._texts: list[str] = []

    async def live(self, mine: list[tuple[int, str]], theirs: list[tuple[int, str]]) -> None:
        """Let both tenants have customers who do these things: (who, `says`, `ends`, `acks`, `told`)."""
        number_from(self._urls, self._first)
        await _live(self.theirs, self.mark, theirs)
        number_from(self._urls, 500)
        await _live(self.mine, "minhas palavras", mine)
        with owner_of(self._urls.owner_url) as owner:
            for each in (self.mine.tenant, self.theirs.tenant):
                named = {"whose": each}
                self._texts += [text for (text,) in owner.execute(_TEXTS.encode(), named) if text]
                for table in (
                    "sessions",
                    "contacts",
                    "conversations",
                    "queues",
                    "tickets",
                    "messages",
                    "outbox",
                    "media",
                ):
                    query = _NUMBERS.format(table).encode()
                    self._numbers += [number for (number,) in owner.execute(query, [each])]

    def is_theirs(self, value: object) -> bool:
        """Whether an answer is a number or a text of the other's."""
        is_number = isinstance(value, int) and self._first < value < self._first + 10**6
        return is_number or self.mark in str(value)

    def heard(self) -> dict[str, object]:
        """Try everything and take it back; say what answered something of the other's."""
        return {name: value for name, value in self.answers() if self.is_theirs(value)}

    def answers(self) -> Iterator[tuple[str, object]]:
        """Try everything and take it back; yield each value that is answered, and by what."""
        with self._both() as (owner, app):
            for name, statement in ways(owner, self.theirs.tenant):
                yield from ((name, value) for value in self._attempt(app, statement, keep=False))

    def changed(self) -> bool:
        """Try everything, for good; tell whether anything changed that is not the one's who asked."""
        with self._both() as (owner, app):
            before = self._of_others(owner)
            for _, statement in ways(owner, self.theirs.tenant):
                self._attempt(app, statement, keep=True)
            return self._of_others(owner) != before

    @contextmanager
    def _both(self) -> Iterator[tuple[psycopg.Connection[Any], psycopg.Connection[Any]]]:
        with (
            owner_of(self._urls.owner_url) as owner,
            psycopg.connect(self._urls.app_url, autocommit=True, options="-c search_path=wsm") as app,
        ):
            yield owner, app

    def _attempt(self, app: psycopg.Connection[Any], statement: str, *, keep: bool) -> list[object]:
        """Run a statement as the tenant who asks, and return what it answers; what is no SQL is raised."""
        types = types_of(app, statement)
        values = {name: self._value(statement, name, kind) for name, kind in types.items()}
        try:
            with app.transaction(force_rollback=not keep):
                app.execute("select set_config('wsm.tenant', %s, true)", [str(self.asks or "")])
                cursor = app.execute(statement.encode(), values)
                rows = cursor.fetchall() if cursor.description else []
        except _REFUSED:
            return []
        return [value for row in rows for value in row]

    def _value(self, statement: str, name: str, kind: str) -> object:
        """Choose something for a parameter or a column: of the other's mostly."""
        chance = self._chance
        if name == "tenant":
            return chance.choice((self.mine.tenant, self.theirs.tenant))
        if name in _CLOSED:
            return chance.choice(_CLOSED[name])
        if kind == "json":
            return self._rows(statement, name)
        if kind.endswith("[]"):
            return [self._value(statement, "", kind.removesuffix("[]")) for _ in range(3)]
        choose: dict[str, Callable[[], object]] = {
            "bigint": lambda: chance.choice(self._numbers),
            "integer": lambda: chance.randint(1, 9),
            "double precision": lambda: 15.0,
            "text": lambda: chance.choice(self._texts),
            "boolean": lambda: chance.random() < 0.5,
            "bytea": lambda: b"x",
            "jsonb": lambda: "{}",
            "date": START.date,
            "interval": lambda: timedelta(minutes=10),
            "inet": lambda: "192.0.2.1",
            "timestamp with time zone": lambda: START + timedelta(days=chance.randint(-9, 9)),
        }
        return choose[kind]()

    def _rows(self, statement: str, name: str) -> str:
        """Rows for a query that takes a list of them, by the columns that it says they have."""
        columns = dict(_ROWS.findall(statement)).get(name)
        if columns is None:
            return "{}"
        names = [column.split(None, 1) for column in columns.split(",")]
        kinds = {each: {"timestamptz": "timestamp with time zone"}.get(kind, kind) for each, kind in names}
        rows = [{each: self._value("", each, kind) for each, kind in kinds.items()} for _ in range(2)]
        return listed([{each: {} if kinds[each] == "jsonb" else row[each] for each in row} for row in rows])

    def _of_others(self, owner: psycopg.Connection[Any]) -> object:
        names = [row.name for row in owner.execute(_TABLES.encode()) if row.has_tenant and not row.part]
        others = f"where tenant_id <> {self.mine.tenant}"
        parts = [f"select '{name}' || t.xmin::text || t::text as x from {name} t {others}" for name in names]
        query = f"select count(*), md5(string_agg(x, ';' order by x)) from ({' union all '.join(parts)}) u"
        return owner.execute(query.encode()).fetchone()


@asynccontextmanager
async def strangers(urls: Urls, chance: random.Random) -> AsyncIterator[Strangers]:
    """Two tenants that the database has not seen yet."""
    number = next(_numbers_of_tenants)
    async with (
        opened(Database(urls.app_url, connections=1)) as app,
        opened(Database(urls.system_url, connections=1)) as system,
    ):
        mine, theirs = (Shop(app, system, TenantId(each + number)) for each in (1_000, 5_000_000))
        yield Strangers(urls, mine, theirs, chance)


def types_of(connection: psycopg.Connection[Any], statement: str) -> dict[str, str]:
    """Ask the server which types a statement's parameters have, by their names."""
    names = list(dict.fromkeys(_PARAMETER.findall(statement)))
    if not names:
        return {}
    if statement not in _KNOWN:
        numbered = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", statement).replace("%%", "%")
        given = ", ".join(_GIVEN.get(name, "unknown") for name in names)
        connection.execute(f"prepare asked ({given}) as {numbered}".encode())
        query = "select parameter_types::text[] from pg_prepared_statements where name = 'asked'"
        [types] = connection.execute(query.encode()).fetchone() or ((),)
        connection.execute("deallocate asked")
        _KNOWN[statement] = dict(zip(names, types, strict=True))
    return _KNOWN[statement]


_KNOWN: dict[str, dict[str, str]] = {}
_numbers_of_tenants = itertools.count(1)


def number_from(urls: Urls, number: int) -> None:
    """Let every sequence go on after a number."""
    sequences = (
        "select oid::regclass from pg_class where relkind = 'S' and relnamespace = 'wsm'::regnamespace"
    )
    with psycopg.connect(urls.owner_url, autocommit=True) as owner:
        owner.execute(f"select setval(s.oid, {number}) from ({sequences}) s".encode())


async def _live(at: Shop, words: str, deeds: list[tuple[int, str]]) -> None:
    await at.founded(capacity=1)
    box = Outbox(at)
    for number, deed in [(0, "says"), (1, "says"), *deeds]:
        who = f"5511{at.tenant % 10**6:06d}{number:03d}"
        if deed == "says":
            await at.turn(at.says(who, words))
        elif deed == "ends":
            await at.close(who)
        elif deed == "acks":
            await at.turn(at.ack(f"{who}@c.us", "3EB0X", 2), at.body("label.upsert", {"id": words}))
        elif (claimed := await box.claim()) is not None:
            await box.sent(claimed)
    async with at.database.transaction(at.tenant, START) as transaction:
        row = await transaction.row("sessions_named")
        names = {"identifier": f"chip-{words}-{at.tenant}", "identity": f"{words}{at.tenant}"}
        await transaction.run("take_lease", session=row.id, pool="br", **names)
    await media.put(at.database, at.tenant, words.encode(), mimetype=words, filename=words, now=START)
