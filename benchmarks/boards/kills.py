"""Pushes that are cut off at a byte or killed, at each question and command of a push: what is left, and the next push.

    python kills.py NEW.dlx OLD.dlx [--on ssh://edge@board:20220/~/kills] [--spread 12] [--out push-kills.json]

OLD is current. Then NEW is pushed again and again, each time cut off elsewhere, and pushed once more to the end.
``--on``: over the ssh that ``DLX_DEPLOY_SSH`` names (default: a folder of this machine stands in for the board). A
wrapper around ssh cuts: one command sees so many bytes and no more, and its answer and the login are lost.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dlx_deploy.devices.asking import Agent
from dlx_deploy.devices.pushing.push import Pushable, PushOptions, push, read_pushable
from dlx_deploy.devices.ssh.address import parse_address
from dlx_deploy.devices.ssh.connection import Answered
from dlx_deploy.devices.ssh.openssh import SshConnection
from dlx_deploy.errors import BoardError
from dlx_deploy.runtime.terminal import show

RESULTS = Path(__file__).parent.parent / "results"
WRAPPER = """#!{PYTHON}
import os, pathlib, shlex, signal, subprocess, sys, threading

at, real = pathlib.Path(__file__).parent, shlex.split({REAL!r})
if "-M" in sys.argv:
    (at / "master").write_text(str(os.getpid()))
    os.execvp(real[0], real + sys.argv[1:])
skip, _, count = (at / "cut").read_text().partition(" ")
if not count or int(skip) > 0:
    (at / "cut").write_text("%d %s" % (int(skip) - 1, count) if count else "")
    os.execvp(real[0], real + sys.argv[1:])
(at / "cut").write_text("")
quiet = subprocess.DEVNULL
command = subprocess.Popen(real + sys.argv[1:], stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, bufsize=0)
def feed(left):
    while left and (chunk := os.read(0, min(left, 65536))):
        command.stdin.write(chunk)
        left -= len(chunk)
    command.stdin.close()
