"""What the sandbox says fits WAHA's own description and what a running WAHA was seen to say.

WAHA's openapi.json is stricter than WAHA: it requires keys that no engine sends, and knows no null where all
of them send it. `Schemas` takes back just that much, and WAHA's own captures must fit what remains.
"""

from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from receiver import Got
from wahastage import ACTS, KEY, KINDS, Stage, stage
from wsm.wire.signature import Verifier

CUSTOMER = "5511977776666"
CHAT = f"{CUSTOMER}@c.us"
GROUP = "120363000000000001@g.us"
CAPTURED = "2026.2.1"
DESCRIBED = "2026.7.1"
STORE = {"noweb": {"markOnline": True, "store": {"enabled": True, "fullSync": False}}}
URI: Final = "urn:waha"
MISSING_IN_FACT: Final = {
    "to", "participant",     # NOWEB, direct chats
    "mediaUrl",              # deprecated, and gone
    "source",                # of an edit or a reaction in some engines
    "assignedWorker",
}  # fmt: skip


class Schemas:
    """Validators for WAHA's operations and webhooks."""

    def __init__(self, openapi: Any) -> None:
        self._document = _taken_back(openapi)
        resource = Resource.from_contents(self._document, default_specification=DRAFT202012)
        self._registry: Registry[Any] = Registry().with_resource(URI, resource)

    def check_answer(self, method: str, path: str, status: int, value: Any) -> None:
        """Fail unless an operation's answer fits; an operation or status that WAHA has not is a failure."""
        content = self._document["paths"][path][method]["responses"][str(status)].get("content", {})
        if "application/json" in content:
            self._check(
                ["paths", path, method, "responses", str(status), "content", "application/json"], value
            )

    def check_webhook(self, value: Any) -> None:
        """Fail unless a webhook's body fits the schema of its event."""
        self._check(["webhooks", value["event"], "post", "requestBody", "content", "application/json"], value)

    def _check(self, steps: list[str], value: Any) -> None:
        pointer = "/".join(step.replace("~", "~0").replace("/", "~1") for step in [*steps, "schema"])
        schema = {"$ref": f"{URI}#/{pointer}"}
        error = best_match(Draft202012Validator(schema, registry=self._registry).iter_errors(value))
        assert error is None, f"{'.'.join(map(str, error.absolute_path))}: {error.message}"


def _taken_back(node: Any) -> Any:
    """Allow null everywhere, and drop what cannot be meant: `required: true`, an object that is an enum."""
    if isinstance(node, list):
        return [_taken_back(item) for item in node]
    if not isinstance(node, dict):
        return node
    loose = {key: value if key == "example" else _taken_back(value) for key, value in node.items()}
    if isinstance(loose.get("$ref"), str):
        reference = {"$ref": loose["$ref"].replace("#/", f"{URI}#/")}
        return {"anyOf": [reference, {"type": "null"}]} if "schemas" in loose["$ref"] else reference
    if isinstance(loose.get("required"), bool):
        del loose["required"]
    if isinstance(loose.get("required"), list):
        loose["required"] = [name for name in loose["required"] if name not in MISSING_IN_FACT]
    if isinstance(loose.get("enum"), list):
        loose.pop("type", None)
        loose["enum"] = [*loose["enum"], None]
    if isinstance(loose.get("type"), str) and loose["type"] in JSON_TYPES:
        loose["type"] = [loose["type"], "null"]
    return loose


JSON_TYPES: Final = {"object", "array", "string", "number", "integer", "boolean"}


@pytest.fixture(scope="module")
def schemas(waha_fixtures: Path) -> Schemas:
    return Schemas(msgspec.json.decode((waha_fixtures / "openapi.json").read_bytes()))


def captured(folder: Path, name: str) -> Got:
    """Read a capture: the request line, headers, an empty line and the body."""
    (path,) = (folder / "captures").glob(f"*{name}*.http")
    head, _, body = path.read_bytes().partition(b"\r\n\r\n" if b"\r\n\r\n" in path.read_bytes() else b"\n\n")
    lines = head.decode().splitlines()
    headers = dict(line.split(": ", 1) for line in lines[1:])
    return Got("POST", lines[0].split()[1], {key.lower(): value for key, value in headers.items()}, body, 0)


