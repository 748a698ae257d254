"""The root file system of a board: Debian for arm64 with Python, numpy, ONNX Runtime and an SSH server.

It is made without running anything of it: Debian's archives are unpacked by the host's apt and dpkg, wheels by the
host's pip. It is kept in ``DLX_DEPLOY_BOARD_CACHE``, or in the user's cache, and made again when this file asks for
other contents.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["Unavailable", "root_file_system"]

SUITE = "bookworm"
PYTHON = "3.11"  # of that suite
DEBS = ("python3", "openssh-server", "ca-certificates", "libstdc++6", "libgomp1", "procps", "login", "passwd")
WHEELS = ("numpy==2.4.6", "onnxruntime==1.32.0", "pillow==13.0.0")
PLATFORMS = (*(f"manylinux_2_{minor}_aarch64" for minor in (34, 28, 27, 17)), "manylinux2014_aarch64")
USER, UID = "edge", 1000
ETC = {
    "passwd": f"""root:x:0:0:root:/root:/bin/bash
sshd:x:101:65534::/run/sshd:/usr/sbin/nologin
{USER}:x:{UID}:{UID}::/home/{USER}:/bin/bash
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
""",
    "group": f"root:x:0:\ntty:x:5:\n{USER}:x:{UID}:\nnogroup:x:65534:\n",
    "shadow": f"root:*:19000:0:99999:7:::\n{USER}:*:19000:0:99999:7:::\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
    "resolv.conf": "",
}
"""What Debian's maintainer scripts would have written, as far as a login needs it."""
LINKS = ("bin", "sbin", "lib")
FALLBACK = "http://deb.debian.org/debian"
READY = ".dlx-deploy-board"


class Unavailable(Exception):
    """Raised when a root file system cannot be made here, with the last words of what was tried."""


def root_file_system() -> Path:
    """The folder of one that is complete; nobody writes to it.

    Raises:
        Unavailable: there is no mirror of Debian, no index of wheels, or no room.
    """
    asked = [SUITE, PYTHON, DEBS, WHEELS, ETC]
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]
    cache = _cache()
    root = cache / f"{SUITE}-arm64-{key}"
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / READY).exists():
            aside = Path(tempfile.mkdtemp(prefix=".making-", dir=cache))
            try:
                _make(aside)
                (aside / READY).write_text("")
                shutil.rmtree(root, ignore_errors=True)
                aside.rename(root)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    return root


def _cache() -> Path:
    given = os.environ.get("DLX_DEPLOY_BOARD_CACHE")
    if given:
        return Path(given).resolve()
    own = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) / "dlx-deploy-tests"


def _make(root: Path) -> None:
    root.chmod(0o755)
    for name in LINKS:  # the host's dpkg-deb unpacks into them: Debian has merged /usr
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    _run(
        [
            *("mmdebstrap", "--quiet", "--mode=root", "--architectures=arm64", "--variant=extract"),
            *("--skip=check/empty", "--include=?essential", f"--include={','.join(DEBS)}"),
            *("--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*"),
            *(SUITE, str(root), _mirror()),
        ]
    )
    for name, text in ETC.items():
        (root / "etc" / name).unlink(missing_ok=True)
        (root / "etc" / name).write_text(text)
    home = root / "home" / USER
    home.mkdir(mode=0o700)
    os.chown(home, UID, UID)
    for name, of in (("sh", "dash"), ("awk", "mawk")):
        (root / "usr" / "bin" / name).unlink(missing_ok=True)
        (root / "usr" / "bin" / name).symlink_to(of)
    packages = root / "usr" / "local" / "lib" / f"python{PYTHON}" / "dist-packages"
    platforms = [part for name in PLATFORMS for part in ("--platform", name)]
    _run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
            *("--target", str(packages), "--python-version", PYTHON, "--implementation", "cp"),
            *("--only-binary=:all:", "--root-user-action=ignore", *platforms, *WHEELS),
        ]
    )
    _compile(root, packages)
    _run(["chroot", str(root), "/sbin/ldconfig"])


def _mirror() -> str:
    """Debian's, as this machine uses it for its own packages."""
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
    except OSError:
        return FALLBACK
    found = sorted({one for one in done.stdout.split() if one.rstrip("/").endswith("/debian")})
    return found[0] if found else FALLBACK


def _compile(root: Path, packages: Path) -> None:
    """Byte-compile what is imported, by a Python of the same version, if there is one: emulated it takes minutes."""
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    python = sys.executable if own == PYTHON else shutil.which(f"python{PYTHON}")
    if python:
        folders = [str(root / "usr" / "lib" / f"python{PYTHON}"), str(packages)]
        subprocess.run(
            [python, "-m", "compileall", "-q", "-j", "2", "-s", str(root), *folders], check=False, capture_output=True
        )


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Unavailable(f"{command[0]}: {e}") from e
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.strip()]
        raise Unavailable(f"{Path(command[0]).name} ended with {done.returncode}: {words[-1] if words else ''}")
