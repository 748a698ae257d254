"""The end of a process: at once, where nobody but Python goes on after it, and nothing that is to be done is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.runtime import leaving

from ..interpreters import Absent, find_python

ENDED, TAKEN_DOWN = "registered\n", "taken down\n"
MAIN = f"""
import atexit, sys
from leaving import leave

class Held:
    def __del__(self, write=sys.stderr.write):
        write({TAKEN_DOWN!r})

held = Held()
atexit.register(sys.stderr.write, {ENDED!r})
"""
LEAVE = "leave(3)\n"
PRINTS = "import ctypes\nsys.stdout.write('Python ')\nsys.stdout.flush()\nctypes.CDLL(None).printf(b'and C ')\n"
FAILS = "def fail():\n    raise ValueError('of an end')\natexit.register(fail)\n"
THREAD = "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.2), print('waited for'))).start()\n"
DAEMON = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"


def started(
    folder: Path, before: str, *argv: str, python: Path = Path(sys.executable), **more: Any
) -> tuple[int, str, str]:
    """What a program that prepares ``before`` and then leaves gave: exit code and what it printed."""
    app = folder / "app"
    app.mkdir(exist_ok=True)
    (app / "leaving.py").write_text(Path(leaving.__file__).read_text())
    (app / "__main__.py").write_text(MAIN + before + LEAVE)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}
    given = {"stdout": subprocess.PIPE, **more}
    done = subprocess.run(
        [str(python), *(argv or ("app",))], cwd=folder, env=env, stderr=subprocess.PIPE, text=True, **given
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14"])
def test_what_is_to_be_done_at_the_end_is_and_nothing_is_taken_down(version: str, tmp_path: Path) -> None:
    try:
        python = find_python(version)
    except Absent as e:
        pytest.skip(f"not run on Python {version}: {e}")
    before = PRINTS + DAEMON + "sys.stdout.write('last')\n"
    assert started(tmp_path, before, python=python) == (3, "Python lastand C ", ENDED)
    code, _, told = started(tmp_path, FAILS, python=python)
    assert (code, "ValueError: of an end" in told, ENDED in told, TAKEN_DOWN in told) == (3, True, True, False)


def test_who_runs_it_by_runpy_goes_on(tmp_path: Path) -> None:
    code = (
        "import runpy\ntry:\n    runpy.run_path('app', run_name='__main__')\n"
        "except SystemExit as e:\n    print('went on', e.code)"
    )
    assert started(tmp_path, "", "-c", code) == (0, "went on 3\n", ENDED + TAKEN_DOWN)
    (tmp_path / "caller.py").write_text(code)
    assert started(tmp_path, "", "-m", "caller")[:2] == (0, "went on 3\n")


def test_threads_are_waited_for(tmp_path: Path) -> None:
    assert started(tmp_path, THREAD) == (3, "waited for\n", ENDED + TAKEN_DOWN)


@pytest.mark.parametrize("option", ["-i", "-Xdev"])
def test_python_ends_as_it_is_asked_to(tmp_path: Path, option: str) -> None:
    code, out, told = started(tmp_path, "", option, "app", input="print('asked')")
    assert (out, TAKEN_DOWN in told, ENDED in told) == ("asked\n" if option == "-i" else "", True, True)
    assert code == (0 if option == "-i" else 3)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no device that is always full")
def test_what_cannot_be_written_is_said_as_python_says_it(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        code, _, told = started(tmp_path, "sys.stdout.write('lost')\n", stdout=full)
    assert code == 120
    assert ("No space left on device" in told, "leaving.py" in told) == (True, False)
