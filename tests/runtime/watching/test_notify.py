import os
import socket
from pathlib import Path

import pytest

from dlx_deploy.runtime.watching.notify import READY, WATCHDOG, Notifier


def test_a_real_socket_hears_each_word(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(path)
        notifier = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())})
        assert notifier.tell(READY, "two models\nREADY=0")
        assert notifier.tell(WATCHDOG)
        assert supervisor.recv(1000) == b"READY=1\nSTATUS=two models\\nREADY=0"
        assert supervisor.recv(1000) == b"WATCHDOG=1"
    assert notifier.watchdog_s == 3.0
    assert not notifier.tell(WATCHDOG)  # a supervisor that is gone is no fault


def test_an_abstract_socket_is_one_without_a_file() -> None:
    name = f"dlx-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(f"\0{name}")
        assert Notifier({"NOTIFY_SOCKET": f"@{name}"}).tell(READY)
        assert supervisor.recv(1000) == b"READY=1"


@pytest.mark.parametrize("address", ["", "/", "vsock:2:1234", "relative"])
def test_where_there_is_no_supervisor_nobody_is_told(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
    assert not notifier.listens
    assert notifier.watchdog_s is None
    assert not notifier.tell(READY)


@pytest.mark.parametrize(("micros", "pid"), [("0", ""), ("", ""), ("-5", ""), ("x", ""), ("²", ""), ("1000000", "1")])
def test_a_watchdog_of_another_process_or_of_no_time_is_none(micros: str, pid: str) -> None:
    environ = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": micros, "WATCHDOG_PID": pid}
    assert Notifier(environ).watchdog_s is None
