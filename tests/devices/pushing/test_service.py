"""The unit that serves a package."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dlx_deploy.devices.pushing.service import OPTIONS, Scope, Service, check_options, unit_name, unit_text
from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.commands.serve_options import add_serve_options


def service(root: Path, **changes: object) -> Service:
    return Service(**{"package": "digits", "root": str(root), "python": sys.executable, **changes})  # type: ignore[arg-type]


def values(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def test_a_unit_runs_the_current_release_and_may_write_nothing_but_its_cache(tmp_path: Path) -> None:
    unit = values(unit_text(service(tmp_path, options=("--port", "8080"), cache="/c/x y")))
    assert unit["ExecStart"] == f"{sys.executable} {tmp_path}/current/package.dlx serve --port 8080"
    assert (unit["Type"], unit["WatchdogSec"], unit["Restart"]) == ("notify", "60", "on-failure")
    assert (unit["ProtectSystem"], unit["ProtectHome"], unit["NoNewPrivileges"]) == ("strict", "read-only", "yes")
    assert (unit["ReadWritePaths"], unit["WantedBy"]) == ('"-/c/x y"', "default.target")
    assert not {"User", "MemoryMax", "CapabilityBoundingSet"} & set(unit)


def test_a_budget_of_memory_bounds_the_service(tmp_path: Path) -> None:
    unit = values(unit_text(service(tmp_path, memory_mib=100.5)))
    assert (unit["MemoryHigh"], unit["MemoryMax"]) == ("101M", "151M")


def test_a_system_unit_has_a_user_and_no_capabilities(tmp_path: Path) -> None:
    unit = values(unit_text(service(tmp_path, scope="system", user="edge", notifies=False)))
    assert (unit["User"], unit["CapabilityBoundingSet"], unit["Type"]) == ("edge", "", "simple")
    assert (unit["WantedBy"], "WatchdogSec" in unit) == ("multi-user.target", False)


def test_what_systemd_would_read_otherwise_is_escaped(tmp_path: Path) -> None:
    unit = values(unit_text(service(Path("/srv/a b%h"), options=("--token-file", '/x/$y "z"'))))
    assert unit["ExecStart"].endswith(r' "/srv/a b%%h/current/package.dlx" serve --token-file "/x/$$y \"z\""')
    assert unit["WorkingDirectory"] == "/srv/a b%%h"
    named = values(unit_text(service(tmp_path, python="python3.10")))
    assert named["ExecStart"].startswith("/usr/bin/env python3.10 ")
    assert unit_name("a b/../c") == "dlx-deploy-a-b-..-c.service"
    with pytest.raises(ConfigError, match="has a control character; no unit can hold it"):
        unit_text(service(tmp_path, options=("--port", "1\nExecStart=/bin/sh")))


def test_options_that_serve_has_not_are_refused() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    add_serve_options(parser)
    assert {name for action in parser._actions for name in action.option_strings} <= {*OPTIONS}
    check_options(["--port=80", "--insecure"])
    with pytest.raises(ConfigError, match="'--prot' is no option of serve; nearest valid name: '--port'"):
        check_options(["--prot", "80"])


@pytest.mark.parametrize("scope", ["user", "system"])
def test_systemd_reads_it_without_a_word(scope: Scope, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed here")
    root = tmp_path / "a b"
    root.mkdir()
    made = service(
        root, scope=scope, user="root", memory_mib=64, cache=str(root), options=("--token-file", "/etc/a$b %h")
    )
    path = tmp_path / unit_name("digits")
    path.write_text(unit_text(made))
    done = subprocess.run(
        [analyze, "verify", "--man=no", path], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")
