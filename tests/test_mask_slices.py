"""A whole build of masks with slices: one that sinks fails it, and a device that is given the folder says the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.runtime.commands.main import main

from .conftest import dlx
from .masks import mask_folder
from .test_build_segmentation import options

TARGET = "cpu-x86_64"
SMALL = (
    "data.kind=maskfolder",
    "data.height=16",
    "data.slices=['time']",
    "teacher.epochs=4",
    "distill.arguments={width=2,depth=1}",
    "distill.epochs=1",
    "prune.enabled=false",
    "quantize.precision=fp32",
    "gate.max_drop=0.95",
    "gate.allow_chance=true",
)
"""A student that has learnt next to nothing, so that what its slices lose leaves no doubt."""


def test_a_slice_that_sinks_fails_the_build_and_the_device(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = mask_folder(mask_folder(tmp_path / "given", 60), 40, "test")
    names = [f"test/images/{i:03}.png" for i in range(40)]
    times = ["day", "night"] * 20
    rows = "".join(f"{name},{time},scene {i // 2}\n" for i, (name, time) in enumerate(zip(names, times, strict=True)))
    train = "".join(f"train/images/{i:03}.png,,own {i}\n" for i in range(60))
    (given / "list.csv").write_text(f"image,Time,group\n{train}{rows}")
    asked = ["build", "--target", TARGET, "--json", *options(*SMALL, f"data.path='{given}'")]
    budget = "gate.slices={'time=night' = %s}"

    failed = dlx(*asked, "--set", budget % 0.02, cwd=tmp_path)
    assert failed.code == 3, failed.err
    assert "1 of 1 slices drop too far at 0.95 confidence" in failed.err
    assert "'time=night'" in failed.err
    done = dlx(*asked, "--set", budget % 0.95, cwd=tmp_path)
    assert done.code == 0, done.err
    (summary,) = json.loads(done.out)
    seen = {one["name"]: one for one in summary["results"]["slice_scores"]}
    assert {name: one["samples"] for name, one in seen.items()} == {"time=day": 20, "time=night": 20}
    assert seen["time=night"]["teacher"] - seen["time=night"]["package"] > 0.1
    gates = {gate["gate"]: gate for gate in summary["gates"]}
    assert gates["slice_drop"]["verdict"] == "pass"
    assert "on 20 groups" in gates["accuracy"]["text"]

    package = tmp_path / f"dist/masks-0.1.0-{TARGET}.dlx"
    device = verified(package, given, 0, capsys)
    assert device["verdict"]["units"] == 20
    (night,) = [one for one in device["slices"]["groups"] if one["name"] == "time=night"]
    assert night["package"] == pytest.approx(seen["time=night"]["package"], abs=1e-9)
    data = next((tmp_path / ".dlx").rglob("slices.json")).with_name("data")
    assert verified(package, data, 0, capsys)["slices"]["budget"] == device["slices"]["budget"]
    held = verified(package, given, 3, capsys, "--max-slice-drop", "0.02")["slices"]["budget"]
    assert (held["verdict"], len(held["groups"])) == ("fail", 2)
    (given / "list.csv").unlink()
    assert "slices of 'time' are undecided" in verified(package, given, 6, capsys)["slices"]["missing"]


def verified(package: Path, data: Path, code: int, capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["verify", f"--data={data}", *more, "--json"], str(package)) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found
