"""Points at which no process of a site dies, and why not; and those that need trouble to be reached."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from wsm.sandbox.waha import Engine

_COMMAND = "a command of people calls it, no process"
_MOVES = "moves a session or looks at it, beside the messages; who dies there is the restart drill's"
_LATER = "nothing calls it yet but the sandbox, which makes sessions"
_REPLICAS = "only with `wait_replicas`, which the fail-over asks for"
_BY_ID = "only with an engine that takes chosen ids"
_CATCH_UP = "only a catch-up asks for it, beside the messages"
_TYPES = "nobody is shown to type where the pace has no pauses"
_SHORT = "only where more is due in a line than one look shows"
_AGENTS = "only where somebody names agents"
_BY_TEXT = "only with an engine that takes none"

UNREACHED = {
    "store.fleet:add_*": _COMMAND,
    "store.fleet:set_*": _COMMAND,
    "store.fleet:texts#*": _COMMAND,
    "worker.deliver:_compose#*": _TYPES,
    "worker.deliver:_best_effort#*": _TYPES,
    "worker.deliver:Deliveries._prepare#1.*": _TYPES,
    "clock.clock:Clock._look_for_forgotten#2.*": "only when the time of something to say was lost",
    "store.tickets:Tickets.set#*": _AGENTS,
    "store.lane:Lane.set#*": _AGENTS,
    "store.lane:Lane.line_again#*": _SHORT,
    "store.tickets:Tickets.again#*": _SHORT,
    "store.tickets:Tickets._look#*": _SHORT,
    "worker.deliver:Deliveries._send#1.*": _TYPES,
    "store.intents:wished#*": "only who opts out or in",
    "store.fleet:place_session#*": _COMMAND,
    "store.fleet:_insert_session#*": _COMMAND,
    "store.fleet:confirm_phone#*": _COMMAND,
    "store.fleet:tenants#*": _COMMAND,
    "store.fleet:desire#*": _COMMAND,
    "store.fleet:retire#*": _COMMAND,
    "streams.handover:Handover.holder#*": "only tests ask for it",
    "streams.handover:Handover.ring#*": "only tests ring without claiming",
    "streams.handover:Handover.accept#1.*": _REPLICAS,
    "streams.scripts:Script.and_wait#*": _REPLICAS,
    "worker.worker:Worker.hand_back#*": "only RQ's stop-job command asks for it",
    "gateway.session:WahaSession.send_text#*": _COMMAND,
    "gateway.session:WahaSession.send_seen#*": _LATER,
    "gateway.session:WahaSession.start_typing#*": _LATER,
    "gateway.session:WahaSession.stop_typing#*": _LATER,
    "gateway.session:WahaSession.inspect#*": _MOVES,
    "gateway.session:WahaSession.update#*": _MOVES,
    "gateway.session:WahaSession.restart#*": _MOVES,
    "gateway.session:WahaSession.logout#*": _MOVES,
    "gateway.session:WahaSession._log_in#*": _COMMAND,
    "gateway.session:WahaSession.find_person#*": _COMMAND,
    "gateway.session:WahaSession.create#*": _MOVES,
    "gateway.session:WahaSession.start#*": _MOVES,
    "gateway.session:WahaSession.stop#*": _MOVES,
    "gateway.session:WahaSession.delete#*": _MOVES,
    "gateway.session:WahaSession._control#*": _MOVES,
    "gateway.session:WahaSession.probe#*": "only a session that says nothing for too long is asked",
    "gateway.history:History.messages#*": _CATCH_UP,
    "gateway.history:History.chats#*": _CATCH_UP,
    "gateway.clients:Clients._close_idle#*": "only when one was idle, or more are used than kept",
    "gateway.waha:Gateways.look#*": _MOVES,
    "gateway.waha:Gateways.fetch#*": "only a URL is fetched, before anything is claimed",
    "store.intents:targets#*": "only what answers or acts on a message asks for it",
    "streams.finishing:Finishing._send#2.*": "only when a script fails by a bug",
    "streams.client:_Cancellable.send_packed_command#3.*": "only with a Redis that takes no bytes",
}
"""By pattern of their names."""

_BY_TEXT_ALONE = {
    "gateway.session:WahaSession.own_messages#*": _BY_TEXT,
    "gateway.history:History.own#*": _BY_TEXT,
    "gateway.history:History._page#*": _BY_TEXT,
    "worker.deliver:Deliveries._found#[23].*": _BY_TEXT,
    "store.outbox:unknown_own#*": _BY_TEXT,
}
_BY_ID_ALONE = {
    "gateway.session:WahaSession.find_message#*": _BY_ID,
    "gateway.session:WahaSession.new_message_id#1.after": _BY_ID,
    "worker.deliver:Deliveries._found#1.*": _BY_ID,
}


def unreached(engine: Engine) -> Mapping[str, str]:
    """Return the reasons of a site with this engine, by pattern of the points' names."""
    return UNREACHED | (_BY_ID_ALONE if engine.in_browser else _BY_TEXT_ALONE)


SELDOM = (
    "clock.clock:Clock._ring_timers#[234].*",
    "store.fleet:mark_rung#*",
    "store.lane:Lane.chats#2.*",
    "clock.clock:Clock._publish#3.*",
    "clock.clock:Clock.run#3.*",
    "gateway.*:*.aclose#*",
    "gateway.server:*",
    "gateway.session:WahaSession.get#*",
    "gateway.session:WahaSession.find_message#*",
    "ingest.batch:Batcher.aclose#*",
    "ingest.server:*",
    "store.database:Database.close#*",
    "store.database:Database.ping#*",
    "store.database:Transaction.run#*",
    "store.lane:contacts_of#*",
    "store.people:*",
    "store.tickets:*",
    "store.leadership:Leadership.*",
    "store.outbox:claim#*",
    "store.outbox:postpone#*",
    "store.outbox:settle#*",
    "store.outbox:doubts#*",
    "store.outbox:set_aside#*",
    "store.outbox:freeze#*",
    "store.outbox:prove_media_ids#*",
    "streams.client:*",
    "streams.directory:PublishedDirectory.publish#*",
    "streams.scripts:Script.__call__#2.*",
    "streams.scripts:together#2.*",
    "worker.deliver:*",
    "worker.turn:Turns._all_or_each#[23].*",
    "worker.turn:Turns._each#*",
    "worker.turn:Turns._join_parked#*",
    "worker.turn:Turns._places#*",
    "worker.turn:Turns.run#1.*",
    "worker.worker:*",
)
"""What only an outage, a fault or the end of a process brings about, or may take a while to come."""


def reason(name: str, engine: Engine) -> str | None:
    """Return why a point is not reached with an engine, None for one that has to be."""
    return next((why for pattern, why in unreached(engine).items() if fnmatchcase(name, pattern)), None)


def is_ordinary(name: str) -> bool:
    """Whether the load alone brings a process there within seconds, with GOWS."""
    return reason(name, Engine.GOWS) is None and not any(fnmatchcase(name, pattern) for pattern in SELDOM)
