from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dlx_deploy.runtime.files import TooLarge, read_file, write_atomically

SOURCES = sorted((Path(__file__).parents[2] / "dlx_deploy" / "runtime").rglob("*.py"))


def test_the_permissions_asked_for_or_those_of_new_files(tmp_path: Path) -> None:
    (tmp_path / "usual").write_bytes(b"")
    write_atomically(tmp_path / "given", b"1", 0o600)
    write_atomically(tmp_path / "new", b"1")
    modes = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.iterdir()}
    assert modes == {"usual": modes["usual"], "new": modes["usual"], "given": 0o600}


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_a_failure_leaves_the_old_bytes_and_no_litter(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    write_atomically(tmp_path / "a", b"old")
    monkeypatch.setattr(os, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a", b"new", 0o644)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"old"}


def test_threads_that_write_one_file(tmp_path: Path) -> None:
    versions = [bytes([i]) * 10_000 for i in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data: write_atomically(tmp_path / "a", data), versions))
    assert (tmp_path / "a").read_bytes() in versions
    assert len(list(tmp_path.iterdir())) == 1


def test_this_is_the_only_way_to_replace_a_file() -> None:
    others = [p.name for p in SOURCES if re.search(r"os\.replace|fsync|mkstemp", p.read_text(encoding="utf-8"))]
    assert others == ["files.py"]


SHORT = """
import resource, sys
from dlx_deploy.runtime.files import read_file
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
print(read_file(sys.argv[1], 2**31))
"""


def test_a_small_file_takes_no_more_memory_than_it_has(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    (tmp_path / "small").write_bytes(b"all of it")
    command = [sys.executable, "-c", SHORT, str(tmp_path / "small")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "b'all of it'\n"), done.stderr


def test_a_file_that_grows_is_read_to_its_end_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"all of it")
    before = os.stat(path)

    def early(handle: int) -> os.stat_result:
        return os.stat_result((*before[:6], 3, *before[7:]))

    monkeypatch.setattr(os, "fstat", early)
    assert read_file(path, 9) == b"all of it"
    with pytest.raises(TooLarge):
        read_file(path, 8)
