"""What a file is, by its bytes; and where one may be fetched from."""

from ipaddress import ip_address

import pytest

from wsm.core.addresses import Place, is_listed, is_public, place_of, redirected
from wsm.core.content import Content, File, Image, MediaSource, Video, Voice
from wsm.core.errors import BadInput
from wsm.core.media import loaded, sniffed

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(64)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
OGG = b"OggS\x00\x02" + bytes(22) + b"\x01\x13OpusHead" + bytes(40)
MP4 = b"\x00\x00\x00\x20ftypisom" + bytes(64)
PDF = b"%PDF-1.7\n" + bytes(64)
ZIP = b"PK\x03\x04" + bytes(64)
SOURCE = MediaSource(stored=1)


@pytest.mark.parametrize(
    ("head", "mimetype"),
    [
        (JPEG, "image/jpeg"),
        (PNG, "image/png"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "audio/wav"),
        (OGG, "audio/ogg"),
        (b"OggS\x00\x02" + bytes(22) + b"\x01*\x80theora", "video/ogg"),
        (b"ID3\x04", "audio/mpeg"),
        (b"\xff\xfb\x90\x00", "audio/mpeg"),
        (b"\xff\xf1\x50\x80", "audio/aac"),
        (b"#!AMR\n", "audio/amr"),
        (b"\x00\x00\x00\x18ftypM4A ", "audio/mp4"),
        (MP4, "video/mp4"),
        (b"\x00\x00\x00\x14ftyp3gp5", "video/3gpp"),
        (b"\x00\x00\x00\x14ftypqt  ", "video/quicktime"),
        (b"\x00\x00\x00\x18ftypheic", "image/heic"),
        (b"\x1a\x45\xdf\xa3\x01webm", "video/webm"),
        (PDF, "application/pdf"),
        (ZIP, "application/zip"),
        (b"<html>", None),
        (b"", None),
        (b"\xff", None),
    ],
)
def test_a_file_is_what_its_bytes_say(head: bytes, mimetype: str | None) -> None:
    assert sniffed(head) == mimetype


@pytest.mark.parametrize(
    ("content", "file", "said", "says"),
    [
        (Image(media=SOURCE), PDF, "image/jpeg", "is application/pdf, and no image"),
        (Image(media=SOURCE), b"<svg/>", "image/svg+xml", "and no image"),
        (Image(media=SOURCE), b"\x00\x00\x00\x18ftypheic", None, "shows no image/heic"),
        (Image(media=SOURCE), b"", "image/jpeg", "empty"),
        (Voice(media=SOURCE), MP4, "audio/mp4", "is video/mp4, and no audio"),
        (Video(media=SOURCE), JPEG, "video/mp4", "is image/jpeg, and no video"),
        (File(media=SOURCE), JPEG, None, "not among media_types"),
    ],
)
def test_what_is_none_of_its_kind_is_refused(content: Content, file: bytes, said: str, says: str) -> None:
    types = ("application/*",) if isinstance(content, File) else ()
    with pytest.raises(BadInput, match=says):
        loaded(content, file, said=said, types=types)


