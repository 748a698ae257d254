"""Whether this machine can run aarch64 programs in namespaces of their own, and the kernel told how."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["aarch64_programs", "missing"]

QEMU = "/usr/bin/qemu-aarch64-static"
PROGRAMS = {
    "mmdebstrap": "mmdebstrap",
    QEMU: "qemu-user-static",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
}
"""What is run here → the Debian package that brings it."""
BINFMT = Path("/proc/sys/fs/binfmt_misc")
RULE = "qemu-aarch64"
MAGIC = rb"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = rb"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
"""A little-endian ELF file for aarch64, executable or position-independent."""


def missing() -> str | None:
    """Why no board can be emulated here, with what to do; ``None`` if one can."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return f"this is {platform.system()} on {platform.machine()}; a board is emulated on Linux on x86_64"
    if os.geteuid() != 0:
        return "namespaces and mounts need root"
    lacking = {package for program, package in PROGRAMS.items() if not shutil.which(program)}
    if lacking:
        return f"programs are missing: apt-get install {' '.join(sorted(lacking))}"
    tried = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    done = subprocess.run(tried, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        return f"namespaces with mounts of their own cannot be made ({done.stderr.strip()}); run with CAP_SYS_ADMIN"
    return None


@contextlib.contextmanager
def aarch64_programs() -> Iterator[str | None]:
    """While it is open the kernel runs aarch64 programs by QEMU; gives why it cannot, or ``None``.

    What it had to set up goes with it. The rule has the flag F: the interpreter is opened once, here, so that it need
    not be inside a root file system.
    """
    mounted = registered = False
    try:
        if not (BINFMT / "register").exists():
            done = subprocess.run(
                ["mount", "-t", "binfmt_misc", "none", BINFMT], capture_output=True, text=True, check=False
            )
            if done.returncode:
                yield f"binfmt_misc cannot be mounted ({done.stderr.strip()})"
                return
            mounted = True
        if not (BINFMT / RULE).exists():
            try:
                (BINFMT / "register").write_bytes(
                    b":" + RULE.encode() + b":M::" + MAGIC + b":" + MASK + b":" + QEMU.encode() + b":OPF"
                )
            except OSError as e:
                yield f"binfmt_misc takes no rule for aarch64 ({e.strerror})"
                return
            registered = True
        yield None
    finally:
        if registered:
            (BINFMT / RULE).write_text("-1")
        if mounted:
            subprocess.run(["umount", BINFMT], check=False, capture_output=True)
