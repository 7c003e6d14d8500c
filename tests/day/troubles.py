"""What goes wrong at WAHA on a day: sends that fail before or after they left, numbers that lose their
connection, an account that WhatsApp slows down."""

from functools import partial

from day.city import City
from day.plan import OPENS, Plan
from wsm.core.ids import DEFAULT_SERVER, SessionAddress, SessionName, TenantId
from wsm.sandbox.waha.faults import Fault, Wrong

_WRONG = {
    Wrong.FAIL_BEFORE: 2,
    Wrong.FAIL_AFTER: 5,
    Wrong.FAIL_THEN_SEND: 3,
    Wrong.TOO_MANY: 3,
    Wrong.CUT_BEFORE: 3,
    Wrong.CUT_AFTER: 3,
    Wrong.HANG: 1,
    Wrong.HANG_AFTER: 1,
}
"""How often which. What was never sent and is not known not to have been waits three minutes for evidence."""
_PER_CUSTOMER = 0.08
_HANGS_SECONDS = 0.5
"""In earnest: longer than a call may take."""
_AWAY_SECONDS = (15, 150)
_FLAPS_PER_HOUR = 0.25


class Troubles:
    """Puts them into the agenda. seen: what happened, and how often."""

    def __init__(self, at: City) -> None:
        self._city = at
        self._chance = at.plan.chance("troubles")
        self.seen = at.wire.seen

    def come(self, plan: Plan) -> None:
        """Spread them over the day."""
        chance, agenda = self._chance, self._city.agenda
        sessions = [(shop.tenant, session) for shop in plan.shops for session in shop.sessions]
        whole = plan.closes - OPENS
        for _ in range(round(plan.customers * _PER_CUSTOMER * plan.troubles)):
            kind = chance.choices([*_WRONG], [*_WRONG.values()])[0]
            _, session = chance.choice(sessions)
            agenda.at(OPENS + whole * chance.random(), partial(self._goes_wrong, kind, session))
        for tenant, session in sessions:
            for _ in range(round(plan.hours * _FLAPS_PER_HOUR * plan.troubles)):
                agenda.at(OPENS + whole * chance.random(), partial(self._drops, tenant, session))
        if plan.troubles and plan.hours >= 2:
            slow = partial(self._goes_wrong, Wrong.RATE_OVERLIMIT, chance.choice(sessions)[1])
            agenda.at(OPENS + whole * chance.uniform(0.1, 0.9), slow)

    async def _goes_wrong(self, kind: Wrong, session: SessionName) -> None:
        """Let the next send of a number go wrong."""
        seconds = {Wrong.HANG: _HANGS_SECONDS, Wrong.HANG_AFTER: _HANGS_SECONDS}.get(kind, 0.01)
        retry_after = "20" if kind is Wrong.TOO_MANY else None
        fault = Fault(kind=kind, seconds=seconds, session=session, retry_after=retry_after)
        self._city.waha.world.faults.add(fault)
        self.seen[f"{kind}"] += 1

    async def _drops(self, tenant: TenantId, session: SessionName) -> None:
        """Let a number be away for a while: what is written to it comes in a burst when it is back."""
        gateway = self._city.gateways.session(DEFAULT_SERVER, SessionAddress(tenant, session), None)
        if self._city.waha.session(session).connected:
            await gateway.stop()
            self.seen["session away"] += 1
            self._city.agenda.after(self._chance.uniform(*_AWAY_SECONDS), gateway.start)
