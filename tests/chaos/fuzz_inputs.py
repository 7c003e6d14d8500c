"""Requests that are almost right, and what the answer to each has to be.

`make(seed, number)` gives the same request for the same two numbers, for ever on one version of this file.
`expected` is written from the promises, not from the app: what is signed rightly is told by `hmac` alone.
"""

import hashlib
import hmac
import re
from random import Random
from urllib.parse import parse_qsl

import msgspec

from chaos.fuzz_bodies import body
from ingesting import ANN, BOB, BODY_LIMIT, HOOK, HOOK_SECRETS, path_of, secret_of
from wsm.core.ids import SessionAddress

SESSIONS = {ANN: (1, 2), BOB: (1,)}
"""Who may sign, with which generations of his secret."""

Header = tuple[bytes, bytes]


class Input(msgspec.Struct, frozen=True):
    """A request.

    chunks  its body as it arrives; left: the client leaves after them, before the end
    true    it is a webhook exactly as WAHA sends it
    client  the address that it comes from
    """

    method: str
    path: bytes
    query: bytes
    headers: tuple[Header, ...]
    chunks: tuple[bytes, ...]
    left: bool
    true: bool
    client: str = "192.0.2.1"

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)


_ALL_SECRETS = (
    secret_of(ANN),
    secret_of(BOB),
    secret_of(ANN, 2),
    "hook-old",
    "hook-new",
    "hook-other",
    "",
    "x",
)
_PATHS = (
    b"/webhooks/waha/", b"/webhooks/waha//", b"/webhooks/waha/0/x", b"/webhooks/waha/01/user_77",
    b"/webhooks/waha/77", b"/webhooks/waha/77/", b"/webhooks/waha/77/user_77/", b"/webhooks/waha/77//user_77",
    b"/webhooks/waha/+77/user_77", b"/webhooks/waha/77/user%5f77", b"/webhooks/waha/7%37/user_77",
    b"/webhooks/waha/99999999999999999999/user_77", b"/webhooks/waha/9999999999999999999/user_77",
    b"/webhooks/waha/1/user_1", b"/webhooks/waha/77/user_1460561546", b"/webhooks/waha/1460561546/user_77",
    b"/webhooks/../webhooks/waha/77/user_77", b"/webhooks/waha/77/user_77\n", b"/WEBHOOKS/waha/77/user_77",
    b"/webhooks/waha/77/user_77;x", b"/webhooks/waha/77/\xff\xfe", b"/webhooks/waha/77/" + b"x" * 5_000,
    b"/", b"",
    b"*", b"//", b"/healthz", b"/readyz", b"/metrics", b"/%68ealthz", b"/healthz/", b"/docs", b"/\x00",
    b"/webhooks/waha%00", b"/webhooks/waha/\xd9\xa1/user_77",
)  # fmt: skip
_QUERIES = (
    b"server=default", b"server=other", b"server=mute", b"server=nobody", b"server=", b"server", b"=", b"&&&",
    b"server=default&server=default", b"server=default&server=other", b"server=%64efault", b"server=%ff%fe",
    b"server=default%00", b"SERVER=other", b"a=1&server=other", b"a=1;server=other", b"server=other;a=1",
    b"x=1&" * 40 + b"server=other", b"server=" + b"y" * 9_000, b"\xff\xfe=\x00", b"server[]=other", b"%",
    b"%zz=%",
    b"a=1&" * 15 + b"server=default", b"a=1&" * 16 + b"server=default",
)  # fmt: skip
_METHODS = ("GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "post", "POSTS", "", "TRACE", "\xff")
_OTHER_HEADERS = (
    (b"content-type", b"application/json"), (b"content-type", b"text/html; charset=\xff"), (b"host", b""),
    (b"x-webhook-timestamp", b"never"), (b"x-webhook-request-id", b"\x80" * 300), (b"cookie", b"a=b;" * 900),
    (b"expect", b"100-continue"), (b"content-encoding", b"gzip"), (b"x-forwarded-for", b"127.0.0.1, \xff"),
    (b"authorization", b"Bearer x"), (b"x-http-method-override", b"GET"), (b"", b""), (b"upgrade",
    b"websocket"),
    (b"connection", b"upgrade"), (b"transfer-encoding", b"chunked"), (b"x-webhook-hmac2", b"0" * 128),
)  # fmt: skip
_LENGTHS = (
    b"", b"0", b"-1", b"+5", b"1e3", b"0x10", b" 5", b"5 ", b"5,5", b"\xb2", b"\xd9\xa1", b"9" * 30,
    b"9" * 5_000,
    b"%d" % BODY_LIMIT, b"%d" % (BODY_LIMIT + 1), b"1_0", b"NaN",
)  # fmt: skip
_ALGORITHMS = (b"sha512", b"sha256", b"SHA512", b"", b"none", b"sha512 ", b"sha512,sha512", b"\xff", b"md5")

_SESSION_PATH = re.compile(rb"/webhooks/waha/([0-9]+)/([A-Za-z0-9_-]+)")
_OPS = (b"/healthz", b"/readyz", b"/metrics")


def make(seed: int, number: int) -> Input:
    """Make the request of this number."""
    chance = Random(seed << 40 | number)
    address = chance.choice((ANN, ANN, BOB))
    made, true = body(chance, address, number)
    if chance.random() < 0.005:
        made, true = made + b" " * chance.choice((BODY_LIMIT - len(made), BODY_LIMIT, 3 * BODY_LIMIT)), False
    method, path, query, secret, is_usual = _aim(chance, address)
    signing, is_signed = _signing(chance, made, secret)
    framing, chunks, is_whole = _framing(chance, made)
    left = chance.random() < 0.02
    if left:
        chunks = chunks[: chance.randrange(len(chunks) + 1)]
    more = [chance.choice(_OTHER_HEADERS) for _ in range(chance.choice((0, 0, 1, 2, 5)))]
    headers = [*signing, *framing, *more]
    chance.shuffle(headers)
    true = true and is_usual and is_signed and is_whole and not left
    client = f"2001:db8::{chance.randrange(1 << 16):x}"
    return Input(method, path, query, tuple(headers), tuple(chunks), left, true, client)


def _aim(chance: Random, address: SessionAddress) -> tuple[str, bytes, bytes, str, bool]:
    """Choose method, path, query and secret; say whether WAHA would choose so."""
    path, query, secret, is_usual = path_of(address).encode(), b"", secret_of(address), True
    odd = chance.random()
    if odd < 0.03:
        secret = secret_of(ANN, 2) if address == ANN else secret
    elif odd < 0.15:
        path, query = HOOK.encode(), chance.choice((b"", b"server=default", *_QUERIES))
        secret = "hook-other" if b"other" in query else chance.choice(("hook-old", "hook-new"))
        is_usual = query in (b"", b"server=default")
    elif odd < 0.22:
        path, is_usual = chance.choice(_PATHS), False
    elif odd < 0.24:
        query = chance.choice(_QUERIES)
    if chance.random() < 0.02:
        return chance.choice(_METHODS), path, query, secret, False
    return "POST", path, query, secret, is_usual


def _signing(chance: Random, made: bytes, secret: str) -> tuple[list[Header], bool]:
    """Sign, mostly rightly; say whether it is right."""
    right = _signature(secret, made)
    odd = chance.random()
    algorithm = [(b"x-webhook-hmac-algorithm", b"sha512")] if chance.random() < 0.8 else []
    if odd < 0.75:
        return [(b"x-webhook-hmac", right), *algorithm], True
    if odd < 0.79:
        named = [
            (b"x-webhook-hmac-algorithm", chance.choice(_ALGORITHMS)) for _ in range(chance.randrange(3))
        ]
        return [(b"x-webhook-hmac", right), *named], all(value == b"sha512" for _, value in named)
    if odd < 0.84:
        return [(b"x-webhook-hmac", _signature(chance.choice(_ALL_SECRETS), made)), *algorithm], False
    if odd < 0.88:
        return [(b"x-webhook-hmac", _signature(secret, made + b" ")), *algorithm], False
    at = chance.randrange(128)
    wrong: tuple[list[bytes], ...] = (
        [], [right, right], [right, b""], [right[:-1]], [right + b"0"], [right.upper()], [b" " + right],
        [b""],
        [right[:at] + b"%x" % chance.randrange(16) + right[at + 1 :]], [b"0" * 128], [right * 50],
        [b"\xff" * 128],
        [right + b"\n"], [bytes.fromhex(right.decode())], [hmac.digest(secret.encode(),
        made, "sha256").hex().encode()],
        [b"sha512=" + right], [right + b"," + right], [b"null"], [right[:at] + b"\x00" + right[at + 1 :]],
    )  # fmt: skip
    return [*((b"x-webhook-hmac", value) for value in chance.choice(wrong)), *algorithm], False


def _framing(chance: Random, made: bytes) -> tuple[list[Header], list[bytes], bool]:
    """Cut the body into chunks and say its length; say whether that is what it should be."""
    chunks = [made]
    if chance.random() < 0.2:
        cuts = sorted(chance.randrange(len(made) + 1) for _ in range(chance.choice((1, 2, 9, 40))))
        chunks = [made[a:b] for a, b in zip([0, *cuts], [*cuts, len(made)], strict=True)]
    odd = chance.random()
    if odd < 0.85:
        return [(b"content-length", b"%d" % len(made))], chunks, len(made) <= BODY_LIMIT
    if odd < 0.9:
        return [(b"transfer-encoding", b"chunked")], chunks, True
    return (
        [(b"content-length", chance.choice(_LENGTHS)) for _ in range(chance.randrange(1, 3))],
        chunks,
        False,
    )


def expected(given: Input) -> frozenset[int]:
    """Say what may be answered; nothing when the client left."""
    if given.path in _OPS:
        return frozenset({200 if given.method == "GET" else 404})
    secrets = _secrets(given)
    if secrets is None:
        return frozenset({404})
    if given.method != "POST":
        return frozenset({405})
    if _is_too_large(given):
        return frozenset({413})
    return frozenset() if given.left else _of_whole(given, secrets)


def _is_too_large(given: Input) -> bool:
    lengths = [value for name, value in given.headers if name == b"content-length"]
    said = lengths[-1] if lengths else b"0"
    return not re.fullmatch(rb"[0-9]{1,18}", said) or max(int(said), len(given.body)) > BODY_LIMIT


def _of_whole(given: Input, secrets: tuple[str, ...]) -> frozenset[int]:
    if not is_signed(given, secrets):
        return frozenset({403})
    return frozenset({200}) if given.true else frozenset({200, 400, 403})


def is_signed(given: Input, secrets: tuple[str, ...]) -> bool:
    """Tell whether one of the secrets signed it, with one signature by the one algorithm."""
    signatures = [value for name, value in given.headers if name == b"x-webhook-hmac"]
    algorithms = {value for name, value in given.headers if name == b"x-webhook-hmac-algorithm"}
    if len(signatures) != 1 or not algorithms <= {b"sha512"}:
        return False
    return signatures[0] in {_signature(secret, given.body) for secret in secrets}


def tenant_of(given: Input) -> int | None:
    """Whose a session's path is; None for the shared hook and all else."""
    named = _SESSION_PATH.fullmatch(given.path)
    return int(named[1]) if named else None


def _secrets(given: Input) -> tuple[str, ...] | None:
    """The secrets that are valid at a path; None where nobody may post."""
    if given.path == HOOK.encode():
        servers = [value for name, value in _fields(given.query) if name == "server"]
        name = servers[0] if len(servers) == 1 else "" if servers else "default"
        return HOOK_SECRETS.get(name, ())
    named = _SESSION_PATH.fullmatch(given.path)
    if named is None or len(named[1]) > 19 or named[1].startswith(b"0") or len(named[2]) > 54:
        return None
    for address, generations in SESSIONS.items():
        if (int(named[1]), named[2].decode()) == (address.tenant, address.session):
            return tuple(secret_of(address, generation) for generation in generations)
    return ()


def _fields(query: bytes) -> list[tuple[str, str]]:
    fields = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return fields if query.count(b"&") < 16 else [("server", ""), ("server", "")]


def _signature(secret: str, made: bytes) -> bytes:
    return hmac.new(secret.encode(), made, hashlib.sha512).hexdigest().encode()