def shape(value: Any) -> Any:
    """Return the keys of a value in their order, and the kind of everything in it."""
    if isinstance(value, dict):
        return [(key, shape(item)) for key, item in value.items()]
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value).__name__


def only(on: Stage, event: str, **payload: Any) -> Any:
    """Return the one event of a name whose payload has these values."""
    fitting = [
        body
        for body in on.hook.events(event)
        if all(body["payload"].get(key) == value for key, value in payload.items())
    ]
    assert len(fitting) == 1, fitting
    return fitting[0]


def test_what_waha_was_seen_to_say_fits_what_is_left_of_its_description(
    waha_fixtures: Path, schemas: Schemas
) -> None:
    for path in sorted((waha_fixtures / "captures").glob("*.http")):
        name = path.stem.removeprefix("waha-final-").partition("-")[0]
        schemas.check_webhook(captured(waha_fixtures, name).json)


def test_the_validators_see_what_is_wrong(schemas: Schemas, waha_fixtures: Path) -> None:
    good = captured(waha_fixtures, "0005").json
    for wrong in ({"timestamp": "now"}, {"payload": {**good["payload"], "ack": 9}}):
        with pytest.raises(AssertionError):
            schemas.check_webhook({**good, **wrong})
    with pytest.raises(AssertionError):
        schemas.check_answer("get", "/api/server/version", 200, {"version": 1})


async def test_noweb_says_key_by_key_what_was_captured(waha_fixtures: Path) -> None:
    headers = [{"name": "X-Tenant", "value": "org42"}]
    async with stage(engine="NOWEB", version=CAPTURED, auto_scan=False) as on:
        events = ("message", "message.any", "message.ack", "session.status")
        hook = on.webhook(*events, customHeaders=headers)
        config = {"webhooks": [hook], "metadata": {"org": "42"}}
        await on.post("/api/sessions", name="org42-main", start=True, config=config)
        await on.hook.wait(2)
        await on.phone.scan("org42-main", phone="5511988887777")
        assert await on.phone.wait_idle()
        await on.phone.say("org42-main", CUSTOMER, "olá – quanto custa? 😀", push_name="Maria")
        await on.phone.say("org42-main", "5511933332222", "group msg", group=GROUP)
        await on.phone.set_acks([1])
        await on.send("Custa R$ 10", session="org42-main")
        assert await on.phone.wait_idle()

        direct, group = {"from": CHAT, "fromMe": False}, {"from": GROUP}
        for name, said in (
            ("0002", only(on, "session.status", status="SCAN_QR_CODE")),
            ("0004", only(on, "session.status", status="WORKING")),
            ("0005", only(on, "message", **direct)),
            ("0006", only(on, "message.any", **direct)),
            ("0009", only(on, "message", **group)),
            ("0010", only(on, "message.any", **group)),
            ("0011", only(on, "message.any", fromMe=True)),
            ("0012", only(on, "message.ack")),
        ):
            seen = captured(waha_fixtures, name)
            assert shape(said) == shape(seen.json), name
            assert said["environment"] == seen.json["environment"]
            assert said["metadata"] == seen.json["metadata"]
            same = ("body", "from", "to", "participant", "source", "ack", "ackName", "status", "name")
            assert [said["payload"].get(key) for key in same] == [
                seen.json["payload"].get(key) for key in same
            ]
        working = only(on, "session.status", status="WORKING")
        assert working["me"] == captured(waha_fixtures, "0004").json["me"]
        starting = min(on.hook.events("session.status"), key=lambda body: body["timestamp"])
        assert shape(starting) == shape(captured(waha_fixtures, "0001").json)
        seen_headers = set(captured(waha_fixtures, "0005").headers)
        assert set(on.hook.got[-1].headers) == seen_headers


async def test_what_was_captured_and_what_is_sent_is_signed_alike(waha_fixtures: Path) -> None:
    async with stage(engine="NOWEB") as on:
        await on.session()
        for got in (captured(waha_fixtures, "0005"), on.hook.got[0]):
            signature = got.headers["x-webhook-hmac"].encode()
            Verifier([KEY]).check([signature], [got.headers["x-webhook-hmac-algorithm"].encode()], got.body)


