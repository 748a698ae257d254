"""What a board's Python runs first: it reads a source and its argument from standard input, and prints the answer.

Sent as text, never imported here; nothing but the standard library, in Python 3.6's syntax, so that too old a Python
is told of in words. ``main(argument)`` of the source gives the answer; what follows in standard input is the source's
own, or nothing for as long as whoever asked is there: when it ends then, so does all that the source has started.
What it prints goes to standard error: standard output is the answer's, and a login shell's that talks.
"""

import json
import os
import signal
import sys
import threading
from typing import Any, BinaryIO, Dict

__all__ = ["MARK", "answer"]

MARK = "\x1edlx-deploy "


def answer(stream: BinaryIO) -> Dict[str, Any]:
    """The answer of the source that stands in ``stream``, or why there is none, in words."""
    header = json.loads(stream.readline().decode("ascii"))
    source, argument = stream.read(header["source"]), json.loads(stream.read(header["argument"]).decode("utf-8"))
    if header["watch"]:
        threading.Thread(target=end_with, args=(stream,), daemon=True).start()
    room: Dict[str, Any] = {"__name__": "dlx_deploy_there"}
    python = ".".join(str(part) for part in sys.version_info[:3])
    try:
        exec(compile(source, "<sent>", "exec"), room)
        return {"answer": room["main"](argument)}
    except Exception as error:
        return {"failed": type(error).__name__, "words": str(error), "python": python}


def end_with(stream: BinaryIO) -> None:
    """End this process and what it started, as Ctrl-C would, when ``stream`` ends: nobody waits for an answer."""
    while os.read(stream.fileno(), 1 << 16):  # not by the stream, whose lock would be held when this process ends
        pass
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    out, sys.stdout = sys.stdout, sys.stderr
    said = answer(sys.stdin.buffer)
    out.write("\n" + MARK + json.dumps(said) + "\n")
    out.flush()
