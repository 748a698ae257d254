"""What a step's process takes, where the system says it, and nothing where it does not."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import pytest
from msgspec import UNSET

from dlx_deploy.pipeline.memory import available_mib, fitting_jobs, with_peak
from dlx_deploy.pipeline.run import run_build
from dlx_deploy.pipeline.store import Store
from dlx_deploy.report.stores import view_status

from .conftest import Events, Toy

STATUS = "Name:\tpython\nVmPeak:\t  900000 kB\nVmHWM:\t  {peak} kB\nVmRSS:\t  {now} kB\n"


def proc(folder: Path, peak: int, now: int) -> Path:
    (folder / "self").mkdir(exist_ok=True)
    (folder / "self/clear_refs").touch()
    (folder / "self/status").write_text(STATUS.format(peak=peak, now=now))
    return folder


def test_the_peak_is_that_of_the_call(tmp_path: Path) -> None:
    machine = proc(tmp_path, 2048, 2048)
    assert with_peak(lambda n: proc(tmp_path, 5120, 1024).name and n, 3, machine) == (3, 5.0)
    assert (tmp_path / "self/clear_refs").read_text() == "5"


def test_a_peak_of_before_is_not_told(tmp_path: Path) -> None:
    """Where it cannot be begun anew: the kernel refuses, or takes the wish and does nothing."""
    assert with_peak(len, "ab", tmp_path) == (2, None)
    assert with_peak(len, "ab", proc(tmp_path, 512 * 1024, 100 * 1024)) == (2, None)
    (tmp_path / "self/status").write_text("Name:\tpython\nVmRSS:\tmuch kB\n")
    assert with_peak(len, "ab", tmp_path) == (2, None)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from Linux's /proc")
def test_of_two_calls_each_has_its_own() -> None:
    def touch(mib: int) -> None:
        with mmap.mmap(-1, mib << 20) as block:
            block[:: mmap.PAGESIZE] = b"x" * (len(block) // mmap.PAGESIZE)

    (_, large), (_, small) = with_peak(touch, 160), with_peak(touch, 1)
    if large is None:
        pytest.skip("this kernel does not begin a peak anew")
    assert small is not None
    assert large - small > 120


@pytest.mark.parametrize(
    ("files", "mib"),
    [
        ({"meminfo": "MemTotal: 9000 kB\nMemAvailable:   8388608 kB\n"}, 8192),
        ({"meminfo": "MemAvailable:   8388608 kB\n", "new/memory.max": "max\n"}, 8192),
        ({"meminfo": "MemAvailable:   8388608 kB\n", "new/memory.max": "2147483648\n"}, 2048),
        ({"new/box/memory.max": "2147483648\n", "new/memory.max": "4147483648\n"}, 2048),
        ({"old/memory.limit_in_bytes": "1073741824\n"}, 1024),
        ({"old/box/memory.limit_in_bytes": "1073741824\n", "old/other/memory.limit_in_bytes": "1000\n"}, 1024),
        ({}, None),
    ],
)
def test_the_memory_that_is_left(tmp_path: Path, files: dict[str, str], mib: int | None) -> None:
    own = {"self/cgroup": "4:memory:/box\n0::/box\n", "self/mountinfo": ""}
    for at, kind in (("new", "cgroup2 cgroup2 rw"), ("old", "cgroup cgroup rw,memory")):
        own["self/mountinfo"] += f"30 23 0:2 / {tmp_path / at} rw - {kind}\n"
    for name, text in {**own, **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_mib(tmp_path) == mib


def test_a_step_s_peak_is_recorded_and_a_record_of_before_is_opened(
    toy: Toy, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    peaks = iter([1.5, None, 3.0])
    monkeypatch.setattr("dlx_deploy.pipeline.run.with_peak", lambda run, job: (run(job), next(peaks)))
    built = run_build(toy.build(), store, Events()).manifest.steps
    assert [step.peak_memory_mib for step in built] == [1.5, UNSET, 3.0]
    assert [record.peak_memory_mib for record in (store.find(step.key) for step in built)] == [1.5, UNSET, 3.0]
    texts = {step.step: (store.root / "store" / step.key / "record.json").read_text() for step in built}
    assert "peak" not in texts["parity"]  # what it says is what records said before
    assert '"peak_memory_mib": 3.0' in texts["scale"]
    table = view_status(store.root).text
    assert [line.split()[4:6] for line in table.splitlines()[3:6]] == [["2", "MiB"], ["-", "1"], ["3", "MiB"]]
    again = run_build(toy.build(), store, Events()).manifest.steps
    assert [(step.status, step.peak_memory_mib) for step in again] == [("cached", p) for p in (1.5, UNSET, 3.0)]


@pytest.mark.parametrize(
    ("cores", "mib", "jobs"), [(8, None, 2), (8, 64_000, 2), (1, 64_000, 1), (8, 3_072, 2), (8, 3_071, 1), (8, 100, 1)]
)
@pytest.mark.skipif(os.name != "posix", reason="elsewhere steps run one by one")
def test_two_steps_run_side_by_side_where_there_is_room_for_them(
    monkeypatch: pytest.MonkeyPatch, cores: int, mib: int | None, jobs: int
) -> None:
    monkeypatch.setattr("dlx_deploy.pipeline.memory.available_mib", lambda: mib)
    assert fitting_jobs(cores) == jobs