threading.Thread(target=feed, args=(int(count),), daemon=True).start()
command.wait()
os.kill(int((at / "master").read_text()), signal.SIGTERM)
os._exit(255)
"""
HERE = """#!/bin/sh
at=$(dirname "$0")
while :; do case "$1" in -o|-S|-F|-l) shift 2;; --) shift; break;; *) shift;; esac; done
shift
cd "$at/home" && exec env -i HOME="$PWD" PATH="$at:$PATH" sh -c "$*"
"""


class Told(SshConnection):
    """A connection that says what it is about to do, and kills this process before the ``kill_at``-th of it."""

    def __init__(self, address: Any, kill_at: int = -1) -> None:
        super().__init__(address)
        self.moments: list[str] = []
        self.kill_at = kill_at

    def _exchange(self, argv: Any, chunks: Any, **options: Any) -> Any:
        if len(self.moments) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.moments.append(self.now)
        left = iter(chunks)
        first = next(left, b"")
        if self.now == "copy":
            self.header = len(first)
        return super()._exchange(argv, itertools.chain([first], left), **options)

    now, header = "", 0

    def python(self, source: str, argument: Any, **options: Any) -> Any:
        self.now = argument["command"]
        return super().python(source, argument, **options)

    def run(self, argv: Any, **options: Any) -> Answered:
        self.now = next(word for word in argv if word in ("engine", "selftest", "bench"))
        return super().run(argv, **options)

    def _receiving(self, asked: Any, chunks: Any = ()) -> Any:
        self.now = "what has come" if asked["do"] == "partial" else "copy"
        return super()._receiving(asked, chunks)


def in_child(work: Any) -> dict[str, Any]:
    """What ``work`` gives in a process of its own: the lock of one that has ended is free at once."""
    out, into = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(out)
        with os.fdopen(into, "w") as f:
            json.dump(work(), f)
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as f:
        text = f.read()
    os.waitpid(pid, 0)
    return json.loads(text) if text else {"outcome": "killed", "why": "kill -9 of the pusher", "moments": []}


def pushed(given: Pushable, address: Any, kill_at: int = -1) -> dict[str, Any]:
    def work() -> dict[str, Any]:
        told = Told(address, kill_at)
        with told:
            try:
                done = push(given, told, PushOptions(path=address.path, keep=2), lambda text: None)
            except BoardError as e:
                return {"outcome": type(e).__name__, "why": str(e), "moments": told.moments}
        known = {"outcome": done.outcome, "why": done.why, "moments": told.moments, "header": told.header}
        return {**known, "current": done.current, "there": done.bytes_there, "seconds": round(done.seconds, 2)}

    return in_child(work)


def left(given: Pushable, address: Any) -> dict[str, Any]:
    """What is there now: which release is current, and what has come of the new one."""
    with SshConnection(address) as connection:
        seen = Agent(connection, address.path).look(given.digest)
    state = next((r["state"] for r in seen.releases.releases if r["digest"] == given.digest), "none")
    return {"current": seen.releases.current, "bytes": seen.partial.bytes, "release": state}


def reset(given: Pushable, old: Pushable, address: Any) -> None:
    """OLD is current, and nothing of NEW is there."""
    with SshConnection(address) as connection:
        root = Agent(connection, address.path).facts().root
        assert root.endswith("/kills"), root
        connection.run(["rm", "-rf", root])
    assert pushed(old, address)["outcome"] == "current"


def spread(moment: str, header: int, size: int, count: int) -> list[int]:
    """After so many bytes: none, in the ``header`` (what goes before the file), behind its first byte, in the middle,
    before the last, and all, so that the answer is lost."""
    if moment != "copy":
        return [0, 1 << 30]
    steps = [header + size * i // count for i in range(1, count)]
    return [0, 1, header // 2, header, header + 1, *steps, header + size - 1, 1 << 30]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("new", type=Path)
    parser.add_argument("old", type=Path)
    parser.add_argument("--on", default="ssh://user@board/~/kills")
    parser.add_argument("--spread", type=int, default=6)
    parser.add_argument("--out", type=Path, default=RESULTS / "push-kills.json")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    real = os.environ.get("DLX_DEPLOY_SSH") or str(folder / "here")
    python = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'
    for name, text in (
        ("here", HERE),
        ("ssh", WRAPPER.replace("{PYTHON}", sys.executable).replace("{REAL!r}", repr(real))),
        ("python3", python),
    ):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "home").mkdir()
    (folder / "cut").touch()
    os.environ["DLX_DEPLOY_SSH"] = str(folder / "ssh")
    address = parse_address(asked.on)
    new, old = read_pushable(asked.new, None), read_pushable(asked.old, None)
    reset(new, old, address)
    plain = pushed(new, address)
    assert plain["outcome"] == "current", plain
    rows = []
    for i, moment in enumerate(plain["moments"]):
        cuts = [
            *spread(moment, plain["header"], new.size_bytes, asked.spread),
            None,
        ]  # None: the pusher is killed before it
        for count in cuts:
            reset(new, old, address)
            if count is not None:
                (folder / "cut").write_text(f"{i} {count}\n")
            ended = pushed(new, address, -1 if count is not None else i)
            (folder / "cut").write_text("")
            there = left(new, address)
            began = time.monotonic()
            again = pushed(new, address)
            row = {
                "at": moment,
                "bytes": "kill -9" if count is None else "all" if count == 1 << 30 else count,
                "ended": ended["outcome"],
                "current": {old.digest: "old", new.digest: "new"}.get(there["current"], str(there["current"])),
                "came": there["bytes"],
                "release": there["release"],
                "again": again["outcome"],
                "sent_again": new.size_bytes - again.get("there", 0),
                "seconds": round(time.monotonic() - began, 2),
            }
            rows.append(row)
            show("| " + " | ".join(str(value) for value in row.values()) + " |")
            assert row["current"] in ("old", "new"), ended
            assert again["outcome"] == "current", again
    result = {"package_bytes": new.size_bytes, "plain": plain, "rows": rows, "on": asked.on, "argv": sys.argv[1:]}
    asked.out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
