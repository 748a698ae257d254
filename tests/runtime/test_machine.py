from __future__ import annotations

import io
import platform
import socket
import sys

import onnxruntime
import pytest

from dlx_deploy.runtime import machine
from dlx_deploy.runtime.machine import machine_info


def fake_files(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> None:
    def fake_open(path: str, mode: str = "r", **options: str) -> io.IOBase:
        if path not in files:
            raise FileNotFoundError(path)
        return io.BytesIO(files[path]) if "b" in mode else io.StringIO(files[path].decode())

    monkeypatch.setattr(machine, "open", fake_open, raising=False)


def test_this_machine() -> None:
    info = machine_info()
    assert info["onnxruntime"] == onnxruntime.__version__
    assert info["python"] == platform.python_version()
    assert info["cores"] >= 1
    assert platform.machine() in info["label"]
    assert socket.gethostname() not in info["label"]


def test_a_jetson(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_files(
        monkeypatch,
        {
            "/proc/device-tree/model": b"NVIDIA Jetson Orin Nano Developer Kit\0",
            "/proc/cpuinfo": b"processor\t: 0\nCPU part\t: 0xd42\n",
            "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": b"schedutil\n",
            "/var/lib/nvpmodel/status": b"pmode:0001",
        },
    )
    info = machine_info()
    assert info["label"].startswith("NVIDIA Jetson Orin Nano Developer Kit (")
    assert (info["governor"], info["power_mode"], info["cpu"]) == ("schedutil", "pmode:0001", None)


def test_a_pc(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_files(monkeypatch, {"/proc/cpuinfo": b"processor\t: 0\nmodel\t\t: 85\nmodel name\t: Some CPU @ 2.00GHz\n"})
    info = machine_info()
    assert info["label"].startswith("Some CPU @ 2.00GHz (")
    assert (info["board"], info["governor"], info["power_mode"]) == (None, None, None)


def test_nothing_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_files(monkeypatch, {})
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    info = machine_info()
    assert info["label"].startswith("unknown CPU (")
    assert info["onnxruntime"] is None
