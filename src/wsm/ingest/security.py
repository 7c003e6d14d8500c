"""Who knocks: the log of refusals, and whose word on a client's address counts.

The log has enough of each source to see what it does, never a flood, never a content.

A wrong key makes WAHA send every event sixteen times, and anybody may post here. So each source address
gets a few lines per window and all of them together a bounded number; what was left out is counted and said
at the end of the window. Memory is bounded by the number of addresses counted apart. The metric beside it
counts every refusal. A line bears neither body nor signature, and a tenant only when the path named a
session that exists.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from wsm import telemetry
from wsm.core.errors import BadInput
from wsm.core.ids import SessionAddress

_NAMED_SOURCES = 5
_MOST_HOPS = 16
_MOST_LETTERS = 100
_MOST_KNOWN = 1_000

log = telemetry.logger("ingest")


class RefusalLog:
    """Writes `webhook_refused` lines, and `refusals_suppressed` for those it did not write."""

    def __init__(
        self,
        *,
        window_seconds: float = 10.0,
        lines_per_address: int = 5,
        lines: int = 100,
        addresses: int = 1_000,
    ) -> None:
        self._window_seconds = window_seconds
        self._lines_per_address = lines_per_address
        self._lines = lines
        self._addresses = addresses
        self._seen: Counter[str] = Counter()
        self._suppressed: Counter[str] = Counter()
        self._written = 0

    def note(
        self,
        *,
        status: int,
        reason: str,
        address: str,
        known: SessionAddress | None = None,
        detail: str | None = None,
    ) -> None:
        """Log one refusal, or count it as suppressed. `address` is the peer's; `detail` is wsm's own text."""
        source = address if address in self._seen or len(self._seen) < self._addresses else "others"
        self._seen[source] += 1
        if self._seen[source] > self._lines_per_address or self._written >= self._lines:
            self._suppressed[source] += 1
            return
        self._written += 1
        fields: dict[str, str | int] = {"status": status, "reason": reason, "address": address}
        if known is not None:
            fields |= {"tenant": known.tenant, "session": known.session}
        if detail is not None and detail != reason:
            fields["detail"] = detail
        log.warning("webhook_refused", **fields)

    def turn_window(self) -> None:
        """Say what was suppressed, by the busiest sources, and begin anew."""
        if self._suppressed:
            log.warning(
                "refusals_suppressed",
                count=self._suppressed.total(),
                addresses=len(self._suppressed),
                busiest=dict(self._suppressed.most_common(_NAMED_SOURCES)),
            )
        self._seen.clear()
        self._suppressed.clear()
        self._written = 0

    async def watch(self) -> None:
        """Turn the window again and again until cancelled; the last one is said then."""
        try:
            while True:
                await asyncio.sleep(self._window_seconds)
                self.turn_window()
        finally:
            self.turn_window()


class TrustedProxies:
    """Proxies whose X-Forwarded-For is believed, by address or network. Raises BadInput for anything else."""

    def __init__(self, trusted: Sequence[str]) -> None:
        try:
            self._networks = [ip_network(each, strict=False) for each in trusted]
        except ValueError as exc:
            raise BadInput("trusted_proxies", str(exc)) from exc
        self._look = lru_cache(_MOST_KNOWN)(self._look_up)

    def client(self, peer: str, forwarded: Sequence[bytes]) -> str:
        """Who asked: the last that was seen by a proxy of ours and is none itself.

        forwarded  the values of X-Forwarded-For; each proxy appends whom it saw, so only what stands behind
                   the first stranger, read from the end, is true. Of more hops than anybody has, the last few
                   are read
        """
        if not self._networks or not forwarded:
            return peer
        client, near = peer, self._look(peer)
        hops = reversed(b",".join(forwarded[-_MOST_HOPS:]).rsplit(b",", _MOST_HOPS)[-_MOST_HOPS:])
        while near is not None:
            client, is_ours = near
            if not is_ours:
                break
            hop = next(hops, b"")
            near = self._look(hop.decode("latin-1").strip()) if len(hop) <= _MOST_LETTERS else None
        return client

    def _look_up(self, hop: str) -> tuple[str, bool] | None:
        """Read an address, and say whether it is a proxy of ours; None if it is no address."""
        address = _address(hop)
        if address is None:
            return None
        return str(address), any(address in network for network in self._networks)


NO_PROXIES = TrustedProxies(())


def _address(hop: str) -> IPv4Address | IPv6Address | None:
    """An address as it was said, with or without its port and zone; None if it is none."""
    host = hop.partition("]")[0].lstrip("[") if hop.startswith("[") else hop
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
