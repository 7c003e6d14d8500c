"""What the import contracts cannot say: an allow-list."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "wsm"
ALLOWED = {*sys.stdlib_module_names, "msgspec", "wsm"}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "wsm").partition(".")[0]


@pytest.mark.parametrize("room", ["core", "wire"])
def test_core_and_wire_need_the_standard_library_and_msgspec_alone(room: str) -> None:
    files = sorted((SOURCE / room).rglob("*.py"))
    assert files
    for path in files:
        assert set(imported(path)) <= ALLOWED, path
