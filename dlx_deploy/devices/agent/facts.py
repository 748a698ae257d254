"""What a board is and has, read from files; no library that packages need is imported.

No command is run, but for a Python that is not this one: an environment beside the releases, or one that was named.
"""

import glob
import json
import os
import platform
import re
import subprocess
import sys
import time
from typing import Dict, List, Optional

from .files import Refusal, Table, field_number, field_root, field_text, read_text

__all__ = ["DISTRIBUTIONS", "facts", "power_modes"]

DISTRIBUTIONS = (
    *("numpy", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "cuda-python"),
    *("pillow", "tokenizers", "opencv-python", "opencv-python-headless", "cryptography", "pyopenssl"),
)
"""What packages run on, or can use; their versions are told."""
ROOT = "/"
MIB = 1 << 20
ENVIRONMENT = "venv/bin/python3"
"""Below the folder of a package: the Python that runs it, where there is one."""
ASK = """\
import json, platform, sys
found = {"python": platform.python_version()}
if sys.version_info >= (3, 8):
    from importlib import metadata
    for name in sys.argv[1:]:
        try:
            found[name] = str(metadata.version(name))
        except metadata.PackageNotFoundError:
            pass
print(json.dumps(found))
"""


def facts(asked: Table) -> Table:
    """The board as it is now. ``path``: where packages go; ``clock_s``: the asker's, in seconds since 1970.

    ``python``: what is to run packages, a name on the PATH or a path; by default the environment beside the releases,
    or the Python that runs this.

    Raises:
        Refusal: that Python does not run.
    """
    root = field_root(asked)
    python = _interpreter(root, asked)
    there = _nearest(root)
    disk, memory = os.statvfs(there), _memory()
    policy = "sys/devices/system/cpu/cpu0/cpufreq/"
    khz = _text(policy + "scaling_cur_freq")
    mode = _text("var/lib/nvpmodel/status")
    return {
        "root": root,
        "writable": os.access(there, os.W_OK | os.X_OK),
        "free_disk_mib": disk.f_bavail * disk.f_frsize // MIB,
        "free_memory_mib": memory.get("MemAvailable"),
        "total_memory_mib": memory.get("MemTotal"),
        "arch": platform.machine(),
        "system": "%s %s" % (platform.system(), platform.release()),
        "os": _release(),
        "glibc": _glibc(),
        "cpu_model": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "board": _text("proc/device-tree/model"),
        "gpus": _gpus(),
        "l4t": _l4t(),
        "power_mode": mode or None,
        "power_mode_name": _mode_name(mode),
        "governor": _text(policy + "scaling_governor") or None,
        "clock_mhz": int(khz) / 1000 if khz.isdigit() else None,
        "executable": python,
        "pythons": _pythons(),
        "versions": _versions(python),
        "clock_ahead_s": time.time() - field_number(asked, "clock_s", 0),
        "boot": _text("proc/sys/kernel/random/boot_id"),
    }


def _nearest(path: str) -> str:
    """The folder itself, or the first above it that is there: where its file system says how much is free."""
    while not os.path.isdir(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def _text(name: str) -> str:
    return read_text(os.path.join(ROOT, name))


def _memory() -> Dict[str, int]:
    """MiB by the names of ``/proc/meminfo``."""
    found = re.findall(r"^(\w+):\s+(\d+) kB", _text("proc/meminfo"), re.MULTILINE)
    return {name: int(kib) // 1024 for name, kib in found}


def _release() -> str:
    name = re.search(r'^PRETTY_NAME="?([^"\n]*)', _text("etc/os-release"), re.MULTILINE)
    return name.group(1) if name else ""


def _glibc() -> str:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").replace("glibc ", "")
    except (ValueError, OSError):  # another C library
        return ""


def _cpu_model() -> str:
    found = re.findall(r"^([^\t:]+?)\s*: *(.*)$", _text("proc/cpuinfo"), re.MULTILINE)
    named = {name.lower(): value.strip() for name, value in reversed(found)}
    return named.get("model name") or named.get("hardware") or named.get("model") or ""


def _gpus() -> List[str]:
    """Graphics cards by NVIDIA's driver, or the one inside a Jetson."""
    pattern = os.path.join(ROOT, "proc/driver/nvidia/gpus/*/information")
    models = [re.search(r"^Model:\s*(.*)$", read_text(path), re.MULTILINE) for path in sorted(glob.glob(pattern))]
    devices = ("dev/nvhost-gpu", "dev/nvgpu", "dev/nvhost-gpu-0")
    inside = any(os.path.exists(os.path.join(ROOT, device)) for device in devices)
    return [model.group(1) for model in models if model] or ["a Jetson's"] * inside


def _l4t() -> str:
    """The version of a Jetson's system, 36.4.3, which JetPack's is told by; empty elsewhere."""
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", _text("etc/nv_tegra_release"))
    return "%s.%s" % found.groups() if found else ""


def power_modes() -> Table:
    """``mode``: what the board's table calls the power mode that is set, ``None`` where it has none; ``modes``: all of
    the table, name → number."""
    return {"mode": _mode_name(_text("var/lib/nvpmodel/status")), "modes": {v: int(k) for k, v in _modes().items()}}


def _mode_name(status: str) -> Optional[str]:
    """What the board's table of power modes calls the one that is set: ``15W``."""
    mode = re.search(r"pmode:0*(\d+)", status)
    return _modes().get(mode.group(1)) if mode else None


def _modes() -> Dict[str, str]:
    """Number → name."""
    return dict(re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", _text("etc/nvpmodel.conf")))


def _pythons() -> Dict[str, str]:
    """Minor version → the first interpreter of it on the PATH."""
    found: Dict[str, str] = {}
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        for path in glob.glob(os.path.join(glob.escape(folder), "python3.*")):
            minor = re.match(r"python(3\.\d+)\Z", os.path.basename(path))
            if minor and os.access(path, os.X_OK):
                found.setdefault(minor.group(1), path)
    return found


def _interpreter(root: str, asked: Table) -> str:
    if asked.get("python"):
        return os.path.expanduser(field_text(asked, "python"))
    beside = os.path.join(root, ENVIRONMENT)
    return beside if os.path.exists(beside) else sys.executable


def _versions(python: str) -> Dict[str, str]:
    """Of those distributions that ``python`` has, and its own; itself alone where it is too old to say."""
    try:
        said = subprocess.check_output([python, "-c", ASK, *DISTRIBUTIONS], stderr=subprocess.STDOUT, timeout=60)
        found = json.loads(said.decode("utf-8", "replace").strip().rpartition("\n")[2])
    except (OSError, ValueError, subprocess.SubprocessError) as e:
        raise Refusal("no-python", "%s does not run (%s); name another Python" % (python, e))
    return {name: str(version) for name, version in found.items()}
