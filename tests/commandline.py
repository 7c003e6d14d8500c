"""The command lines that documents and deployments show, checked against wsm's own parser."""

import argparse
import re
import shlex

from wsm.cli import _parser

_PROGRAM = re.compile(r"(?:^|/)wsm$")


def check(words: list[str]) -> None:
    """Fail unless `words`, what follows `wsm`, are commands and options that exist.

    Arguments may be missing or be placeholders: `line close <tenant> <chat>`, or the bare `line close`.
    """
    parser, path = _parser(), "wsm"
    for word in words:
        verbs = _verbs(parser)
        if word.startswith("-"):
            options = {option for action in parser._actions for option in action.option_strings}
            assert word.partition("=")[0] in options, f"{path} has no option {word}"
        elif verbs is not None:
            assert word in verbs, f"{path} has no command {word}"
            parser, path = verbs[word], f"{path} {word}"


def check_complete(words: list[str]) -> None:
    """Fail unless `words` is a command that could be run as it stands."""
    try:
        _parser().parse_args(words)
    except SystemExit as exc:
        raise AssertionError(f"wsm {shlex.join(words)} cannot be run") from exc


def after_wsm(line: str) -> list[str] | None:
    """Return the words behind the program `wsm` in a shell line; None when it runs something else."""
    words = shlex.split(line.removeprefix("$ "), comments=True)
    if not words or not _PROGRAM.search(words[0]):
        return None
    return words[1:]


def _verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser] | None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            choices: dict[str, argparse.ArgumentParser] = action.choices
            return choices
    return None
