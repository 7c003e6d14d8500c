"""Every place on the way of a message where a process can be stopped dead.

The places are not written into the code: they are all that there are. Each `await`, each border of an
`async with` and each step of an `async for` in the modules of the way is a *point*, named by module, function
and number: `worker.turn:Turns._commit#3.after`. A process that is started through `chaos.killable` has these
modules rewritten so that a point can kill it; production code knows nothing of it.
"""

import ast
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

WAY = (
    "wsm.ingest.batch",
    "wsm.ingest.directory",
    "wsm.ingest.server",
    "wsm.streams.client",
    "wsm.streams.directory",
    "wsm.streams.finishing",
    "wsm.streams.handover",
    "wsm.streams.scripts",
    "wsm.worker.deliver",
    "wsm.worker.turn",
    "wsm.worker.worker",
    "wsm.store.database",
    "wsm.store.fleet",
    "wsm.store.intents",
    "wsm.store.lane",
    "wsm.store.leadership",
    "wsm.store.months",
    "wsm.store.outbox",
    "wsm.store.people",
    "wsm.store.tickets",
    "wsm.gateway.clients",
    "wsm.gateway.history",
    "wsm.gateway.server",
    "wsm.gateway.session",
    "wsm.gateway.waha",
    "wsm.clock.clock",
)
"""The modules that a message passes, from the socket to the gateway and back."""

ASIDE = {
    "wsm.gateway.environment": "asks what a server was started with, for commands of people",
    "wsm.gateway.lids": "asks who is behind a hidden id; what it learns enters at the front door",
    "wsm.gateway.names": "asks for the address of a file's host, before anything is claimed",
    "wsm.store.hidden_ids": "lists who is to be asked for, beside the messages",
    "wsm.store.rules": "keeps what a tenant says of his queues, for commands of people",
    "wsm.gateway.fetch": "fetches files before anything is claimed; a death there changes nothing",
    "wsm.store.media": "keeps files to send, for commands of people and before anything is claimed",
    "wsm.worker.media": "loads files before anything is claimed",
    "wsm.ingest.ops": "writes pages for those who watch, beside the webhooks",
    "wsm.ingest.security": "writes log lines of refused requests, beside the requests",
    "wsm.store.catchup": "keeps what was heard of sessions, beside the messages",
    "wsm.gateway.login": "asks and answers what a login needs, for commands of people",
    "wsm.store.exits": "leases exits to sessions, beside the messages",
    "wsm.store.migrate": "runs before any process does",
    "wsm.store.owners": "leases sessions to who moves them, beside the messages",
    "wsm.store.watch": "keeps what is seen of sessions, beside the messages",
    "wsm.store.reads": "answers commands of people, and changes nothing",
    "wsm.streams.depth": "reads figures for gauges and commands",
    "wsm.streams.letters": "looks at dead letters for commands of people",
    "wsm.streams.pauses": "pauses and resumes for commands of people",
    "wsm.streams.sentinels": "asks who the master is, before anything is sent to it; reads only",
    "wsm.worker.commands": "hears RQ's commands; what they do is done by the worker",
    "wsm.worker.jobs": "runs ordinary jobs, beside the messages; RQ's own code keeps their state",
    "wsm.worker.threads": "runs RQ's code in threads, beside the loop",
    "wsm.worker.registration": "shows the worker to RQ's tools; no part of the hand-over reads it",
}
"""Modules of the same rooms that wait for something, and no message passes through them: with the reason."""

ROOMS = ("ingest", "streams", "worker", "store", "gateway", "clock")

POINT = "__point__"
"""What a rewritten module calls at each point, with its name and the value that passes."""


def points(module: str) -> list[str]:
    """Name every point of a module."""
    rewriting = Rewriting(module)
    rewriting.visit(ast.parse(source(module).read_text(encoding="utf-8")))
    return rewriting.names


def source(module: str) -> Path:
    """Find a module's file without loading it."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(module)
    return Path(spec.origin)


def all_points() -> list[str]:
    """Name every point of the way."""
    return [name for module in WAY for name in points(module)]


def rewritten(module: str, text: str) -> ast.Module:
    """Return a module's code with a call at each of its points."""
    tree = Rewriting(module).visit(ast.parse(text))
    assert isinstance(tree, ast.Module)
    return ast.fix_missing_locations(tree)


class Rewriting(ast.NodeTransformer):
    """Puts a call at each point, and notes their names.

    await       before, after
    async with  before, entered, leaving and left, the last two however the block is left
    async for   before, step, left
    """

    def __init__(self, module: str) -> None:
        self.names: list[str] = []
        self._module = module.removeprefix("wsm.")
        self._scope: list[str] = []
        self._counts: dict[str, int] = {}

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._within(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._within(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._within(node)

    def visit_Await(self, node: ast.Await) -> ast.AST:
        name = self._next()
        before, after = self._named(name, "before"), self._named(name, "after")
        self.generic_visit(node)
        waited = ast.copy_location(ast.Await(_call(before, node.value)), node)
        return ast.copy_location(_call(after, waited), node)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> list[ast.stmt]:
        names = [self._next() for _ in node.items]
        sides = [
            [self._named(name, side) for side in ("before", "entered", "leaving", "left")] for name in names
        ]
        self.generic_visit(node)
        body = node.body
        for item, (before, entered, leaving, left) in zip(reversed(node.items), reversed(sides), strict=True):
            inner = ast.copy_location(ast.AsyncWith([item], [_at(entered), _finally(body, leaving)]), node)
            body = [_at(before), _finally([inner], left)]
        return body

    def visit_AsyncFor(self, node: ast.AsyncFor) -> list[ast.stmt]:
        name = self._next()
        before, step, left = (self._named(name, side) for side in ("before", "step", "left"))
        self.generic_visit(node)
        node.body = [_at(step), *node.body]
        return [_at(before), _finally([node], left)]

    def _within(self, node: Any) -> ast.AST:
        self._scope.append(node.name)
        self.generic_visit(node)
        self._scope.pop()
        return node  # type: ignore[no-any-return]

    def _next(self) -> str:
        place = f"{self._module}:{'.'.join(self._scope)}"
        self._counts[place] = self._counts.get(place, 0) + 1
        return f"{place}#{self._counts[place]}"

    def _named(self, name: str, side: str) -> str:
        self.names.append(f"{name}.{side}")
        return self.names[-1]


def _call(name: str, value: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(POINT, ast.Load()), [ast.Constant(name), value], [])


def _at(name: str) -> ast.Expr:
    return ast.Expr(_call(name, ast.Constant(None)))


def _finally(body: list[ast.stmt], name: str) -> ast.Try:
    return ast.Try(body=body, handlers=[], orelse=[], finalbody=[_at(name)])


def by_function(names: Iterable[str]) -> dict[str, int]:
    """Count points per function, for people."""
    counted: dict[str, int] = {}
    for name in names:
        place = name.partition("#")[0]
        counted[place] = counted.get(place, 0) + 1
    return counted
