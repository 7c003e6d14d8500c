"""A process that runs one command after another, for a test that wants to hear many of them in seconds.

Reads lines `{"words": […], "environ": {…}}` and answers each with `{"code": …, "said": …}`: everything that
the command wrote, its log as well. What a command does to its whole process stays in this one.
"""

import contextlib
import io
import json
import os
import sys

from wsm.cli import main


def answer(words: list[str], environ: dict[str, str], screen: io.StringIO) -> dict[str, object]:
    """Run a command to its end."""
    os.environ.clear()
    os.environ.update(environ)
    begins, code = screen.tell(), 0
    try:
        main(words)
    except SystemExit as exc:
        code = int(exc.code or 0)
    screen.seek(begins)
    return {"code": code, "said": screen.read()}


if __name__ == "__main__":
    asked, answers, heard = sys.stdin, sys.stdout, io.StringIO()
    with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
        for line in asked:
            answers.write(json.dumps(answer(**json.loads(line), screen=heard)) + "\n")
            answers.flush()
