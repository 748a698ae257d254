"""A stand-in for ssh and for the board at its other end: a folder of this machine is the home that commands run in.

``FakeBoard`` writes the stand-in, which DLX_DEPLOY_SSH names; real processes and pipes, no network. It can refuse a
login in ssh's own words, break off after so many bytes, and claim another architecture, Python or kind of board.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dlx_deploy.devices import measuring
from dlx_deploy.devices.ssh.address import parse_address
from dlx_deploy.devices.ssh.openssh import SshConnection

__all__ = ["FakeBoard"]

STAND_IN = r"""#!/bin/sh
# ssh's options, up to the host; -M is the login that the others share
at=$(dirname "$0")
echo "$*" >> "$at/asked"
while :; do case "$1" in -o|-S|-F|-l) shift 2;; -M) master=1; shift;; --) shift; break;; *) shift;; esac; done
shift
cd "$at/home" || exit 255
if [ -s "$at/refuses" ]; then cat "$at/refuses" >&2; exit 255; fi
if [ -n "$master" ]; then echo $$ > "$at/master"
elif read -r skip bytes < "$at/cut" && [ "$skip" -gt 0 ]; then echo "$((skip - 1)) $bytes" > "$at/cut"
elif [ -n "$bytes" ]; then
  : > "$at/cut"
  head -c "$bytes" | env -i HOME="$PWD" PATH="$at/bin:/usr/bin:/bin" sh -c "$*" > /dev/null
  kill "$(cat "$at/master")"
  exit 255
fi
[ -s "$at/talks" ] && cat "$at/talks"
exec env -i HOME="$PWD" PATH="$at/bin:/usr/bin:/bin" sh -c "$*"
"""
CLAIMS = """import json, pathlib, platform, sys
claims = json.loads(pathlib.Path({claims!r}).read_text())
if "machine" in claims:
    platform.machine = lambda: claims["machine"]
if "python" in claims:
    sys.version_info = tuple(int(part) for part in claims["python"].split(".")) + ("final", 0)
    platform.python_version = lambda: claims["python"]
"""


class FakeBoard:
    """A board below ``folder``; ``home`` is its user's. Made so, commands of this process reach it by any ``ssh://``."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **claims: str) -> None:
        self.folder, self.home = folder, folder / "home"
        for room in (self.home, folder / "bin", folder / "claims"):
            room.mkdir(parents=True)
        self._program("ssh", STAND_IN)
        (folder / "cut").touch()
        told = folder / "claims" / "claims.json"
        told.write_text(json.dumps(claims), encoding="utf-8")
        (folder / "claims" / "sitecustomize.py").write_text(CLAIMS.format(claims=str(told)), encoding="utf-8")
        self._program("bin/python3", f'#!/bin/sh\nPYTHONPATH="{folder}/claims" exec "{sys.executable}" "$@"\n')
        if "machine" in claims:
            self._program("bin/uname", f"#!/bin/sh\necho {claims['machine']}\n")
        monkeypatch.setenv("DLX_DEPLOY_SSH", str(folder / "ssh"))
        self._lock_of_its_own(monkeypatch)

    def connection(self, address: str = "ssh://user@board") -> SshConnection:
        return SshConnection(parse_address(address))

    def refuses(self, words: str) -> None:
        """The next logins end with these words of ssh's."""
        (self.folder / "refuses").write_text(words, encoding="utf-8")

    def cut(self, after_bytes: int, *, after_commands: int = 0) -> None:
        """A command, after so many others, sees no more than so many bytes; then it and the login end."""
        (self.folder / "cut").write_text(f"{after_commands} {after_bytes}\n", encoding="utf-8")

    def talks(self, words: str) -> None:
        """What its login shell prints, whoever asks."""
        (self.folder / "talks").write_text(words, encoding="utf-8")

    def asked(self) -> list[str]:
        """The command lines that ssh was given."""
        return (self.folder / "asked").read_text(encoding="utf-8").splitlines()

    def _lock_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its measuring lock is not this machine's, which other tests may hold at the same time."""
        locks, source = self.folder / "locks", measuring.agent_source()
        locks.mkdir()
        locks.chmod(0o1777)
        own = f"sys.modules['dlx_agent.measuring'].FOLDERS = ({str(locks)!r},)"
        monkeypatch.setattr(measuring, "agent_source", lambda: f"{source}\n{own}\n")

    def _program(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")
        (self.folder / name).chmod(0o755)
