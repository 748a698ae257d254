"""An aarch64 board in namespaces of this machine, run by QEMU, that one logs in to over SSH."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .rootfs import USER

__all__ = ["NAME", "Board", "emulated_board", "free_port"]

HERE = Path(__file__).parent
NAME = "emulated"
"""The host in the SSH configuration, and the board's own name."""
QEMU_CPU = "neoverse-n1"
"""Has dot product and float16 arithmetic; the nearest that QEMU 7.2 has to the Cortex-A78AE of an Orin."""
FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
CORES = 4
WAIT_S = 60.0


@dataclass(frozen=True)
class Board:
    """``ssh_config``: how to log in to ``NAME``; ``keeper`` starts and kills the board."""

    state: Path
    port: int
    keeper: subprocess.Popen[str]

    @property
    def ssh(self) -> str:
        """The command that logs in there."""
        return f"ssh -F {self.state / 'ssh_config'}"

    @property
    def disk(self) -> Path:
        """What was written there, as this machine sees it: the layer over the root, in the keeper's mounts."""
        return Path(f"/proc/{self.keeper.pid}/root{self.state}/layer/upper")

    @property
    def address(self) -> str:
        """As dlx-deploy is given it."""
        return f"ssh://{NAME}"

    def run(self, command: str, timeout_s: float = 120) -> str:
        """What ``command`` says there.

        Raises:
            subprocess.CalledProcessError: it ended with another code than 0.
        """
        asked = [*self.ssh.split(), NAME, command]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=timeout_s, check=False)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        return done.stdout.strip()

    def boot(self) -> None:
        """Start it, and wait until its SSH server answers.

        Raises:
            RuntimeError: it does not, with the end of its log.
        """
        self._tell("up")
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as there:
                there.settimeout(WAIT_S)
                if there.recv(4) == b"SSH-":
                    return
            time.sleep(0.1)
        raise RuntimeError(f"the board does not answer:\n{(self.state / 'log').read_text()[-2000:]}")

    def power_off(self) -> None:
        """Kill everything there at once; what it wrote stays for the next ``boot``."""
        self._tell("down")
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                return
            time.sleep(0.05)
        raise RuntimeError("the board's SSH server is still there")

    def _tell(self, word: str) -> None:
        assert self.keeper.stdin is not None
        assert self.keeper.stdout is not None
        self.keeper.stdin.write(f"{word}\n")
        self.keeper.stdin.flush()
        if self.keeper.stdout.readline().strip() != word:
            raise RuntimeError("the board's keeper has ended: no memory for a layer, or no mounts")


@contextlib.contextmanager
def emulated_board(root: Path) -> Iterator[Board]:
    """A board whose root is ``root``, running; everything of it is gone afterwards, whatever happens."""
    state = Path(tempfile.mkdtemp(prefix="dlx-board-"))
    try:
        port = free_port()
        _write_state(state, port)
        keeper = subprocess.Popen(
            ["unshare", "--mount", "bash", str(HERE / "keeper.sh"), str(root), str(state), NAME],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests, which then end it in order
        )
        board = Board(state, port, keeper)
        try:
            board.boot()
            yield board
        finally:
            keeper.communicate(timeout=WAIT_S)  # its input ends, and with it all that it holds
    finally:
        shutil.rmtree(state, ignore_errors=True)


def free_port() -> int:
    """One that nobody listens on; a board has this machine's network."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _write_state(state: Path, port: int) -> None:
    """Keys for this board alone, and the configurations of both ends."""
    for name in ("key", "hostkey"):
        made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "throwaway", "-f", str(state / name)]
        subprocess.run(made, check=True)
    core = "processor\t: {}\nBogoMIPS\t: 62.50\nFeatures\t: " + FEATURES + "\nCPU implementer\t: 0x41\n"
    core += "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd42\nCPU revision\t: 1\n\n"
    (state / "cpuinfo").write_text("".join(core.format(i) for i in range(CORES)))
    (state / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey /run/board/hostkey\nPidFile none\nUsePAM no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nStrictModes no\nPrintMotd no\nUseDNS no\n"
        "AuthorizedKeysFile /run/board/authorized_keys\nSubsystem sftp /usr/lib/openssh/sftp-server\n"
        f"SetEnv QEMU_CPU={QEMU_CPU}\n"  # a login begins with an empty environment
    )
    (state / "ssh_config").write_text(
        f"Host {NAME}\n  HostName 127.0.0.1\n  Port {port}\n  User {USER}\n  IdentityFile {state}/key\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {state}/known_hosts\n  StrictHostKeyChecking yes\n"
        "  BatchMode yes\n  ConnectTimeout 30\n  LogLevel ERROR\n"
    )
    key = " ".join((state / "hostkey.pub").read_text().split()[:2])
    (state / "known_hosts").write_text(f"[127.0.0.1]:{port} {key}\n")
    os.chmod(state, 0o700)
