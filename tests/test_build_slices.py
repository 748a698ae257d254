"""One whole build of data with groups and slices: judged by both in the build, on a device, and against a release."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlx_deploy.runtime.commands.main import main
from dlx_deploy.runtime.package.contents import open_package

from .conftest import Here
from .test_build_text import WORDS, options

QUICK = ("distill.enabled=false", "prune.enabled=false", "quantize.precision=fp32", "data.max_length=12")
BUDGETS = ("data.slices=['source']", "gate.max_slice_drop=0.6", 'gate.slices={"source=book" = 0.5}')
TARGET = "cpu-x86_64"


def listed(path: Path, rows: range) -> Path:
    """Texts by 60 authors, each from two sources."""
    rng = np.random.default_rng(rows.start)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["text", "label", "group", "Source"])
        for i in rows:
            name = list(WORDS)[i // 2 % 2]
            words = " ".join(rng.choice(WORDS[name], 5))
            out.writerow([f"{words} {i}", name, f"author {i // 2}", ("web", "book")[i % 2]])
    return path


def gates(out: str) -> dict[str, str]:
    (summary,) = json.loads(out)
    return {gate["gate"]: gate["verdict"] for gate in summary["gates"]}


def test_groups_and_slices_from_a_table_to_a_device(
    tmp_path: Path, here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    listed(given / "train.csv", range(1000, 1160))
    test = listed(given / "test.csv", range(120))
    asked: list[str] = ["--target", TARGET, *options(given, *QUICK, *BUDGETS)]
    done = here("build", *asked, "--json")
    assert done.code == 0, done.err
    assert gates(done.out)["slice_drop"] == "pass"
    (summary,) = json.loads(done.out)
    assert {one["name"]: one["samples"] for one in summary["results"]["slices"]} == {
        "source=book": 60,
        "source=web": 60,
    }
    assert "on 60 groups" in next(gate["text"] for gate in summary["gates"] if gate["gate"] == "accuracy")
    package = tmp_path / f"dist/texts-0.1.0-{TARGET}.dlx"
    slices = open_package(package).budgets.slices
    assert (slices.columns, slices.others, slices.named) == (("source",), 0.6, {"source=book": 0.5, "source=web": 0.6})

    found = verified(package, test, 0, capsys)
    assert found["verdict"]["units"] == 60
    assert [one["metric"] for one in found["judged"]].count("max_slice_drop") == 1
    assert found["slices"]["budget"]["verdict"] == "pass"
    data = next(path for path in (tmp_path / ".dlx").rglob("slices.json"))
    assert verified(package, data.with_name("data"), 0, capsys)["slices"]["budget"]["verdict"] == "pass"
    plain = tmp_path / "plain.csv"
    plain.write_text("".join(line.rsplit(",", 1)[0] + "\n" for line in test.read_text().splitlines()))
    assert "slices of 'source' are undecided" in verified(package, plain, 6, capsys)["slices"]["missing"]

    again = here("build", *asked, "--baseline", package, "--json")
    assert again.code == 0, again.err
    held = gates(again.out)
    assert (held["regression"], held["slice_regression"]) == ("pass", "pass")


def verified(package: Path, data: Path, code: int, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["verify", f"--data={data}", "--json"], str(package)) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found
