"""Faults planted in wsm, each of which breaks a promise: whoever judges a run must find every one of them.

A mutation replaces one piece of a module's text while `chaos.killable` loads it. The piece must stand there
once, so a mutation that no longer fits the code is an error and not a test that passes for nothing.
"""

import msgspec


class Mutation(msgspec.Struct, frozen=True):
    """In `module` write `new` instead of `old`."""

    module: str
    old: str
    new: str

    def planted(self, text: str) -> str:
        """Return the module's text with the fault in it."""
        assert text.count(self.old) == 1, f"{self.module} has not exactly one {self.old!r}"
        return text.replace(self.old, self.new)


POINTER_CHECK = "if its[1] ~= bell or its[2] ~= 'claimed' then return 0 end"

MUTATIONS = {
    "finish_without_pointer": Mutation(
        "wsm.streams.scripts",
        'return Script(f"{first}\\n{shared}\\n{body}")',
        f'return Script(f"{{first}}\\n{{shared}}\\n{{body}}".replace("{POINTER_CHECK}", ""))',
    ),
    "no_lock": Mutation("wsm.store.lane", 'transaction.later("lock_lane")', "pass"),
    "no_dedupe": Mutation("wsm.wire.waha_body", '"key": once,', '"key": f"{once}|{self.entry}",'),
    "early_ack": Mutation(
        "wsm.ingest.batch",
        "self._queue.append(_Waiting(item, time.monotonic(), settle))",
        "self._queue.append(_Waiting(item, time.monotonic(), lambda _: None)); settle(None)",
    ),
    "blind_repeat": Mutation(
        "wsm.store.queries",
        "found[name] = text.strip().encode()",
        """found[name] = text.replace("'indeterminate'", "'pending'", name == "abandon").strip().encode()""",
    ),
}
"""
finish_without_pointer  FINISH settles a bell whose pointer is another's
no_lock                 a turn does not take its tenant's lock
no_dedupe               what was seen before counts again
early_ack               200 before Redis' reply
blind_repeat            what a lost worker had claimed is sent again without looking for evidence
"""
