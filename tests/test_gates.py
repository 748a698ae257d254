"""What a gate lets through and what then lies in ``dist``: broken teachers, floors, packages of earlier builds."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import PACKAGE, Here, tiny

QUICK = ("distill.enabled=false", "prune.enabled=false")
NAME = Path(PACKAGE).name


def listed(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "dist").iterdir())


def gates(out: str) -> dict[str, str]:
    (summary,) = json.loads(out)
    return {gate["gate"]: gate["verdict"] for gate in summary["gates"]}


def test_a_broken_teacher_is_not_packaged(built: Path, tmp_path: Path, here: Here) -> None:
    broken = "teacher.epochs=0"
    shutil.copytree(built / ".dlx", tmp_path / ".dlx")
    done = here("build", "--json", *tiny(broken, *QUICK))
    assert done.code == 3
    assert gates(done.out) == {"accuracy": "pass", "chance": "fail"}
    assert "not clearly better than always answering the largest class" in done.err
    note, again = json.loads(done.out)[0]["notes"]  # and it was foreseen
    assert again.startswith("verify: quantized, which the gate lets into the package if it passes, is right on ")
    assert note.startswith("teacher: the teacher is right on ")
    assert f"warning: {note}" in done.err
    (report,) = (tmp_path / "dist").iterdir()  # and nothing that could be shipped
    assert report.name == f"{Path(NAME).stem}.report.html"
    assert '<b class="badge fail">fail</b>' in report.read_text(encoding="utf-8")
    done = here("build", "--json", *tiny(broken, *QUICK, "gate.allow_chance=true"))
    assert done.code == 0, done.err
    assert gates(done.out) == {"accuracy": "pass"}


def test_a_floor_travels_with_the_package(built: Path, tmp_path: Path, here: Here) -> None:
    shutil.copytree(built / ".dlx", tmp_path / ".dlx")
    missed = here("build", "--json", *tiny("gate.min_accuracy=0.999"))
    assert (missed.code, gates(missed.out)["min_accuracy"]) == (3, "fail")
    assert "the floor is 99.90 %: missed" in missed.err
    done = here("build", *tiny("gate.min_accuracy=0.3"))
    assert done.code == 0, done.err
    assert "Gate min_accuracy: pass." in done.out
    assert "accuracy from 30 %" in here("inspect", PACKAGE).out
    again = here("verify", PACKAGE, "--data", "digits", "--json")
    assert (again.code, json.loads(again.out)["floor"]["verdict"]) == (0, "pass")
    higher = here("verify", PACKAGE, "--data", "digits", "--min-accuracy", "0.999")
    assert higher.code == 3
    assert "the floor is 99.90 %: missed" in higher.err


def spoil(broken: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options of a build that ends without a package, in this way."""
    error = {"stage": RuntimeError("out of luck"), "interrupt": KeyboardInterrupt()}.get(broken)
    if error is None:
        return tiny("gate.max_drop=0.0")

    def fail(*arguments: Any, **more: Any) -> None:
        raise error

    monkeypatch.setattr("dlx_deploy.runtime.package.contents.assemble", fail)
    return tiny("package.golden_images=3")


@pytest.mark.parametrize(("broken", "code"), [("gate", {3, 6}), ("stage", {5}), ("interrupt", {130})])
def test_an_earlier_package_is_moved_aside(
    built: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch, broken: str, code: set[int]
) -> None:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / PACKAGE).read_bytes()
    with monkeypatch.context() as patch:
        done = here("build", *spoil(broken, patch))
        assert done.code in code, done.err
        report = f"{Path(NAME).stem}.report.html"
        aside = [f"{NAME}.superseded", f"{Path(NAME).stem}.manifest.json.superseded", f"{report}.superseded"]
        stopped = [report] if broken == "gate" else []  # that is when people need it
        assert listed(tmp_path) == sorted([*aside, *stopped])
        assert (tmp_path / "dist" / f"{NAME}.superseded").read_bytes() == before
        assert "is of an earlier build, and this one made no package: moved to" in done.err
        again = here("build", *spoil(broken, patch))
        assert (again.code, "moved to" in again.err) == (done.code, False)  # nothing is left to move
    assert here("build", *tiny()).code == 0
    assert (tmp_path / PACKAGE).read_bytes() == before