@pytest.mark.parametrize("sample", ["composed.message.text.dm", "composed.message.text.lid"])
async def test_gows_says_key_by_key_what_is_in_the_samples(waha_fixtures: Path, sample: str) -> None:
    async with stage(engine="GOWS") as on:
        await on.session(
            webhooks=[on.webhook("message")], config={"metadata": {"user.id": "1", "user.email": "e"}}
        )
        await on.phone.say("main", CUSTOMER, "hi", as_lid="lid" in sample)
        assert await on.phone.wait_idle()
        (said,) = on.hook.events()
        seen = msgspec.json.decode((waha_fixtures / "samples" / f"{sample}.GOWS.json").read_bytes())
        said["environment"]["worker"]["id"] = "waha-1"
        assert shape(said) == shape(seen)


@pytest.mark.parametrize("engine", ["WEBJS", "WPP", "NOWEB", "GOWS"])
async def test_every_webhook_fits_the_description(schemas: Schemas, engine: str) -> None:
    async with stage(engine=engine) as on:
        await on.session(webhooks=[on.webhook("*")], config=STORE)
        asked = await on.phone.say("main", CUSTOMER, "oi", twin=True)
        await on.phone.say("main", CUSTOMER, "a picture", media=True)
        await on.phone.say("main", CUSTOMER, "oi all", group=GROUP)
        await on.phone.type_as_agent("main", CUSTOMER, "typed")
        await on.phone.type_as_agent("main", GROUP, "typed in a group", reply_to=asked)
        await on.send("sent", reply_to=f"false_{CHAT}_{asked}")
        await on.phone.react("main", asked, "👍", from_me=True)
        await on.phone.edit("main", asked, "olá")
        await on.phone.revoke("main", asked)
        for call in KINDS:
            await on.give(call, reply_to=f"false_{CHAT}_{asked}")
            await on.give(call, GROUP)
        for what in ACTS:
            await on.act(what, f"false_{CHAT}_{asked}")
        await on.phone.fault("error_ack", error={"code": "463", "blocked": True})
        await on.send("refused")
        await on.phone.restrict("main", until=1_800_000_000)
        assert await on.phone.wait_idle()
        await on.phone.unlink("main")
        assert await on.phone.wait_idle()
        told = {body["event"] for body in on.hook.events()}
        assert told == {
            "session.status", "message", "message.any", "message.ack", "message.ack.group",
            "message.reaction", "message.edited", "message.revoked",
        }  # fmt: skip
        for body in on.hook.events():
            schemas.check_webhook(body)


@pytest.mark.parametrize("engine", ["WEBJS", "WPP", "NOWEB", "GOWS"])
async def test_every_answer_fits_the_description(schemas: Schemas, engine: str) -> None:
    async with stage(engine=engine) as on:

        async def call(method: str, path: str, body: Any = None, **query: Any) -> Any:
            """Call an operation by its path in the description, for the session `main`."""
            names = {"session": "main", "chatId": CHAT, "messageId": f"false_{CHAT}_{asked}"}
            names |= {"lid": f"9{CUSTOMER}", "phoneNumber": CUSTOMER}
            url = path
            for name, meant in names.items():
                url = url.replace(f"{{{name}}}", meant)
            response = await on.api.request(method.upper(), url, json=body, params=query)
            value = response.json() if response.content else None
            if value is not None:
                schemas.check_answer(method, path, response.status_code, value)
            return value

        asked = ""
        await call("post", "/api/sessions", {"name": "main", "start": True, "config": STORE})
        assert await on.phone.wait_idle()
        asked = await on.phone.say("main", CUSTOMER, "oi")
        await call("get", "/ping")
        for path in ("/health", "/api/server/version", "/api/version", "/api/server/status"):
            await call("get", path)
        for path in ("/api/sessions", "/api/sessions/{session}", "/api/sessions/{session}/me"):
            assert await call("get", path)
        assert await call("get", "/api/{session}/chats/overview", limit=5)
        assert await call("get", "/api/{session}/chats/{chatId}/messages", limit=5)
        assert await call("get", "/api/{session}/chats/{chatId}/messages/{messageId}")
        assert await call("get", "/api/contacts/check-exists", session="main", phone=CUSTOMER)
        for path in ("lids", "lids/count", "lids/{lid}", "lids/pn/{phoneNumber}"):
            assert await call("get", f"/api/{{session}}/{path}")
        if engine in {"NOWEB", "GOWS"}:
            await call("get", "/api/{session}/new-message-id")
        chat = {"session": "main", "chatId": CHAT}
        for path in ("/api/sendSeen", "/api/startTyping", "/api/stopTyping"):
            await call("post", path, chat)
        await call("post", "/api/{session}/presence", {"presence": "offline"})
        sent = await on.send("sent")
        if engine == "WPP":  # The others answer what the description does not say: see CONTRACT 7.4.
            schemas.check_answer("post", "/api/sendText", sent.status_code, sent.json())
        for path in KINDS.keys() - {"sendText"}:
            answered = await on.give(path)
            schemas.check_answer("post", f"/api/{path}", answered.status_code, answered.json())
        message = "/api/{session}/chats/{chatId}/messages/{messageId}"
        for what, method, path in (("reaction", "put", "/api/reaction"), ("edit", "put", message)):
            acted = await on.act(what, f"false_{CHAT}_{asked}")
            assert acted.status_code == 200
            if acted.content:
                schemas.check_answer(method, path, 200, acted.json())
        await call("put", "/api/sessions/{session}", {"config": {"metadata": {"a": "1"}}})
        for path in ("stop", "start", "restart", "logout"):
            await call("post", f"/api/sessions/{{session}}/{path}")
        await call("delete", "/api/sessions/{session}")


