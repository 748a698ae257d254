"""The verdicts of ``build``, ``verify`` and ``bench`` as CI reads them, also where they fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from dlx_deploy import cli
from dlx_deploy.commands.ci_output import GITHUB, CiOutput, reporting
from dlx_deploy.errors import ConfigError, GateUndecided, StageFailed
from dlx_deploy.report.ci import judged_cases
from dlx_deploy.runtime.commands.budgets import judged_budgets
from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import assemble

from ..tasks.made_up import Errors


def cases(path: Path) -> dict[str, list[str]]:
    """Case → its elements."""
    return {str(one.get("name")): [child.tag for child in one] for one in ET.parse(path).iter("testcase")}


def test_a_package_within_and_beyond_its_budget(
    dlx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, page, asked = tmp_path / "v.xml", tmp_path / "step.md", tmp_path / "own.md"
    monkeypatch.setenv(GITHUB, str(page))
    page.write_text("before\n")
    package = str(dlx)
    bench = ["bench", package, "--rounds=2", "--threads=1", f"--junit={out}", "--github-summary", f"--summary={asked}"]
    assert cli.run([*bench]) == 0
    assert cases(out) == {"bench": ["system-out"]}
    assert page.read_text().startswith("before\n### dlx-deploy bench")
    assert asked.read_text() == page.read_text().removeprefix("before\n")
    assert cli.run([*bench, "--public-key", str(tmp_path / "none.pem")]) == 2
    assert cases(out) == {"bench": ["error"]}
    assert "::error title=" in capsys.readouterr().err


def test_a_build_that_ends_before_it_begins(tmp_path: Path) -> None:
    out = tmp_path / "v.xml"
    out.write_text("of an earlier run")
    assert cli.run(["build", "-c", str(tmp_path / "none.toml"), f"--junit={out}"]) == 2
    assert cases(out) == {"build": ["error"]}


def test_errors_of_each_kind(tmp_path: Path) -> None:
    out = CiOutput(junit=tmp_path / "v.xml")
    with pytest.raises(StageFailed), reporting(out, "build", "build"):
        raise StageFailed("disk")
    assert cases(tmp_path / "v.xml") == {"build": ["error"]}
    with pytest.raises(KeyboardInterrupt), reporting(out, "build", "build"):
        raise KeyboardInterrupt
    assert cases(tmp_path / "v.xml") == {"build": ["error"]}


def test_a_gate_that_has_a_case_gets_no_second_one(tmp_path: Path) -> None:
    from dlx_deploy.report.ci import Case

    out = CiOutput(junit=tmp_path / "v.xml")

    def judge() -> None:
        with reporting(out, "build", "build") as told:
            told.append(Case(suite="jetson", name="accuracy", state="undecided", text="too few"))
            raise GateUndecided("too few")

    with pytest.raises(GateUndecided):
        judge()
    assert cases(tmp_path / "v.xml") == {"accuracy": ["error"]}


def test_files_are_looked_at_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(GITHUB, raising=False)
    for output, message in (
        (CiOutput(junit=tmp_path / "none" / "v.xml"), "name a file in a folder that is there"),
        (CiOutput(junit=tmp_path), "cannot be written"),
        (CiOutput(github_summary=True), f"{GITHUB} is not set"),
    ):
        with pytest.raises(ConfigError, match=message), reporting(output, "build", "build"):
            pytest.fail("the work began")


def test_another_file_is_not_replaced(dlx: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = dlx.read_bytes()
    assert cli.run(["bench", str(dlx), f"--junit={dlx}"]) == 2
    assert "must end in .xml, so that no other file is replaced" in capsys.readouterr().err
    assert dlx.read_bytes() == before


def test_each_budget_of_a_package_is_a_case(tmp_path: Path, data: Any, helpers: Any) -> None:
    """On another machine than its target those of time are skipped, with the reason."""
    budgets = {"max_drop": 0.02, "confidence": 0.95, "max_latency_p90_ms": 50, "min_accuracy": 0.999, "max_flips": 0.1}
    target = {"name": "far", "kind": "cpu", "title": "far away", "arch": "mips"}
    contents = helpers.tiny_contents(*data, metadata=helpers.metadata(budgets=budgets, target=target))
    package, out, split = tmp_path / "t.dlx", tmp_path / "v.xml", tmp_path / "split"
    write_archive(package, assemble(contents))
    split.mkdir()
    (split / "dataset.json").write_text(json.dumps({"schema": 1, "classes": helpers.labels}))
    np.save(split / "test.images.npy", data[0])
    np.save(split / "test.labels.npy", data[1])
    assert cli.run(["verify", str(package), f"--data={split}", "--threads=1", f"--junit={out}"]) == 6
    assert cases(out) == {
        "max_drop": ["system-out"],
        "min_accuracy": ["error"],
        "max_flips": ["system-out"],
        "latency_p90_ms": ["skipped"],
    }
    skipped = next(one for one in ET.parse(out).iter("skipped"))
    assert skipped.get("message", "").endswith("far is mips: run verify on that board")

    bench = ["bench", str(package), "--rounds=30", "--threads=1", "--max-p90-ms=1e-6", "--max-size-mib=9"]
    assert cli.run([*bench, f"--junit={out}"]) == 3
    assert cases(out) == {"latency_p90_ms": ["failure"], "package_mib": ["system-out"]}


def test_a_judgement_that_tells_no_budgets_apart_is_one() -> None:
    held = judged_budgets(Errors(1.0, 3.0, 0.5, 0), "texts")
    assert [(one.metric, one.verdict, one.text) for one in held] == [("max_drop", "fail", "the error grew")]
    assert judged_budgets(Errors(1.0, 1.0, 0.5, 0), "texts")[0].verdict == "pass"


def test_what_an_older_runtime_says_has_no_cases() -> None:
    assert judged_cases("x.dlx", {"verdict": "pass"}) == []
    assert judged_cases("x.dlx", {"judged": [{"metric": "m", "verdict": "splendid", "text": ""}]}) == []
