"""Reports by the names of targets and packages, out of a store, from beside a package, from a package alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from dlx_deploy.errors import ConfigError, StoreError
from dlx_deploy.pipeline.manifest import latest_manifests
from dlx_deploy.pipeline.store import Store
from dlx_deploy.report.page.asked import view_reports
from dlx_deploy.report.page.facts import overall
from dlx_deploy.report.page.gather import outputs_of
from dlx_deploy.report.page.packaged import _unknown

from ...conftest import PACKAGE, Here

BOARD = "jetson-orin-nano-8gb"


def test_a_target_and_its_package_say_the_same(built: Path) -> None:
    (of_target,) = view_reports(["jetson"], built / ".dlx").reports
    (of_package,) = view_reports([str(built / PACKAGE)], built / ".dlx").reports
    assert of_target.target == BOARD
    assert of_package.origin.facts.keys() - of_target.origin.facts.keys() == {
        "package", "package size", "package SHA-256",
    }  # fmt: skip
    assert of_target.verdicts == of_package.verdicts
    assert of_target.models == of_package.models
    assert {step.step for step in of_target.steps if step.curves} == {"teacher", "distill", "prune"}
    assert of_target.data_set is not None
    assert len(of_target.data_set.classes) == 10


def test_a_package_alone_says_what_travels_in_it(built: Path, tmp_path: Path) -> None:
    shutil.copyfile(built / PACKAGE, tmp_path / "X.dlx")
    (whole,) = view_reports([str(built / PACKAGE)], built / ".dlx").reports
    (alone,) = view_reports([str(tmp_path / "X.dlx")], tmp_path / "none").reports
    assert alone.verdicts.gates == whole.verdicts.gates[:1]
    assert [(s.step, s.key) for s in alone.steps if s.step != "package"] == [
        (s.step, s.key) for s in sorted(whole.steps, key=lambda s: s.step) if s.step != "package"
    ]
    assert alone.models is not None
    assert whole.models is not None
    assert [(c.model, c.score, c.drop_upper) for c in alone.models.candidates] == [
        (c.model, c.score, c.drop_upper) for c in whole.models.candidates
    ]
    (tmp_path / "X.manifest.json").write_bytes((built / PACKAGE).with_suffix(".manifest.json").read_bytes())
    assert view_reports([str(tmp_path / "X.dlx")], tmp_path / "none").reports[0].verdicts == whole.verdicts
    with (tmp_path / "X.dlx").open("ab") as file:
        file.write(b"other bytes")
    with pytest.raises(Exception, match=r"X\.dlx"):
        view_reports([str(tmp_path / "X.dlx")], tmp_path / "none")


def test_what_is_not_there_is_named(built: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no build in .*none; start one with: dlx-deploy build, or name a package"):
        view_reports([], tmp_path / "none")
    with pytest.raises(ConfigError, match=rf"rpi5: no build for it in .*; there are those for: {BOARD}"):
        view_reports(["rpi5"], built / ".dlx")


def test_a_damaged_output_is_named(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / ".dlx", tmp_path / ".dlx")
    (accuracy,) = (tmp_path / ".dlx" / "store").glob("*/accuracy.json")
    accuracy.chmod(0o644)
    accuracy.write_text(accuracy.read_text().replace("0", "1", 1))  # still JSON
    with pytest.raises(StoreError, match=r"what verify wrote is damaged \(accuracy.json .*\); build again with --deep"):
        view_reports([BOARD], tmp_path / ".dlx")


def test_the_command(built: Path, tmp_path: Path, here: Here) -> None:
    store = str(built / ".dlx")
    assert here("report", "--store", store).out.startswith(f"digits 0.1.0 for {BOARD}: PASS, every budget is met\n")
    (data,) = json.loads(here("report", BOARD, "--store", store, "--json").out)
    assert data["verdicts"]["outcome"] == "pass"
    page = here("report", BOARD, "--store", store, "--html", "r.html")
    assert (page.code, page.err) == (0, "r.html written; open it in a browser\n")
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    wrong = here("report", BOARD, "--store", store, "--html", "r.dlx")
    assert (wrong.code, "must end in .html or .htm" in wrong.err) == (2, True)


def test_budgets_whose_verdicts_do_not_travel_are_no_pass() -> None:
    """A package alone knows what came of its drop, and of nothing else."""
    found = tuple(_unknown({"max_drop": 0.02, "confidence": 0.95, "max_latency_p90_ms": 4, "metric": "auroc"}))
    assert [(one.gate, one.limit, one.verdict) for one in found] == [("max_latency_p90_ms", 4.0, "pending")]
    assert overall("done", found) == "pending"


def test_what_another_run_left_under_a_key_is_no_part_of_a_report(built: Path) -> None:
    store = Store(built / ".dlx")
    manifest = latest_manifests(store)[BOARD]
    whole = outputs_of(manifest, store)
    assert whole["verify"].keys() >= {"accuracy.json", "latency.json"}
    changed = [
        msgspec.structs.replace(
            step, outputs={n: msgspec.structs.replace(o, digest="0" * 64) for n, o in step.outputs.items()}
        )
        for step in manifest.steps
    ]
    other = outputs_of(msgspec.structs.replace(manifest, steps=tuple(changed)), store)
    assert not any(other.values())
