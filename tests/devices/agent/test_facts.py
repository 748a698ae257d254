"""What a board is: read from a tree of files as a Jetson has them; and how the agent's source is made."""

from __future__ import annotations

import ast
import errno
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.devices.agent import facts as module
from dlx_deploy.devices.agent import main
from dlx_deploy.devices.agent.main import answer
from dlx_deploy.devices.agent.sending import MODULES, agent_source

ORIN = {
    "proc/meminfo": "MemTotal:        7802496 kB\nMemFree:  1 kB\nMemAvailable:    5242880 kB\n",
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\n\nprocessor\t: 1\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/sys/kernel/random/boot_id": "b00t\n",
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\nCPU 0 1\n< POWER_MODEL ID=1 NAME=7W >\n",
    "var/lib/nvpmodel/status": "pmode:0001",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1510400\n",
    "dev/nvhost-gpu": "",
}


def facts(path: Path, **fields: Any) -> Any:
    return answer({"command": "facts", "path": str(path), "clock_s": time.time() + 86400, **fields})["ok"]


@pytest.fixture
def orin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in ORIN.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(module, "ROOT", str(tmp_path))
    monkeypatch.setattr(module, "_versions", lambda python: {"python": "3.10.12"})
    return tmp_path


def test_a_jetson_is_read_from_its_files(orin: Path) -> None:
    told = facts(orin / "home" / "app")
    assert told["root"] == str(orin / "home" / "app")
    assert not (orin / "home").exists()  # asking makes nothing
    expected = {
        "os": "Ubuntu 22.04.5 LTS",
        "l4t": "36.4.3",
        "board": "NVIDIA Jetson Orin Nano Developer Kit",
        "cpu_model": "ARMv8 Processor rev 1 (v8l)",
        "gpus": ["a Jetson's"],
        "power_mode": "pmode:0001",
        "power_mode_name": "7W",
        "governor": "schedutil",
        "clock_mhz": 1510.4,
        "free_memory_mib": 5120,
        "total_memory_mib": 7619,
        "boot": "b00t",
        "writable": True,
    }
    assert {name: told[name] for name in expected} == expected
    assert (told["executable"], told["versions"]) == (sys.executable, {"python": "3.10.12"})
    assert told["clock_ahead_s"] == pytest.approx(-86400, abs=30)


def test_a_bare_machine_says_what_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    told = facts(tmp_path)
    none = ("free_memory_mib", "power_mode", "power_mode_name", "governor", "clock_mhz")
    assert [told[name] for name in none] == [None] * 5
    assert told["versions"]["python"] == platform.python_version()
    assert told["versions"]["numpy"]
    assert (told["gpus"], told["l4t"], told["os"], told["pythons"]) == ([], "", "", {})


def test_home_is_the_boards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(module, "_versions", lambda python: {})
    assert facts(Path("~/dlx-deploy/digits"))["root"] == str(tmp_path / "dlx-deploy" / "digits")
    assert facts(Path("apps/digits"))["root"] == str(tmp_path / "apps" / "digits")


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.ENOSPC, "no-space", "/there: no space is left there; remove what is not needed"),
        (errno.EROFS, "not-writable", "/there: Read-only file system; name a folder that this user may write"),
        (errno.EIO, "system", "/there: Input/output error"),
    ],
)
def test_what_the_system_refuses_is_said_in_words(
    monkeypatch: pytest.MonkeyPatch, number: int, kind: str, text: str
) -> None:
    def refuse(asked: Any) -> Any:
        raise OSError(number, os.strerror(number), "/there")

    monkeypatch.setitem(main.COMMANDS, "facts", refuse)
    fault = answer({"command": "facts"})["fault"]
    assert isinstance(fault, dict)
    assert fault["kind"] == kind
    assert fault["text"].startswith(text)


def test_the_python_beside_the_releases_is_asked_or_the_one_named(tmp_path: Path) -> None:
    beside = tmp_path / "venv" / "bin" / "python3"
    beside.parent.mkdir(parents=True)
    beside.write_text('#!/bin/sh\necho warming up\necho \'{"python": "3.9.1", "numpy": "1.0"}\'\n')
    beside.chmod(0o755)
    told = facts(tmp_path)
    assert (told["executable"], told["versions"]) == (str(beside), {"python": "3.9.1", "numpy": "1.0"})
    fault = answer({"command": "facts", "path": str(tmp_path), "clock_s": 1, "python": "/none/python9"})["fault"]
    assert isinstance(fault, dict)
    assert fault["text"].startswith("/none/python9 does not run (")


def test_power_modes_have_names_and_numbers(orin: Path) -> None:
    assert module.power_modes() == {"mode": "7W", "modes": {"15W": 0, "7W": 1}}
    (orin / "var/lib/nvpmodel/status").unlink()
    (orin / "etc/nvpmodel.conf").unlink()
    assert module.power_modes() == {"mode": None, "modes": {}}


def test_the_source_is_whole_and_any_python_3_reads_it(tmp_path: Path) -> None:
    folder = Path(module.__file__).parent
    assert {f"{name}.py" for name in (*MODULES, "__init__", "sending")} == {path.name for path in folder.glob("*.py")}
    for name in MODULES:
        ast.parse((folder / f"{name}.py").read_text(), feature_version=(3, 6))
    room: dict[str, Any] = {}
    source = agent_source()
    assert source.isascii()
    exec(source, room)
    assert room["main"]({"command": "facts", "path": str(tmp_path), "clock_s": 1})["ok"]["root"] == str(tmp_path)
