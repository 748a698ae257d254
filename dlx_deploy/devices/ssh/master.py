"""The one login at a board that all commands share: OpenSSH's control master, with a socket nobody else can reach.

Keys, agent, jump hosts, known hosts: whatever the user's own configuration says holds, and none of it is changed here.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import threading
from collections.abc import Sequence

from dlx_deploy.devices.ssh.address import Address
from dlx_deploy.devices.ssh.failures import unreachable
from dlx_deploy.devices.ssh.process import ended, start_process
from dlx_deploy.errors import BoardUnreachable, EnvironmentMissing
from dlx_deploy.runtime.scratch import Scratch

__all__ = ["SSH", "Master", "client"]

SSH = "DLX_DEPLOY_SSH"
"""The environment's word for another ssh, or more options of it: ``ssh -F my_config``."""
LOGIN_S, CONNECT_S = 60, 20
"""Within how many seconds a login, and the connection below it, come about."""
ALIVE_S, ALIVE_COUNT = 15, 4
"""A board that answers nothing for their product in seconds is lost."""
SOCKET_LENGTH = 80
"""A Unix socket's path has at most 104 bytes, and ssh adds 17 while it makes one."""
KEPT_WORDS = 10_000
"""Characters of what ssh says: the last ones tell why it ended."""
KIND = "dlx-ctl"
"""Of a socket's folder."""
READY = "dlx-deploy-ready"
OPTIONS = (
    "BatchMode=yes",  # never ask: nobody may be there to answer
    f"ConnectTimeout={CONNECT_S}",
    f"ServerAliveInterval={ALIVE_S}",
    f"ServerAliveCountMax={ALIVE_COUNT}",
    "LogLevel=ERROR",  # banners and notices are no errors
    "RemoteCommand=none",
    "RequestTTY=no",
    "ClearAllForwardings=yes",
    "ControlPersist=no",
)


def client() -> list[str]:
    """The command line of ssh as it begins.

    Raises:
        EnvironmentMissing: there is none.
    """
    words = shlex.split(os.environ.get(SSH, "")) or ["ssh"]
    if shutil.which(words[0]) is None:
        raise EnvironmentMissing(f"{words[0]!r} is not on PATH; install OpenSSH's client, or name another in {SSH}")
    return words


class Master:
    """A login that is kept open; it ends with ``close``, and with this process however that ends."""

    def __init__(self, address: Address) -> None:
        self._scratch = Scratch(KIND)
        if len(str(self._scratch.path)) > SOCKET_LENGTH:
            self._scratch.close()
            self._scratch = Scratch(KIND, "/tmp")
        self.folder = self._scratch.path
        self.address = address
        self.host = f"{address.user}@{address.host}" if address.user else address.host
        self.said = ""
        self.process: subprocess.Popen[bytes] | None = None
        self._settled, self._in = threading.Event(), False
        try:
            self._login()
        except BaseException:
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether the login holds."""
        return self.process is not None and self.process.poll() is None

    def lost_within(self, seconds: float) -> bool:
        """Whether the login ends within ``seconds``: it takes a moment longer than what ran over it."""
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        return not self.alive

    def command(self, *words: str, options: Sequence[str] = ()) -> list[str]:
        """The command line that runs ``words``, which the user's shell there reads."""
        where = [f"-p{self.address.port}"] if self.address.port else []
        who = ["-l", self.address.user] if self.address.user else []
        asked = [word for option in OPTIONS for word in ("-o", option)]
        return [
            *client(),
            *asked,
            *options,
            "-S",
            str(self.folder / "s"),
            *where,
            *who,
            "--",
            self.address.host,
            *words,
        ]

    def close(self) -> None:
        """End the login and remove its socket."""
        if self.process is not None:
            with contextlib.suppress(OSError):
                if self.process.stdin is not None:
                    self.process.stdin.close()  # what runs there waits for just this
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
            ended(self.process)
        self._scratch.close()

    def _login(self) -> None:
        """Log in, and hold a command there whose standard input is ours: when we are gone, it ends."""
        self.process = process = start_process(self.command(f"echo {READY}; exec cat >/dev/null", options=["-M"]))
        threads = [threading.Thread(target=listen, args=(process,), daemon=True) for listen in (self._out, self._err)]
        for thread in threads:
            thread.start()
        if not self._settled.wait(LOGIN_S):
            raise BoardUnreachable(
                f"{self.address} cannot be reached: no login within {LOGIN_S} s; try ssh {self.host} by hand"
            )
        if not self._in:
            threads[1].join(1)
            raise unreachable(str(self.address), self.host, self.said)

    def _out(self, process: subprocess.Popen[bytes]) -> None:
        for raw in process.stdout or ():
            if raw.strip() == READY.encode():  # a login shell may say more than that
                self._in = True
                self._settled.set()
        self._settled.set()

    def _err(self, process: subprocess.Popen[bytes]) -> None:
        for raw in process.stderr or ():
            self.said = (self.said + raw.decode("utf-8", "replace"))[-KEPT_WORDS:]