@pytest.mark.parametrize(
    ("content", "file", "said", "filename", "mimetype"),
    [
        (Image(media=SOURCE), PNG, "text/html", None, "image/png"),
        (Voice(media=SOURCE), OGG, None, None, "audio/ogg"),
        (File(media=SOURCE), JPEG, "application/pdf", "a.pdf", "image/jpeg"),
        (File(media=SOURCE), ZIP, None, "a.docx",
         "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        (File(media=SOURCE), b"a;b\n1;2\n", None, "b.CSV", "text/csv"),
        (File(media=SOURCE), b"\x00\x01", "image/png", None, "application/octet-stream"),
        (File(media=SOURCE), b"\x00\x01", "application/x-own", None, "application/x-own"),
    ],
)  # fmt: skip
def test_what_a_file_is_called_counts_where_its_bytes_say_nothing(
    content: Content, file: bytes, said: str, filename: str, mimetype: str
) -> None:
    found = loaded(content, file, said=said, filename=filename, types=("*/*",))
    assert (found.mimetype, found.content) == (mimetype, file)
    assert found.filename == (filename or ("file" if isinstance(content, File) else None))
    assert file.hex() not in repr(found)


def test_what_the_sender_calls_a_file_goes_before_what_its_source_does() -> None:
    source = MediaSource(stored=1, filename="nota.pdf", mimetype="application/x-nota")
    found = loaded(File(media=source), b"\x00\x01", said="text/plain", filename="x.bin")
    assert (found.filename, found.mimetype) == ("nota.pdf", "application/x-nota")


# Addresses


NOT_PUBLIC = (
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.9.9.9", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1",
    "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1",
    "255.255.255.255",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1",
    "100::1", "2001::1", "2001:0:4136:e378::1", "2001:10::1", "2001:20::1", "2001:db8::1",
    "2002:7f00:1::1", "2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd12:3456::1", "fe80::1",
    "fe80::1%eth0", "2606:4700::1%1", "fec0::1", "ff02::1",
)  # fmt: skip


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_nobody_near_us_is_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "100.63.255.255", "100.128.0.1", "172.32.0.1", "2606:4700::1111", "2a00:1450::1"]
)
def test_the_internet_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "", "file:///etc/passwd", "ftp://example.com/a", "gopher://example.com", "//example.com/a", "https://",
        "https:///a", "https://user@example.com/", "https://user:secret@example.com/", "https://@example.com/",
        "https://example.com:22/", "https://example.com:25/", "https://example.com:0/",
        "https://example.com:99999/", "https://exa mple.com/", "https://example.com/a\r\nHost: b",
        "https://example.com\\@127.0.0.1/", "https://127.0.0.1/", "http://2130706433/", "http://0177.0.0.1/",
        "http://0x7f.0.0.1/", "http://0x7f000001/", "http://127.1/", "http://127.0.1/", "http://0/",
        "http://017700000001/", "http://0x/", "http://1.2.3.4.5/", "http://[::1]/", "http://[::ffff:10.0.0.1]/",
        "http://[::ffff:0a00:1]/", "http://[fe80::1%25eth0]/", "http://[2002:7f00:1::]/", "http://[::]/",
        "http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://127.0.0.1./", "http://169.254.169.254/latest/",
        "http://%31%32%37.0.0.1/", "https://-a.example/", "https://exam_ple..com/",
        f"https://{'a' * 64}.com/", "https://example.com/\udcff",
    ],
)  # fmt: skip
def test_a_url_that_names_nobody_in_the_internet_is_refused(url: str) -> None:
    with pytest.raises(BadInput) as caught:
        place_of(url)
    assert caught.value.field == "url"
    assert "secret" not in str(caught.value)
    assert "127" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://example.com", Place("https", "example.com", 443, "/")),
        ("HTTPS://Example.COM./a?b=c#d", Place("https", "example.com", 443, "/a?b=c")),
        ("http://example.com:8080/a%20b", Place("http", "example.com", 8080, "/a%20b")),
        ("http://example.com:443/", Place("http", "example.com", 443, "/")),
        ("https://8.8.8.8/ã", Place("https", "8.8.8.8", 443, "/%C3%A3")),
        ("https://[2606:4700::0001]:8443/", Place("https", "2606:4700::1", 8443, "/")),
        ("https://São-Paulo.example/", Place("https", "xn--so-paulo-rza.example", 443, "/")),
        ("https://my_bucket.example/x", Place("https", "my_bucket.example", 443, "/x")),
    ],
)
def test_a_url_is_taken_apart_the_way_it_is_connected_to(url: str, place: Place) -> None:
    assert place_of(url) == place


def test_a_host_is_called_with_its_port_where_its_scheme_has_another() -> None:
    assert place_of("https://example.com/").authority == "example.com"
    assert place_of("http://example.com:8080/").authority == "example.com:8080"
    assert place_of("https://[2606:4700::1]/").authority == "[2606:4700::1]"


@pytest.mark.parametrize(
    ("location", "leads"),
    [
        ("/b", "https://example.com/b"),
        ("c?d", "https://example.com/a/c?d"),
        ("//cdn.example.com/x", "https://cdn.example.com/x"),
        ("https://other.example:8443/", "https://other.example:8443/"),
    ],
)
def test_a_redirection_is_judged_like_a_url(location: str, leads: str) -> None:
    assert redirected(place_of("https://example.com/a/b"), location) == place_of(leads)


@pytest.mark.parametrize(
    "location",
    ["http://example.com/", "https://10.0.0.1/", "//127.0.0.1/", "file:///etc/passwd", "https://a@b/", "//["],
)
def test_a_redirection_leads_to_nobody_near_us_and_not_out_of_tls(location: str) -> None:
    with pytest.raises(BadInput):
        redirected(place_of("https://example.com/"), location)


def test_a_list_of_hosts_lets_these_and_nobody_else() -> None:
    assert is_listed("anything.example", ())
    listed = ("cdn.example.com", "*.Example.org")
    assert is_listed("cdn.example.com", listed)
    assert is_listed("a.b.example.org", listed)
    for other in ("example.com", "a.cdn.example.com", "example.org", "evilexample.org", "example.org.evil"):
        assert not is_listed(other, listed)
