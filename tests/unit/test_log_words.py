"""What a log line may say: its event is a constant word, and its fields are of a closed list.

No field is a chat, a phone or a text, so nothing has to be hashed; who adds a field adds it here.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import wsm

SOURCES = sorted(Path(wsm.__file__).parent.rglob("*.py"))
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
FIELDS = {
    # who: numbers and names that wsm or an operator gave
    *(
        "tenant",
        "session",
        "until",
        "server",
        "bell",
        "entry",
        "job",
        "queue",
        "pid",
        "child",
        "children",
        "kids",
        "uid",
    ),
    *("ids", "version", "address"),
    # what: words of closed lists, and the texts of wsm's own errors
    *(
        "reason",
        "status",
        "detail",
        "duty",
        "finding",
        "before",
        "now",
        "part",
        "check",
        "exc_info",
        "busiest",
    ),
    *("step", "state", "alarm", "answered", "kind", "outcome", "found", "intent"),
    # how many, how long
    *(
        "entries",
        "handled",
        "parked",
        "recorded",
        "stale",
        "duplicates",
        "effects",
        "count",
        "code",
        "seconds",
    ),
    *("appended", "sessions", "addresses", "quarantined", "full", "bells"),
}
SPREADS = {"fields", "about", "msgspec.to_builtins(tally)"}
"""Dictionaries of fields that are given whole; what is put into them is judged as well."""


def calls(source: Path) -> Iterator[ast.Call]:
    """Every call of a logger."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
            owner = ast.unparse(node.func.value)
            if owner in {"log", "self._log"} or "logger(" in owner:
                yield node


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_line_has_a_constant_word_and_fields_of_the_list(source: Path) -> None:
    for call in calls(source):
        where = f"{source.name}:{call.lineno}"
        [event] = call.args
        for word in [event.body, event.orelse] if isinstance(event, ast.IfExp) else [event]:
            constant = isinstance(word, ast.Constant) or ast.unparse(word) == "event"
            assert constant, f"{where}: {ast.unparse(word)}"
        for field in call.keywords:
            if field.arg is None:
                assert ast.unparse(field.value) in SPREADS, f"{where}: {ast.unparse(field.value)}"
            else:
                assert field.arg in FIELDS, f"{where}: {field.arg}"


def test_what_is_spread_into_a_line_is_of_the_list_too() -> None:
    found = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign | ast.AugAssign) else targets
            named = {ast.unparse(target).partition("[")[0] for target in targets} & SPREADS
            value = getattr(node, "value", None)
            if named:
                keys = value.keys if isinstance(value, ast.Dict) else []
                found |= {key.value for key in keys if isinstance(key, ast.Constant)}
    assert {"tenant", "session", "status", "reason", "address"} <= found <= FIELDS


def test_there_are_lines_to_judge() -> None:
    assert sum(len([*calls(source)]) for source in SOURCES) > 40
