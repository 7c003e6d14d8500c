"""The client of `/sandbox`: somebody with a phone in each hand."""

from types import TracebackType
from typing import Any, Self

import httpx

from wsm.core.errors import BadInput

Json = dict[str, Any]
_TIMEOUT_SECONDS = 60.0


class Phone:
    """Plays the customers and the agent of a sandbox, from any process.

    Every call raises BadInput for what the sandbox refuses, and httpx.HTTPError when it is not there.
    """

    def __init__(self, base_url: str) -> None:
        # No connection is kept: a sandbox that refuses for a while, or is killed, breaks those that are.
        self._client = httpx.AsyncClient(
            base_url=f"{base_url}/sandbox",
            timeout=_TIMEOUT_SECONDS,
            limits=httpx.Limits(max_keepalive_connections=0),
            verify=False,  # noqa: S501 (a sandbox speaks no TLS, and 20 ms would make ready for it)
            trust_env=False,
        )

    async def say(self, session: str, phone: str, text: str, **more: Any) -> str:
        """Let a customer write; `more` as in `steering.Say`. Returns the bare id."""
        said = await self._post("/say", {"session": session, "phone": phone, "text": text, **more})
        return str(said["id"])

    async def type_as_agent(self, session: str, chat: str, text: str, **more: Any) -> str:
        """Let the agent type on the linked phone. Returns the bare id."""
        typed = await self._post("/type", {"session": session, "chat": chat, "text": text, **more})
        return str(typed["id"])

    async def react(self, session: str, id: str, text: str, *, from_me: bool = False) -> str:  # noqa: A002
        """React to a message; an empty text takes it back. Returns the bare id of the act."""
        return await self._change("react", session, id, text, from_me=from_me)

    async def edit(self, session: str, id: str, text: str, *, from_me: bool = False) -> str:  # noqa: A002
        """Edit a message. Returns the bare id of the act."""
        return await self._change("edit", session, id, text, from_me=from_me)

    async def revoke(self, session: str, id: str, *, from_me: bool = False) -> str:  # noqa: A002
        """Delete a message for everyone. Returns the bare id of the act."""
        return await self._change("revoke", session, id, "", from_me=from_me)

    async def ack(
        self,
        session: str,
        id: str,  # noqa: A002
        level: int,
        reader: str | None = None,
        error: Json | None = None,
    ) -> None:
        """Let a message reach a level; in a group, on the phone of `reader`.

        error  as in `faults.AckError`
        """
        asked = {"session": session, "id": id, "level": level, "reader": reader, "error": error}
        await self._post("/ack", asked)

    async def set_acks(self, levels: list[int], phone: str | None = None) -> None:
        """Choose the levels that messages reach after they left: of one phone, or usually."""
        await self._post("/acks", {"levels": levels, "phone": phone})

    async def scan(self, session: str, **more: Any) -> str:
        """Scan a session's QR code. Returns the phone number."""
        return str((await self._post(f"/sessions/{session}/scan", more))["phone"])

    async def enter_code(self, session: str, code: str, *, passkey: bool = False) -> str:
        """Type a pairing code on the phone that it was asked for. Returns the phone number."""
        asked = {"code": code, "passkey": passkey}
        return str((await self._post(f"/sessions/{session}/enter-code", asked))["phone"])

    async def drop(self, session: str, away_seconds: float = 0.0) -> None:
        """Let a session's connection drop."""
        await self._post(f"/sessions/{session}/drop", {"away_seconds": away_seconds})

    async def mute(self, session: str, queries: str = "hang") -> None:
        """Let a session look WORKING and hear nothing; `queries` as in `faults.Queries`."""
        await self._post(f"/sessions/{session}/mute", {"queries": queries})

    async def unmute(self, session: str) -> None:
        """Let it hear again."""
        await self._post(f"/sessions/{session}/unmute", {})

    async def unlink(self, session: str) -> None:
        """Remove the device on the phone."""
        await self._post(f"/sessions/{session}/unlink", {})

    async def restrict(self, session: str, **more: Any) -> None:
        """Let WhatsApp restrict a session's account; `more` as in `asks.Restrict`."""
        await self._post(f"/sessions/{session}/restrict", more)

    async def lift(self, session: str) -> None:
        """Let that end."""
        await self._post(f"/sessions/{session}/lift", {})

    async def set_media_ids(self, *, taken: bool) -> None:
        """Choose whether GOWS and NOWEB send media under the id that is asked for."""
        await self._post("/habits", {"media_ids": taken})

    async def fault(self, kind: str, **more: Any) -> None:
        """Let the next send go wrong; kinds and `more` as in `faults`."""
        await self._post("/faults", {"kind": kind, **more})

    async def clear_faults(self) -> None:
        """Let sends go right again."""
        _read(await self._client.delete("/faults"))

    async def refuse(self, seconds: float) -> None:
        """Let WAHA refuse connections for a time."""
        await self._post("/refuse", {"seconds": seconds})

    async def forge(self, session: str, **more: Any) -> int | None:
        """Send a webhook that WAHA did not sign. Returns the answer's status, None when there was none."""
        status = (await self._post("/forge", {"session": session, **more}))["status"]
        return None if status is None else int(status)

    async def emit(self, session: str, event: str, payload: Json) -> None:
        """Let WAHA say anything else."""
        await self._post("/emit", {"session": session, "event": event, "payload": payload})

    async def kill(self) -> int:
        """Lose what SIGKILL loses. Returns how many pending webhooks were lost."""
        return int((await self._post("/kill", {}))["lost"])

    async def wait_idle(self, timeout_seconds: float = 30.0) -> bool:
        """Wait until nothing is pending; False when the time is over."""
        asked = {"timeout_seconds": timeout_seconds}
        patience = timeout_seconds + _TIMEOUT_SECONDS
        answer = _read(await self._client.post("/wait-idle", json=asked, timeout=patience))
        return bool(answer["idle"])

    async def inbox(self, phone: str) -> list[Json]:
        """Return what a customer received, each as `phones.Received`."""
        return list((await self.screen(phone))["inbox"])

    async def signals(self, phone: str) -> list[Json]:
        """Return what else a customer saw: seen, typing, recording, paused."""
        return list((await self.screen(phone))["signals"])

    async def screen(self, phone: str) -> Json:
        """Return all that a customer's phone shows, as `phones.CustomerPhone`, in its order in `timeline`."""
        return dict(await self._get(f"/phones/{phone}"))

    async def deliveries(self, **only: str) -> list[Json]:
        """Return the webhooks and the answers to each attempt; `only` by session, event or state."""
        return list(await self._get("/deliveries", only))

    async def status(self) -> Json:
        """Return everything: sessions, deliveries, what is pending, every inbox."""
        return dict(await self._get("/status"))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _change(self, word: str, session: str, target: str, text: str, *, from_me: bool) -> str:
        asked = {"session": session, "id": target, "text": text, "from_me": from_me}
        return str((await self._post(f"/{word}", asked))["id"])

    async def _post(self, path: str, asked: Json) -> Any:
        return _read(await self._client.post(path, json=asked))

    async def _get(self, path: str, query: dict[str, str] | None = None) -> Any:
        return _read(await self._client.get(path, params=query))


def _read(response: httpx.Response) -> Any:
    """Return the answer's JSON. Raises BadInput for a 400, httpx.HTTPStatusError for the rest."""
    if response.status_code == httpx.codes.BAD_REQUEST:
        refused = response.json()
        raise BadInput(refused["field"], refused["reason"])
    response.raise_for_status()
    return response.json()
