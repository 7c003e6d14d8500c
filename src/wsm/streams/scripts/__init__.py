"""The scripts: accept, ring, claim, finish, sweep are the hand-over; pause, dead, unquarantine the desk's.

Each `.lua` file opens with what it does, what it is given and what it answers; `common.lua` is put behind
its first line. They run on Valkey 8+ and Redis 7.0+, and each may be repeated after a lost reply.
"""

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

Arguments = Sequence[str | bytes | int]


class Script:
    """One script's text and its digest.

    A server that does not know it (a restart, SCRIPT FLUSH) answers NOSCRIPT and has run nothing: then the
    text is sent, with EVAL, because between SCRIPT LOAD and EVALSHA somebody may flush again.
    """

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, redis: Redis, arguments: Arguments) -> Any:
        """Run it and return its answer."""
        try:
            return await redis.evalsha(self.digest, 0, *arguments)
        except NoScriptError:
            return await redis.eval(self.text, 0, *arguments)

    async def and_wait(
        self, redis: Redis, arguments: Arguments, replicas: int, seconds: float
    ) -> tuple[Any, int]:
        """Run it and wait for replicas; returns its answer and how many replicas confirmed.

        Both commands go out in one write: WAIT counts for the connection that it is sent on, and on a new one
        it would confirm nothing.
        """
        pipe = redis.pipeline(transaction=False)
        pipe.evalsha(self.digest, 0, *arguments)
        pipe.wait(replicas, int(seconds * 1000))
        answer, confirmed = await pipe.execute(raise_on_error=False)
        if isinstance(answer, NoScriptError):
            pipe.eval(self.text, 0, *arguments)
            pipe.wait(replicas, int(seconds * 1000))
            answer, confirmed = await pipe.execute(raise_on_error=False)
        for result in (answer, confirmed):
            if isinstance(result, Exception):
                raise result
        return answer, confirmed


async def together(redis: Redis, *calls: tuple[Script, Arguments]) -> list[Any]:
    """Run scripts one after the other, sent in one write: one round trip, and most often one fsync.

    Raises the first error once all have run. One that the server does not know runs after the others.
    """
    pipe = redis.pipeline(transaction=False)
    for script, arguments in calls:
        pipe.evalsha(script.digest, 0, *arguments)
    answers = await pipe.execute(raise_on_error=False)
    for place, (script, arguments) in enumerate(calls):
        if isinstance(answers[place], NoScriptError):
            answers[place] = await script(redis, arguments)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


def load(name: str) -> Script:
    """Read a script from the package."""
    folder = resources.files(__name__)
    first, _, body = folder.joinpath(f"{name}.lua").read_text(encoding="utf-8").partition("\n")
    shared = folder.joinpath("common.lua").read_text(encoding="utf-8")
    return Script(f"{first}\n{shared}\n{body}")
