"""SQL by name: the files of `sql/` are read once, each statement under `-- name: <name>`."""

import re
from importlib import resources

_HEADING = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


def _read() -> dict[str, bytes]:
    """Read every statement; a name that stands twice is an error at import, where a person sees it."""
    found: dict[str, bytes] = {}
    for file in sorted((resources.files("wsm.store") / "sql").iterdir(), key=lambda file: file.name):
        _, *parts = _HEADING.split(file.read_text("utf-8"))
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise ValueError(f"two queries are named {name}")
            found[name] = text.strip().encode()
    return found


QUERIES = _read()
