"""The signature, on its own; then over every sample and capture, when they are given."""

import json
from pathlib import Path

import pytest

from wsm.core.errors import BadInput, Forbidden
from wsm.core.ids import SessionAddress, SessionName, TenantId
from wsm.wire.signature import Verifier, session_secret, sign

DOCS_KEY = "my-secret-key"
DOCS_BODY = b'{"event":"message","session":"default","engine":"WEBJS"}'
DOCS_HEX = (
    b"208f8a55dde9e05519e898b10b89bf0d0b3b0fdf11fdbf09b6b90476301b98d8"
    b"097c462b2b17a6ce93b6b47a136cf2e78a33a63f6752c2c1631777076153fa89"
)
SHA512 = [b"sha512"]
ADDRESS = SessionAddress(TenantId(1460561546), SessionName("user_1460561546"))


def refusal(verifier: Verifier, signatures: list[bytes], algorithms: list[bytes], body: bytes) -> str:
    with pytest.raises(Forbidden) as caught:
        verifier.check(signatures, algorithms, body)
    return caught.value.reason


def test_the_published_vector_is_accepted() -> None:
    Verifier([DOCS_KEY]).check([DOCS_HEX], SHA512, DOCS_BODY)
    assert sign(DOCS_KEY, DOCS_BODY).encode() == DOCS_HEX


def test_the_algorithm_header_may_be_missing() -> None:
    Verifier([DOCS_KEY]).check([DOCS_HEX], [], DOCS_BODY)


def test_any_of_the_valid_secrets_is_enough() -> None:
    for secrets in ([DOCS_KEY, "next"], ["old", DOCS_KEY], ["a", "b", DOCS_KEY, "d"]):
        Verifier(secrets).check([DOCS_HEX], SHA512, DOCS_BODY)


def test_one_verifier_serves_many_bodies() -> None:
    verifier = Verifier([DOCS_KEY])
    for number in range(3):
        body = b"%d" % number
        verifier.check([sign(DOCS_KEY, body).encode()], SHA512, body)
        assert refusal(verifier, [DOCS_HEX], SHA512, body) == "signature_mismatch"


def test_every_flipped_byte_is_refused() -> None:
    verifier = Verifier([DOCS_KEY])
    for at in range(len(DOCS_BODY)):
        flipped = bytearray(DOCS_BODY)
        flipped[at] ^= 1
        assert refusal(verifier, [DOCS_HEX], SHA512, bytes(flipped)) == "signature_mismatch"
    for at in range(len(DOCS_HEX)):
        wrong = bytearray(DOCS_HEX)
        wrong[at] = ord("0") if wrong[at] != ord("0") else ord("1")
        assert refusal(verifier, [bytes(wrong)], SHA512, DOCS_BODY) == "signature_mismatch"


def test_no_secret_accepts_nothing() -> None:
    assert refusal(Verifier([]), [DOCS_HEX], SHA512, DOCS_BODY) == "signature_mismatch"


@pytest.mark.parametrize(
    ("signatures", "reason"),
    [
        ([], "signature_missing"),
        ([DOCS_HEX, DOCS_HEX], "signature_repeated"),
        ([b""], "signature_malformed"),
        ([DOCS_HEX[:-1]], "signature_malformed"),
        ([DOCS_HEX + b"0"], "signature_malformed"),
        ([DOCS_HEX + b"\n"], "signature_malformed"),
        ([b" " + DOCS_HEX], "signature_malformed"),
        ([DOCS_HEX.upper()], "signature_malformed"),
        ([b"sha512=" + DOCS_HEX[:121]], "signature_malformed"),
        ([b"g" + DOCS_HEX[1:]], "signature_malformed"),
        (["é".encode() * 64], "signature_malformed"),
        (["é".encode("latin-1") * 128], "signature_malformed"),
        (["٠".encode() * 64], "signature_malformed"),
        ([b"\0" * 128], "signature_malformed"),
    ],
)
def test_a_signature_of_another_form_is_refused(signatures: list[bytes], reason: str) -> None:
    assert refusal(Verifier([DOCS_KEY]), signatures, SHA512, DOCS_BODY) == reason


@pytest.mark.parametrize("algorithm", [b"sha256", b"SHA512", b"", b"sha512,sha1", "sha512é".encode()])
def test_another_algorithm_is_refused(algorithm: bytes) -> None:
    for algorithms in ([algorithm], [b"sha512", algorithm]):
        assert refusal(Verifier([DOCS_KEY]), [DOCS_HEX], algorithms, DOCS_BODY) == "algorithm_unsupported"


def test_a_key_outside_ascii_is_taken_as_utf_8() -> None:
    body = "olá 😀".encode()
    Verifier(["chave-ção-🔑"]).check([sign("chave-ção-🔑", body).encode()], SHA512, body)


def test_session_secrets_differ_in_every_part() -> None:
    master, other = b"m" * 32, b"n" * 32
    elsewhere = SessionAddress(TenantId(2), ADDRESS.session)
    beside = SessionAddress(ADDRESS.tenant, SessionName("user_1460561546_loja"))
    secrets = {
        session_secret(master, ADDRESS, 1),
        session_secret(master, ADDRESS, 2),
        session_secret(other, ADDRESS, 1),
        session_secret(master, elsewhere, 1),
        session_secret(master, beside, 1),
    }
    assert len(secrets) == 5
    assert session_secret(master, ADDRESS, 1) in secrets, "derived, not drawn"
    assert all(len(secret) == 64 for secret in secrets)


@pytest.mark.parametrize("name", ["", "a|1", "a b", "ção", "a" * 55, "a\n"])
def test_no_secret_is_derived_for_a_name_that_waha_would_not_take(name: str) -> None:
    with pytest.raises(BadInput, match="session"):
        session_secret(b"m" * 32, SessionAddress(TenantId(1), SessionName(name)), 1)


def test_a_short_master_key_derives_nothing() -> None:
    with pytest.raises(BadInput, match="master_keys"):
        session_secret(b"m" * 31, ADDRESS, 1)


def test_every_sample_verifies_and_none_with_a_byte_flipped(waha_fixtures: Path) -> None:
    verifier = Verifier([DOCS_KEY])
    listed = json.loads((waha_fixtures / "samples-hmac.json").read_text())
    assert len(listed) == len(list((waha_fixtures / "samples").iterdir()))
    for name, facts in listed.items():
        body = (waha_fixtures / "samples" / name).read_bytes()
        assert len(body) == facts["bytes"]
        hexed = facts["hmac_sha512_key_my-secret-key"].encode()
        verifier.check([hexed], SHA512, body)
        assert refusal(verifier, [hexed], SHA512, body[:-1] + b"]") == "signature_mismatch"


def test_every_capture_verifies_with_its_own_signature(waha_fixtures: Path) -> None:
    verifier = Verifier(["s3cr3t-key"])
    captures = sorted((waha_fixtures / "captures").glob("*.http"))
    assert captures
    for path in captures:
        head, _, body = path.read_bytes().partition(b"\r\n\r\n")
        lines = [line.partition(b": ") for line in head.split(b"\r\n")[1:]]
        hmacs = [value for name, _, value in lines if name == b"X-Webhook-Hmac"]
        algorithms = [value for name, _, value in lines if name == b"X-Webhook-Hmac-Algorithm"]
        verifier.check(hmacs, algorithms, body)
        assert refusal(verifier, hmacs, algorithms, body + b" ") == "signature_mismatch"
