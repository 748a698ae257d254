"""Temporary folders: a living process keeps its own, a dead one's goes with the next of its kind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import dlx_deploy
from dlx_deploy.runtime.scratch import Scratch

ROOT = Path(dlx_deploy.__file__).parent
HOLDS = """
import sys, time
from dlx_deploy.runtime.scratch import Scratch
held = Scratch("kind", sys.argv[1])
(held.path / "file").write_text("x")
print(held.path, flush=True)
time.sleep(60)
"""


def long_ago(folder: Path) -> None:
    os.utime(folder, (0, 0))


def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        (tmp_path / "other-kind").mkdir()
        for folder in (theirs, tmp_path / "other-kind"):
            long_ago(folder)
        with Scratch("kind", str(tmp_path)) as own:
            assert (theirs / "file").exists(), "whose process lives, however old it is"
            long_ago(own)
            Scratch("kind", str(tmp_path)).close()
            assert own.exists(), "of this process too"
        assert not own.exists()
        other.kill()
        other.wait()
    Scratch("kind", str(tmp_path)).close()
    assert theirs.exists() is False
    assert (tmp_path / "other-kind").exists()


def test_what_is_being_made_is_not_taken_for_left(tmp_path: Path) -> None:
    (tmp_path / "kind-new").mkdir()  # not locked yet
    Scratch("kind", str(tmp_path)).close()
    assert (tmp_path / "kind-new").exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "kind-link").symlink_to(tmp_path / "precious")
    os.utime(tmp_path / "kind-link", (0, 0), follow_symlinks=False)
    Scratch("kind", str(tmp_path)).close()
    assert (tmp_path / "precious").exists()


def test_a_folder_that_nobody_holds_any_more_goes(tmp_path: Path) -> None:
    held = Scratch("kind", str(tmp_path))
    path = held.path
    del held
    gc.collect()
    assert not path.exists()


def test_all_temporary_folders_are_such() -> None:
    files = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py")}
    assert not [path for path, text in files.items() if "TemporaryDirectory(" in text]
