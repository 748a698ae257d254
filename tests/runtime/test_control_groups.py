"""Less than the machine has, as Linux says it of a container: on a tree of files that looks like its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.runtime import machine
from dlx_deploy.runtime.backends import session
from dlx_deploy.runtime.control_groups import limits_of
from dlx_deploy.runtime.machine import available_cores, limited_threads

NEW = "cgroup2 cgroup2 rw,nsdelegate"
OLD = "cgroup cgroup rw,cpu,cpuacct"
Tree = Callable[..., str]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Makes a ``/proc`` that says where the groups of this process are, and the files of these."""

    def make(own: str, files: dict[str, str], mounts: dict[str, str] | None = None, root: str = "/") -> str:
        (tmp_path / "self").mkdir()
        (tmp_path / "self/cgroup").write_text(own)
        mounts = {"all": NEW} if mounts is None else mounts
        lines = [f"30 23 0:2{i} {root} {tmp_path / at} rw shared:4 - {k}\n" for i, (at, k) in enumerate(mounts.items())]
        (tmp_path / "self/mountinfo").write_text(f"22 1 8:1 / / rw - ext4 /dev/sda rw\ndamaged\n{''.join(lines)}")
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return str(tmp_path)

    return make


@pytest.fixture(autouse=True)
def machine_of_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 8)


V1 = {"cpu,cpuacct": OLD, "memory": "cgroup cgroup rw,memory"}


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {}, 8),
        ("0::/\n", {"all/cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"all/cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"all/cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"all/cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"all/cpu.max": "1600000 100000\n"}, 8),
        ("0::/\n", {"all/cpu.max": "much 100000\n"}, 8),
        ("0::/a/b\n", {"all/a/b/cpu.max": "max 100000\n", "all/a/cpu.max": "300000 100000\n"}, 3),
        ("0::/a/b\n", {"all/a/b/cpu.max": "100000 50000\n", "all/a/cpu.max": "300000 100000\n"}, 2),
        ("0::/a/b\n", {"all/a/c/cpu.max": "100000 100000\n"}, 8),
        ("0::/../../other\n", {"all/cpu.max": "400000 100000\n"}, 4),
    ],
)
def test_a_quota_of_version_2(tree: Tree, own: str, files: dict[str, str], cores: int) -> None:
    proc = tree(own, files)
    assert available_cores(proc) == cores
    assert limited_threads(proc) == (cores if cores < 8 else 0)


def quota(at: str, quota: int) -> dict[str, str]:
    return {f"{at}/cpu.cfs_quota_us": f"{quota}\n", f"{at}/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        (quota("cpu,cpuacct", -1), 8),
        (quota("cpu,cpuacct", 300_000), 3),
        ({**quota("cpu,cpuacct", -1), **quota("cpu,cpuacct/box", 200_000)}, 2),
        ({**quota("cpu,cpuacct/box/in", 600_000), **quota("cpu,cpuacct/box", 500_000)}, 5),
        (quota("memory/box", 200_000), 8),
    ],
)
def test_a_quota_of_version_1(tree: Tree, files: dict[str, str], cores: int) -> None:
    own = "5:memory:/else\n4:cpu,cpuacct:/box/in\n1:name=systemd:/\n0::/\n"
    assert available_cores(tree(own, files, V1)) == cores


def test_a_container_that_is_told_its_path_on_the_machine(tree: Tree) -> None:
    """Its mount begins at its own group, which is called by a path from the machine's root."""
    files = {**quota("cpu,cpuacct", 400_000), **quota("cpu,cpuacct/in", 200_000)}
    assert available_cores(tree("4:cpu,cpuacct:/docker/0af/in\n", files, V1, root="/docker/0af")) == 2


def test_of_both_versions_the_least_holds(tree: Tree) -> None:
    files = {**quota("cpu,cpuacct/a", 300_000), "unified/b/cpu.max": "500000 100000\n"}
    proc = tree("4:cpu,cpuacct:/a\n0::/b\n", files, {**V1, "unified": NEW})
    assert available_cores(proc) == 3


def test_nothing_is_limited_that_does_not_say_so(tmp_path: Path) -> None:
    assert list(limits_of("cpu", ("cpu.max",), str(tmp_path))) == []
    assert available_cores(str(tmp_path)) == 8


def test_fewer_cores_than_the_quota_pays_for_are_those(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {1, 5, 6}, raising=False)
    proc = tree("0::/\n", {"all/cpu.max": "400000 100000\n"})
    assert (available_cores(proc), limited_threads(proc)) == (3, 3)


@pytest.mark.parametrize(("cores", "threads", "taken"), [(8, 0, 0), (2, 0, 2), (2, 5, 5)])
def test_a_session_takes_the_threads_that_its_container_has_cores_for(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int, taken: int
) -> None:
    """By itself ONNX Runtime counts those of the whole machine, and they hold each other up."""
    ort: Any = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    monkeypatch.setattr(machine, "available_cores", lambda proc: cores)
    assert session._options(ort, False, threads).intra_op_num_threads == taken
    assert os.cpu_count() == 8
