"""The documents tell the truth: every name, file, command and table in them is the program's."""

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import commandline
from wsm import streams
from wsm.core import engines, outbox
from wsm.core.conversation import diagram, ticket_diagram
from wsm.streams import keys
from wsm.telemetry import metrics_page

ROOT = Path(__file__).resolve().parents[2]
ADRS = sorted((ROOT / "docs" / "adr").glob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), *ADRS]
ROOMS = (
    "bootstrap", "cli", "clock", "config", "core", "counter", "gateway", "ingest", "sandbox", "store",
    "streams", "telemetry", "wire", "worker",
)  # fmt: skip
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUOTED = re.compile(r"`([^`\n]+)`")
NAME = re.compile(rf"(?:wsm\.)?((?:{'|'.join(ROOMS)})(?:\.\w+)+)")
FILE = re.compile(
    r"(?:\.ci|bench|deploy|docs|src|streams|tests)/[\w./@*-]+|\.importlinter|[\w.]+\.(?:md|toml|lock)"
)
TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def resolve(name: str) -> Any:
    """Find what `core.conversation.step` names, under `wsm`. Raises if there is nothing."""
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(["wsm", *parts[:split]]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[split:]:
            found = getattr(found, attribute)
        return found
    raise AttributeError(name)


def quoted(page: Path) -> Iterator[str]:
    return (found[1].strip() for found in QUOTED.finditer(prose(page)))


@pages
def test_what_a_page_names_in_the_code_is_there(page: Path) -> None:
    missing = []
    for text in quoted(page):
        if (named := NAME.fullmatch(text)) is not None:
            try:
                resolve(named[1])
            except AttributeError:
                missing.append(text)
    assert not missing


def test_the_walk_names_enough_to_be_worth_checking() -> None:
    names = {text for text in quoted(ROOT / "ARCHITECTURE.md") if NAME.fullmatch(text)}
    assert len(names) > 40
    with pytest.raises(AttributeError):
        resolve("core.conversation.no_such_name")
    with pytest.raises(AttributeError):
        resolve("core.no_such_module")


@pages
def test_files_and_links_of_a_page_exist(page: Path) -> None:
    files = [text for text in quoted(page) if FILE.fullmatch(text)]
    for name in files:
        base = ROOT / "src" / "wsm" if name.startswith("streams/") else ROOT
        assert list(base.glob(name)), name
    for link in LINK.findall(prose(page)):
        assert (page.parent / link).exists(), link


@pages
def test_tests_that_a_page_names_are_there(page: Path) -> None:
    for file, name in TEST.findall(page.read_text(encoding="utf-8")):
        assert re.search(rf"^(?:async )?def {name}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE), name


@pages
def test_commands_of_a_page_exist(page: Path) -> None:
    for text in quoted(page):
        if text.startswith("wsm "):
            commandline.check(text.split()[1:])
        elif text.startswith("make "):
            check_make(text.split()[1:])
    for kind, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if kind in {"sh", "console"}:
            for line in block.splitlines():
                check_shell(line)


def check_shell(line: str) -> None:
    if (words := commandline.after_wsm(line)) is not None:
        commandline.check_complete(words)
    elif (words := shlex.split(line.removeprefix("$ "), comments=True)) and words[0] == "make":
        check_make(words[1:])


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        variable, is_assigned, _ = word.partition("=")
        pattern = rf"^{variable} \?=" if is_assigned else rf"^{re.escape(word)}:"
        assert re.search(pattern, makefile, re.MULTILINE), f"make knows no {word}"


# Pages that are printed


def test_the_page_of_metrics_is_what_the_program_prints() -> None:
    assert (ROOT / "docs" / "METRICS.md").read_text(encoding="utf-8") == metrics_page()


def test_the_table_of_kinds_is_printed_from_the_code() -> None:
    lines = (ROOT / "docs" / "SENDING.md").read_text(encoding="utf-8").splitlines()
    assert "\n".join(line for line in lines if line.startswith("|")) == engines.page()


def test_the_diagrams_are_printed_from_their_tables() -> None:
    blocks = FENCE.findall((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    drawn = [diagram() + "\n", ticket_diagram() + "\n", outbox.diagram() + "\n"]
    assert [block for kind, block in blocks if kind == "mermaid"] == drawn


# Tables


def test_every_key_of_redis_and_every_script_is_in_the_architecture() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = page.partition("## Redis")[2].partition("\n## ")[0]
    assert keys.__doc__ is not None
    known = set(re.findall(r"\b(?:wsm|rq):[\w{}:]+\b}?", keys.__doc__.replace("{name}", "{t}")))
    named = {text for text in quoted(ROOT / "ARCHITECTURE.md") if re.match("(wsm|rq):", text)}
    assert {key.replace(":turn", ":{kind}") if "mail" in key else key for key in named} == known
    scripts = {path.stem for path in (Path(streams.__file__).parent / "scripts").glob("*.lua")} - {"common"}
    assert set(re.findall(r"^\| ([A-Z]+) \|", table, re.MULTILINE)) == {name.upper() for name in scripts}


def test_every_promise_is_stated_and_names_its_proofs() -> None:
    rows = re.findall(r"^\| \*\*(P\d) .*\|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == ["P1", "P2", "P3", "P4", "P5", "P6", "P7"]


@pages
def test_a_page_keeps_to_itself(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"#\d+\b|/(?:tmp|root|home)/|https?://(?!127\.0\.0\.1)", text)


@pytest.mark.parametrize("page", ADRS, ids=lambda page: page.name)
def test_a_decision_is_numbered_dated_measured_and_says_what_it_refused(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {page.name[:4]} ")
    assert re.search(r"^Accepted, \w+ 20\d\d\.$", text, re.MULTILINE)
    assert len(text.splitlines()) <= 60
    assert re.search("^## What was measured|, measured$", text, re.MULTILINE)
    assert re.search("^## Refused|instead of", text, re.MULTILINE)


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [int(page.name[:4]) for page in ADRS] == list(range(1, len(ADRS) + 1))
