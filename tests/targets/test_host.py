from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from dlx_deploy.targets import Host, is_this_host, load_target, read_host

X86 = """processor\t: 0
model name\t: AMD EPYC 7B13
flags\t\t: fpu sse2 avx2{flag}

processor\t: 1
model name\t: AMD EPYC 7B13
flags\t\t: fpu sse2
"""
ARM = """processor\t: 0
Features\t: fp asimd{flag}
CPU implementer\t: 0x41
CPU part\t: {part}

processor\t: 1
Features\t: fp asimd{flag}
CPU part\t: {part}
Hardware\t: BCM2835
"""


def host(folder: Path, cpuinfo: str, machine: str, model: str = "") -> Host:
    (folder / "cpuinfo").write_text(cpuinfo, encoding="utf-8")
    if model:
        (folder / "model").write_bytes(model.encode() + b"\x00")  # the device tree ends its strings with a zero byte
    return read_host(folder / "cpuinfo", folder / "model", machine)


@pytest.mark.parametrize(
    ("flag", "vnni"), [(" avx512_vnni", True), (" avx_vnni", True), (" avx512f", False), ("", False)]
)
def test_x86(tmp_path: Path, flag: str, vnni: bool) -> None:
    machine = host(tmp_path, X86.format(flag=flag), "x86_64")
    assert machine == Host(arch="x86_64", cpu_model="AMD EPYC 7B13", cores=2, has_vnni=vnni, board="")


@pytest.mark.parametrize(
    ("part", "flag", "model", "vnni"),
    [
        ("0xd0b", " asimddp", "Cortex-A76", True),
        ("0xd08", "", "Cortex-A72", False),
        ("0xd99", "", "Arm part 0xd99", False),
    ],
)
def test_arm(tmp_path: Path, part: str, flag: str, model: str, vnni: bool) -> None:
    machine = host(tmp_path, ARM.format(part=part, flag=flag), "arm64", "Raspberry Pi 5 Model B Rev 1.0")
    assert machine == Host(
        arch="aarch64", cpu_model=model, cores=2, has_vnni=vnni, board="Raspberry Pi 5 Model B Rev 1.0"
    )


def test_what_cannot_be_read_is_modest(tmp_path: Path) -> None:
    machine = read_host(tmp_path / "none", tmp_path / "none", "AMD64")
    assert machine == Host(arch="x86_64", cpu_model="unknown", cores=os.cpu_count() or 1, has_vnni=False, board="")


def test_this_machine_can_be_read() -> None:
    machine = read_host()
    assert machine.arch
    assert machine.cores >= 1


PI4 = Host(arch="aarch64", cpu_model="Cortex-A72", cores=4, has_vnni=False, board="Raspberry Pi 4 Model B Rev 1.4")
PI5 = Host(arch="aarch64", cpu_model="Cortex-A76", cores=4, has_vnni=True, board="Raspberry Pi 5 Model B Rev 1.0")
ORIN = Host(arch="aarch64", cpu_model="Cortex-A78AE", cores=6, has_vnni=True, board="NVIDIA Jetson Orin Nano")
PC = Host(arch="x86_64", cpu_model="AMD EPYC", cores=2, has_vnni=False, board="")


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("cpu-x86_64", [PC]),
        ("cpu-aarch64", [PI4, PI5, ORIN]),
        ("rpi4", [PI4]),
        ("rpi5", [PI5]),
        ("jetson-orin-nano-8gb", []),
        ("dgx-spark", []),
        ("l4", []),
    ],
)
def test_which_hosts_are_the_target(name: str, here: list[Host]) -> None:
    profile = load_target(name).profile
    assert [h for h in (PI4, PI5, ORIN, PC) if is_this_host(profile, h)] == here


def test_without_a_host_this_machine_is_asked() -> None:
    profile = load_target("cpu-x86_64").profile
    arch = read_host().arch
    if arch not in ("x86_64", "aarch64"):
        pytest.skip(f"no CPU profile for {arch}")
    assert is_this_host(msgspec.structs.replace(profile, arch=arch))
    assert not is_this_host(msgspec.structs.replace(profile, arch={"x86_64": "aarch64"}.get(arch, "x86_64")))
