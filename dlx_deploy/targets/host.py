"""What this machine is, and whether it is a target: only then is a latency measured here the target's own."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import msgspec

from dlx_deploy.runtime.linux import CPUINFO, DEVICE_TREE_MODEL, DOT_PRODUCT
from dlx_deploy.targets.profile import Profile

__all__ = ["Host", "is_this_host", "read_host"]

ARCH = {"amd64": "x86_64", "arm64": "aarch64"}
DOT_PRODUCTS = {*DOT_PRODUCT, "asimddp"}  # of x86, and SDOT/UDOT of Arm
ARM_PARTS = {"0xd07": "Cortex-A57", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76", "0xd42": "Cortex-A78AE"}


class Host(msgspec.Struct, frozen=True):
    """The machine that this process runs on."""

    arch: str  # as in a profile: aarch64, x86_64
    cpu_model: str  # "unknown" where the system does not say
    cores: int  # logical processors
    has_vnni: bool  # the 8-bit dot product: VNNI on x86, SDOT on Arm
    board: str  # the device tree's model, empty on a PC


def read_host(
    cpuinfo: str | Path = CPUINFO, device_tree_model: str | Path = DEVICE_TREE_MODEL, machine: str = ""
) -> Host:
    """This machine as ``/proc`` describes it; what cannot be read is left at its most modest value."""
    text = _read(cpuinfo)
    pairs = [(k.strip(), v.strip()) for k, _, v in (line.partition(":") for line in text.splitlines())]
    first = dict(reversed(pairs))  # of the first processor: earlier lines win
    flags = {flag for key in ("flags", "Features") for flag in first.get(key, "").split()}
    part = first.get("CPU part", "")
    raw = (machine or platform.machine()).lower()
    return Host(
        arch=ARCH.get(raw, raw),
        cpu_model=first.get("model name") or ARM_PARTS.get(part) or (f"Arm part {part}" if part else "unknown"),
        cores=sum(key == "processor" for key, _ in pairs) or os.cpu_count() or 1,
        has_vnni=bool(flags & DOT_PRODUCTS),
        board=_read(device_tree_model).rstrip("\x00\n "),
    )


def is_this_host(profile: Profile, host: Host | None = None) -> bool:
    """Whether ``profile`` describes this machine, so that a time measured here is the target's own.

    True for a CPU target of this architecture whose ``device_tree_model``, if it names one, is part of the board's
    name. False for every GPU target: a GPU would have to be asked for its compute capability and power mode, and
    nothing here does.
    """
    host = host or read_host()
    return profile.kind == "cpu" and profile.arch == host.arch and profile.device_tree_model in host.board


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