async def test_a_code_fits_the_description(schemas: Schemas) -> None:
    async with stage(auto_scan=False) as on:
        await on.post("/api/sessions", name="main", start=True)
        for query, accept in (({"format": "raw"}, "*/*"), ({}, "application/json")):
            answer = await on.api.get("/api/main/auth/qr", params=query, headers={"Accept": accept})
            schemas.check_answer("get", "/api/{session}/auth/qr", 200, answer.json())


async def test_a_pairing_by_code_and_with_a_passkey_fits_the_description(schemas: Schemas) -> None:
    signed = {"clientDataJSON": "e30", "authenticatorData": "YQ", "signature": "YQ"}
    assertion: dict[str, Any] = {"id": "YQ", "rawId": "YQ", "type": "public-key", "response": signed}
    async with stage(auto_scan=False) as on:
        await on.post("/api/sessions", name="main", start=True, config={"webhooks": [on.webhook("*")]})
        asked = await on.post("/api/main/auth/request-code", phoneNumber="5511960001234")
        schemas.check_answer("post", "/api/{session}/auth/request-code", 201, asked)
        assert set(asked) == {"code"}
        await on.phone.scan("main", passkey=True, code="1234")
        challenge = await on.get("/api/main/auth/passkey/challenge")
        schemas.check_answer("get", "/api/{session}/auth/passkey/challenge", 200, challenge)
        await on.get("/api/main/auth/passkey/confirmation", status=422)
        assert await on.post("/api/main/auth/passkey", **assertion) is None
        compare = await on.get("/api/main/auth/passkey/confirmation")
        schemas.check_answer("get", "/api/{session}/auth/passkey/confirmation", 200, compare)
        assert await on.post("/api/main/auth/passkey/confirm") is None
        assert await on.phone.wait_idle()
        told = {body["payload"]["status"]: body for body in on.hook.events("session.status")}
        assert told["PASSKEY_REQUIRED"]["payload"]["data"] == challenge
        assert told["PASSKEY_CONFIRMATION_REQUIRED"]["payload"]["data"] == compare == {"code": "1234"}
        assert told["WORKING"]["payload"]["data"] is None
        for body in on.hook.events():
            schemas.check_webhook(body)


async def test_what_is_asked_in_pairing_is_what_the_description_knows(waha_fixtures: Path) -> None:
    openapi = msgspec.json.decode((waha_fixtures / "openapi.json").read_bytes())
    for method, path in (
        ("post", "request-code"),
        ("post", "passkey"),
        ("post", "passkey/confirm"),
        ("get", "passkey/challenge"),
        ("get", "passkey/confirmation"),
    ):
        assert method in openapi["paths"][f"/api/{{session}}/auth/{path}"]
    required = openapi["components"]["schemas"]["RequestCodeRequest"]["required"]
    assert required == ["phoneNumber"]
