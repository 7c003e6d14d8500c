"""What a client says on one connection: requests written as bytes, framed in odd ways, broken, cut, piled up.

`talk(seed, number)` gives the same talk for the same two numbers.
"""

from functools import cache
from random import Random

import msgspec

from chaos.fuzz_inputs import Input, make

_ENDINGS = ("half", "half", "half", "half", "half", "reset", "close")
_REQUEST_LINES = (
    b"GET / HTTP/1.1", b"POST / HTTP/9.9", b"PRI * HTTP/2.0", b"POST", b"", b"POST  /webhooks/waha  HTTP/1.1",
    b"CONNECT x:1 HTTP/1.1", b"OPTIONS * HTTP/1.1", b"POST http://x/webhooks/waha HTTP/1.1", b"GET /healthz",
    b"POST /webhooks/waha HTTP/1.0", b"post /webhooks/waha HTTP/1.1", b"POST //x/webhooks/waha HTTP/1.1",
    b"POST /webhooks/waha\xff HTTP/1.1", b"POST /webhooks/waha?\xff#f HTTP/1.1", b"GET /%FF%00 HTTP/1.1",
    b"\x16\x03\x01\x02\x00\x01\x00", b"M-SEARCH * HTTP/1.1", b"POST /" + b"x" * 9_000 + b" HTTP/1.1",
    b"POST http:///// HTTP/1.1", b"POST ?x HTTP/1.1", b"GET http://[::1/ HTTP/1.1", b"GET /metrics HTTP/1.1",
)  # fmt: skip
_LINES = (
    b"content-length: 5", b"content-length: 0", b"content-length: -1",
    b"content-length: 99999999999999999999",
    b"content-length: 5, 5", b"Content-Length : 5", b"transfer-encoding: chunked", b"transfer-encoding: gzip",
    b"transfer-encoding: chunked, identity", b"Transfer-Encoding:\tchunked", b" folded: x", b"\tfolded",
    b": x",
    b"no colon", b"x: \x00", b"x: \x80\xff", b"x: a\rb", b"connection: close", b"connection: upgrade",
    b"upgrade: h2c",
    b"upgrade: websocket", b"expect: 100-continue", b"x: " + b"y" * 70_000, b"trailer: x",
    b"host: a\r\nhost: b",
    b"http2-settings: AAMAAABkAAQAAP__", b"te: trailers", b"x-webhook-hmac: " + b"0" * 128,
    b"keep-alive: 9999999",
)  # fmt: skip
_SIZES = (
    b"0", b"-1", b"ffffffffffffffff", b"fffffffffffffffff", b"7fffffffffffffff", b"5;ext=\x00", b"5 ",
    b" 5", b"0x5",
    b"", b"5\n", b"+5", b"00000000000000005", b"5;" + b"e" * 20_000, b"zz",
)  # fmt: skip


class Talk(msgspec.Struct, frozen=True):
    """What is said and how it ends: `half` closes the own direction, `reset` aborts, `close` hears nothing.

    whole  the statuses that must be answered when nothing is broken; None when something is
    """

    pieces: tuple[bytes, ...]
    ending: str
    whole: tuple[int, ...] | None


def talk(seed: int, number: int) -> Talk:
    """Make the talk of this number."""
    chance = Random(seed << 41 | number)
    said, whole = b"", []
    is_whole = chance.random() < 0.4
    for index in range(chance.choice((1, 1, 1, 1, 2, 3, 8, 20))):
        if is_whole:
            said += _written(chance.choice(_true_ones(seed)), chance)
            whole.append(200)
        else:
            said += _broken(chance, _written(make(seed, number * 32 + index), chance))
    pieces = [said]
    if chance.random() < 0.3 and len(said) > 1:
        cuts = sorted(chance.randrange(len(said)) for _ in range(chance.choice((1, 2, 8))))
        pieces = [said[a:b] for a, b in zip([0, *cuts], [*cuts, len(said)], strict=True)]
    return Talk(tuple(pieces), chance.choice(_ENDINGS), tuple(whole) if is_whole else None)


@cache
def _true_ones(seed: int) -> tuple[Input, ...]:
    """Some webhooks as WAHA sends them, in a request that every parser takes."""
    found = (make(seed, number) for number in range(2_000))
    return tuple(
        given for given in found if given.true and given.query.isascii() and b"\0" not in given.query
    )


def _written(given: Input, chance: Random) -> bytes:
    """Write a request as a client does, its body in one piece or in chunks."""
    target = given.path + (b"?" + given.query if given.query else b"")
    lines = [b"%s %s HTTP/1.1" % (given.method.encode("latin-1"), target), b"host: ingest"]
    chunked = chance.random() < 0.3
    for name, value in given.headers:
        if name not in (b"content-length", b"transfer-encoding") or not given.true:
            lines.append(name + b": " + value)
    if given.true:
        lines = [line for line in lines if not _is_control(line)]
        lines.append(b"transfer-encoding: chunked" if chunked else b"content-length: %d" % len(given.body))
    body = given.body
    if chunked:
        body = (
            b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in given.chunks if chunk) + b"0\r\n\r\n"
        )
    return b"\r\n".join([*lines, b"", body])


def _is_control(line: bytes) -> bool:
    """A header that is odd by itself, and has no place in a request that must be answered 200."""
    return (
        line.startswith((b"connection:", b"upgrade:", b"expect:", b":", b"x-webhook-hmac2"))
        or b"\xff" in line
    )


def _broken(chance: Random, written: bytes) -> bytes:
    """Break a request in one way, or leave it."""
    head, _, body = written.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    what = chance.randrange(9)
    at = chance.randrange(len(written) + 1)
    if what == 0:
        lines[0] = chance.choice(_REQUEST_LINES)
    elif what in (1, 2):
        lines.insert(chance.randrange(1, len(lines) + 1), chance.choice(_LINES))
    elif what == 3:
        return written[:at]
    elif what == 4:
        return written[:at] + chance.randbytes(chance.randrange(1, 9)) + written[at + chance.randrange(9) :]
    elif what == 5:
        lines = [line for line in lines if not line.startswith(b"content-length")]
        lines.append(b"transfer-encoding: chunked")
        body = chance.choice(_SIZES) + chance.choice((b"\r\n", b"\n", b"\r", b"")) + body
    elif what == 6:
        return written.replace(b"\r\n", chance.choice((b"\n", b"\r", b"\r\r\n", b"\r\n\r\n")))
    elif what == 7:
        return chance.randbytes(chance.randrange(400))
    return b"\r\n".join([*lines, b"", body])