def test_a_target_that_the_build_did_not_reach_has_no_package_either(
    built: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    other = NAME.replace("jetson-orin-nano-8gb", "cpu-x86_64")
    (tmp_path / "dist" / other).write_bytes(b"of an earlier build")
    done = here("build", "--target", "jetson", "--target", "cpu-x86_64", *spoil("stage", monkeypatch))
    assert done.code == 5
    assert not list((tmp_path / "dist").glob("*.dlx"))
    assert (tmp_path / "dist" / f"{other}.superseded").read_bytes() == b"of an earlier build"


def test_what_was_moved_aside_is_in_the_summary(built: Path, tmp_path: Path, here: Here) -> None:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    done = here("build", "--json", *tiny("gate.max_drop=0.0"))
    (summary,) = json.loads(done.out)
    assert (summary["package"], summary["superseded"]) == (None, f"{PACKAGE}.superseded")
    assert not any(row["shipped"] for row in summary["results"]["rows"])
    told = here("build", *tiny("gate.max_drop=0.0")).out
    assert "→ was chosen, and is not shipped" in told
    assert "is shipped." not in told.replace("→ was chosen, and is not shipped.", "")


def test_a_package_is_never_there_without_its_manifest(built: Path, tmp_path: Path, here: Here) -> None:
    shutil.copytree(built / ".dlx", tmp_path / ".dlx")
    manifest = (tmp_path / PACKAGE).with_suffix(".manifest.json")
    manifest.mkdir(parents=True)  # so it cannot be written
    done = here("build", *tiny())
    assert done.code == 5
    assert "the stages are kept: name another folder with --output" in done.err
    assert not (tmp_path / PACKAGE).exists()


def test_a_report_that_cannot_be_drawn_stops_no_build(
    built: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    report = (tmp_path / PACKAGE).with_suffix(".report.html")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert here("build", *tiny("gate.max_drop=0.8")).code == 0
    assert not report.exists()  # that of the build before is not this one's
    told = here("build", *tiny("gate.max_drop=0.8"))
    assert "warning: no report is written: the HTML report needs jinja2" in told.err
    assert "Report:" not in told.out
    monkeypatch.undo()
    report.mkdir()  # so it cannot be written
    monkeypatch.chdir(tmp_path)
    assert "warning: no report is written: " in here("build", *tiny()).err


def test_a_report_is_written_where_something_changed(built: Path, tmp_path: Path, here: Here) -> None:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    report = (tmp_path / PACKAGE).with_suffix(".report.html")
    first = report.read_text(encoding="utf-8")
    report.write_text(first + "<!-- kept -->", encoding="utf-8")
    told = here("build", *tiny())
    assert f"\nReport: {report.relative_to(tmp_path)}\n" in told.out
    assert report.read_text(encoding="utf-8") == first + "<!-- kept -->"
    assert here("build", *tiny("gate.max_drop=0.8")).code == 0
    assert "budget 80.00 points" in report.read_text(encoding="utf-8")


def test_only_what_did_not_pass_is_moved(built: Path, tmp_path: Path, here: Here) -> None:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    board, cpu = "jetson-orin-nano-8gb", "cpu-x86_64"
    assert here("build", "--target", cpu, *tiny()).code == 0
    budget = [
        "--set",
        "gate.max_latency_p90_ms=1e-6",
        "--set",
        "verify.max_seconds=1",
    ]  # no CPU is so fast; the Jetson's latency is pending
    assert here("build", "--target", cpu, "--target", board, *tiny(), *budget).code == 3
    names = listed(tmp_path)
    assert NAME in names
    assert f"digits-0.1.0-{cpu}.dlx" not in names
    assert f"digits-0.1.0-{cpu}.dlx.superseded" in names


def test_what_cannot_be_moved_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlx_deploy.delivery import set_aside

    said: list[str] = []
    (tmp_path / "a.dlx").write_bytes(b"old")

    def refuse(*paths: Any) -> None:
        if str(paths[0]).endswith(".dlx"):
            raise PermissionError(13, "Permission denied")
        raise FileNotFoundError

    monkeypatch.setattr("os.replace", refuse)
    assert set_aside(tmp_path / "a.dlx", said.append) is None
    assert "cannot be moved aside (Permission denied): do not ship it" in said[0]


def test_the_gate_sees_the_test_split_and_no_other(built: Path) -> None:
    """What was chosen on the validation split would be flattered by it."""
    import numpy as np

    from dlx_deploy.graph.execution.evaluation import run_onnx
    from dlx_deploy.nn.data.dataset import open_data
    from dlx_deploy.runtime.package.contents import open_package

    manifest = json.loads((built / PACKAGE).with_suffix(".manifest.json").read_text())
    entries = {entry["step"]: built / ".dlx" / "store" / entry["key"] for entry in manifest["steps"]}
    data = open_data(entries["data"] / "data")
    images, (_, labels) = data.samples("test"), data.split("test")
    assert len(labels) != len(data.split("validation")[1])
    accuracy = json.loads((entries["verify"] / "accuracy.json").read_text())
    rows = {row["model"]: row for row in accuracy["rows"]}
    answers = {
        name: run_onnx(entries[f"export-{name}"] / "model.onnx", images, exact_qdq=True)["logits"].argmax(axis=1)
        for name in ("teacher", "pruned")
    }
    right = {name: classes == labels for name, classes in answers.items()}
    assert accuracy["n"] == len(labels)
    assert accuracy["facts"] == {"largest_class": np.bincount(labels).max() / len(labels)}
    assert {name: rows[name]["score"] for name in right} == {name: hits.mean() for name, hits in right.items()}
    assert rows["pruned"]["evidence"]["b"] == (right["teacher"] & ~right["pruned"]).sum()
    assert rows["pruned"]["evidence"]["c"] == (right["pruned"] & ~right["teacher"]).sum()
    drop = next(gate for gate in manifest["gates"] if gate["gate"] == "accuracy")
    shipped = rows[accuracy["shipped"]]["evidence"]
    assert drop["value"] == (shipped["b"] - shipped["c"]) / len(labels)
    reference = open_package(built / PACKAGE).reference
    np.testing.assert_array_equal(reference["label"], labels)
    np.testing.assert_array_equal(reference["teacher"], answers["teacher"])


def test_the_gate_judges_by_the_metric_that_it_is_told(built: Path, tmp_path: Path, here: Here) -> None:
    shutil.copytree(built / ".dlx", tmp_path / ".dlx")
    done = here("build", "--json", *tiny("gate.metric=macro_f1", "gate.max_drop=0.5"))
    assert done.code == 0, done.err
    (summary,) = json.loads(done.out)
    drop, chance = summary["gates"]
    assert (drop["metric"], chance["metric"]) == ("macro_f1_drop", "teacher_macro_f1")
    assert drop["text"].startswith("macro-F1 drop ")
    assert 0 < drop["value"] + 0.5 < 1
    manifest = json.loads(max((tmp_path / ".dlx" / "builds").glob("*.json")).read_text())
    assert not {"teacher", "distill", "prune"} & {s["step"] for s in manifest["steps"] if s["status"] == "ran"}
    assert any("networks are validated by top-1" in note for note in summary["notes"])
    for built_or_packed in ("jetson-orin-nano-8gb", PACKAGE):
        assert "macro-F1 drop" in here("report", built_or_packed).out
    seen = here("verify", PACKAGE, "--data", "digits", "--json")
    assert seen.code == 0, seen.err
    verdict = json.loads(seen.out)["verdict"]
    assert (verdict["metric"], verdict["upper"]) == ("macro-F1", pytest.approx(drop["bound"], abs=1e-9))


OWN = """
import numpy as np
RESAMPLES = 400

def recalled(targets, answers, weights):
    right = answers.argmax(axis=1) == targets
    return np.mean([np.average(right[targets == k], weights=weights[targets == k]) for k in np.unique(targets)])
"""


def test_the_gate_judges_by_a_function_of_the_users(built: Path, tmp_path: Path, here: Here) -> None:
    shutil.copytree(built / ".dlx", tmp_path / ".dlx")
    (tmp_path / "own").mkdir()
    file = tmp_path / "own" / "metric.py"
    file.write_text(OWN, encoding="utf-8")
    asked = tiny("gate.metric=own/metric.py:recalled", "gate.max_drop=0.5")
    done = here("build", "--json", *asked)
    assert done.code == 0, done.err
    drop, chance = json.loads(done.out)[0]["gates"]
    assert (drop["metric"], chance["metric"]) == ("metric.py:recalled_drop", "teacher_metric.py:recalled")
    assert drop["text"].startswith("recalled drop ")
    assert chance["limit"] == pytest.approx(0.1)  # of ten classes
    steps = json.loads((tmp_path / PACKAGE).with_suffix(".manifest.json").read_text(encoding="utf-8"))["steps"]
    assert "own/metric.py" not in json.dumps([step["document"] for step in steps])
    for told in (here("report", "jetson-orin-nano-8gb"), here("report", PACKAGE), here("inspect", PACKAGE)):
        assert (told.code, "recalled" in told.out) == (0, True)
    assert here("selftest", PACKAGE).code == 0
    seen = here("verify", PACKAGE, "--data", "digits")
    assert seen.code == 2
    assert "judged by metric.py:recalled, a function of who built it, which packages do not carry" in seen.err
    assert "cached" in here("plan", *asked).out
    file.write_text(OWN + "# changed", encoding="utf-8")
    changed = here("plan", *asked).out
    assert "input metric (own/metric.py) changed" in changed
    file.write_text("def other(): ...", encoding="utf-8")
    other = here("plan", *asked)
    assert (other.code, "own/metric.py has no function 'recalled'" in other.err) == (2, True)
    file.unlink()
    gone = here("plan", *asked)
    assert (gone.code, "metric own/metric.py does not exist" in gone.err) == (2, True)


def test_a_metric_that_a_task_has_not_is_refused_in_a_plan(here: Here) -> None:
    done = here("plan", "--set", "gate.metric=f1")
    assert done.code == 2
    assert "gate.metric is 'f1'; image-classification has: 'top1', 'macro_f1', 'balanced_accuracy', 'auroc'" in done.err


def test_a_build_is_held_against_the_last_release(built: Path, tmp_path: Path, here: Here) -> None:
    shutil.copytree(built / ".dlx", tmp_path / ".dlx")
    old = built / PACKAGE
    done = here("build", "--json", "--baseline", str(old), *tiny())
    assert done.code == 0, done.err
    assert gates(done.out)["regression"] == "pass"
    kept = json.loads(here("inspect", PACKAGE, "--json").out)["accuracy"]["baseline"]
    assert kept["digest"] == json.loads(here("inspect", str(old), "--json").out)["digest"]
    missed = here("build", "--json", "--baseline", str(old), *tiny("gate.max_regression=0.0001"))
    assert (missed.code, gates(missed.out)["regression"]) == (6, "undecided")
    assert "against the last release, " in missed.err
