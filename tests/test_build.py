"""The whole pipeline on a small scale: what runs, what is found, what comes out."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dlx_deploy.stages import package

from .conftest import PACKAGE, TEACHER_ALONE, Here, dlx, tiny
from .warm import Warm

STEPS = [
    "data",
    "teacher",
    "export-teacher",
    "distill",
    "export-student",
    "prune",
    "export-pruned",
    "quantize",
    "compile",
    "evaluate-teacher",
    "evaluate-student",
    "evaluate-pruned",
    "evaluate-quantized",
    "verify",
    "package",
]

EVALUATED = [step for step in STEPS if step.startswith("evaluate-")]
RESTS_ON_PRUNING = [
    step for step in STEPS[STEPS.index("prune") :] if step not in ("evaluate-teacher", "evaluate-student")
]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def copy_of(built: Path, folder: Path) -> None:
    shutil.copytree(built, folder, dirs_exist_ok=True)


def ran(folder: Path) -> list[str]:
    """The steps that the newest build ran."""
    manifest = json.loads(max((folder / ".dlx" / "builds").glob("*.json")).read_text())
    return [entry["step"] for entry in manifest["steps"] if entry["status"] == "ran"]


def test_a_cold_build_runs_every_stage_and_delivers(built: Path) -> None:
    assert ran(built) == STEPS
    manifest = json.loads((built / PACKAGE).with_suffix(".manifest.json").read_text())
    assert manifest["status"] == "done"
    assert [entry["step"] for entry in manifest["steps"]] == STEPS
    assert manifest["gates"][0]["verdict"] == "pass"


def test_a_warm_build_finds_every_stage_and_imports_nothing_heavy(built: Path, tmp_path: Path) -> None:
    copy_of(built, tmp_path)
    before = sha256(tmp_path / PACKAGE)
    code = (
        "import sys; from dlx_deploy import cli; code = cli.run(sys.argv[1:]);"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'numpy', 'sklearn', 'matplotlib', 'jinja2'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    command = [sys.executable, "-c", code, "build", "--json", *tiny()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (summary,) = json.loads(done.stdout)
    assert (summary["ran"], summary["cached"]) == (0, len(STEPS))
    assert sha256(tmp_path / PACKAGE) == before


def test_a_warm_build_for_this_machine_imports_nothing_heavy_either(tmp_path: Path) -> None:
    """Its device is asked who it is, which is in the manifest."""
    target = "cpu-aarch64" if platform.machine() in ("aarch64", "arm64") else "cpu-x86_64"
    fast = [f"{section}.epochs=0" for section in ("teacher", "distill", "prune")]
    given = [
        "build",
        "-t",
        target,
        *tiny(*TEACHER_ALONE, "gate.allow_chance=true", *fast),
    ]
    assert dlx(*given, cwd=tmp_path).code == 0
    code = (
        "import sys; from dlx_deploy import cli; code = cli.run(sys.argv[1:]);"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'numpy', 'sklearn', 'matplotlib', 'jinja2'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *given], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_same_inputs_give_the_same_package(built: Path, tmp_path: Path) -> None:
    """In a process that begins with nothing, beside a fork of one that had exported before.

    Of the teacher alone; that a student and what is pruned of it are the same again is shown by the tests that kill.
    """
    cold, warm = tmp_path / "cold", tmp_path / "warm"
    cold.mkdir()
    shutil.copytree(built / ".dlx", warm / ".dlx")
    given = ["build", *tiny(*TEACHER_ALONE)]
    done = subprocess.run(
        [sys.executable, "-m", "dlx_deploy.cli", *given], cwd=cold, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert dlx(*given, cwd=warm).code == 0
    assert {"teacher", "export-teacher"} < {*ran(cold)} - {*ran(warm)}
    assert sha256(cold / PACKAGE) == sha256(warm / PACKAGE)


def test_two_builds_at_once_share_the_work(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / ".dlx", tmp_path / ".dlx")
    both = [Warm(["build", *tiny("prune.epochs=1")], tmp_path) for _ in range(2)]
    talk = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], talk
    manifests = sorted((tmp_path / ".dlx" / "builds").glob("*.json"))[-2:]
    entries = [e for m in manifests for e in json.loads(m.read_text())["steps"] if e["status"] == "ran"]
    assert sorted(e["step"] for e in entries) == sorted(RESTS_ON_PRUNING)
    assert "another build is running this step" in "".join(talk)


@pytest.fixture(scope="module")
def built_again(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That folder after a build with another parameter of pruning; read only."""
    folder = tmp_path_factory.mktemp("again")
    copy_of(built, folder)
    assert dlx("build", *tiny("prune.epochs=1"), cwd=folder).code == 0
    return folder


def test_one_parameter_reruns_only_what_depends_on_it(
    built: Path, built_again: Path, tmp_path: Path, here: Here
) -> None:
    copy_of(built_again, tmp_path)
    assert ran(tmp_path) == RESTS_ON_PRUNING
    before = sha256(tmp_path / PACKAGE)
    assert here("build", *tiny()).code == 0
    assert ran(tmp_path) == []
    assert sha256(tmp_path / PACKAGE) == sha256(built / PACKAGE) != before


def test_a_new_budget_reruns_only_what_keeps_to_it_and_the_package(built: Path, tmp_path: Path, here: Here) -> None:
    copy_of(built, tmp_path)
    assert here("build", *tiny("gate.max_drop=0.8")).code == 0
    assert ran(tmp_path) == ["quantize", "package"]
    assert here("build", *tiny("gate.max_drop=0.7", "quantize.max_drop=0.8")).code == 0
    assert ran(tmp_path) == ["package"]


def test_targets_share_what_does_not_look_at_them(built: Path, tmp_path: Path, here: Here) -> None:
    copy_of(built, tmp_path)
    done = here("build", "--target", "cpu-x86_64", "--target", "jetson-agx-orin-64gb", "--json", *tiny())
    assert done.code == 0, done.err
    manifests = sorted((tmp_path / ".dlx" / "builds").glob("*.json"))[-2:]
    steps = [json.loads(m.read_text())["steps"] for m in manifests]
    assert [[s["step"] for s in one if s["status"] == "ran"] for one in steps] == [
        ["quantize", "compile", *EVALUATED, "verify", "package"],
        ["compile", "verify", "package"],
    ]


SAME_AGAIN = [*EVALUATED[1:], "teacher", "export-teacher", "export-student", "prune"]
"""Steps of which another one of the same stage, or of the same kind, is damaged in the default run."""


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=[pytest.mark.slow] if step in SAME_AGAIN else []) for step in STEPS]
)
def test_a_flipped_byte_redoes_that_stage_alone(built: Path, tmp_path: Path, here: Here, step: str) -> None:
    copy_of(built, tmp_path)
    manifest = json.loads(max((tmp_path / ".dlx" / "builds").glob("*.json")).read_text())
    entry = next(e for e in manifest["steps"] if e["step"] == step)
    stored = tmp_path / ".dlx" / "store" / entry["key"]
    victim = max(
        (f for f in stored.rglob("*") if f.is_file() and f.name != "record.json"), key=lambda f: f.stat().st_size
    )
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 0x10
    victim.chmod(0o644)
    victim.write_bytes(data)
    done = here("build", *tiny())
    assert done.code == 0, done.err
    assert "its entry in the store is damaged" in done.err
    assert str(victim.relative_to(stored)) in done.err
    assert ran(tmp_path) == [step]
    assert sha256(tmp_path / PACKAGE) == sha256(built / PACKAGE)


def test_a_damaged_student_fails_the_gate_and_is_not_packaged(built: Path, tmp_path: Path, here: Here) -> None:
    shutil.copytree(built / ".dlx", tmp_path / ".dlx")
    done = here("build", "--json", *tiny("distill.epochs=0", "prune.enabled=false", "gate.max_drop=0.02"))
    assert done.code == 3
    (summary,) = json.loads(done.out)
    assert (summary["status"], summary["package"]) == ("stopped by a gate", None)
    assert {r["model"] for r in summary["results"]["rows"]} == {"teacher", "student", "quantized"}
    assert "error: verify: accuracy drop" in done.err
    assert [path.suffixes[-2:] for path in (tmp_path / "dist").iterdir()] == [[".report", ".html"]]
    status = here("status")
    assert "stopped by a gate" in status.out
    assert "gate accuracy: fail." in status.out


def test_a_gate_stops_its_own_target_only(built: Path, tmp_path: Path, here: Here) -> None:
    shutil.copytree(built / ".dlx", tmp_path / ".dlx")
    budget = [
        "--set",
        "gate.max_latency_p90_ms=1e-6",
        "--set",
        "verify.max_seconds=1",
    ]  # no CPU is so fast; the Jetson's latency is pending
    done = here("build", "--target", "cpu-x86_64", "--target", "jetson", *tiny(), *budget)
    assert done.code == 3
    assert [p.name for p in (tmp_path / "dist").glob("*.dlx")] == [Path(PACKAGE).name]
    assert "no package: a gate did not pass" in done.out
    assert "gate latency: PENDING" in done.err


def test_a_small_test_split_is_undecided(built: Path, tmp_path: Path, here: Here) -> None:
    shutil.copytree(built / ".dlx", tmp_path / ".dlx")
    done = here("build", *tiny(*TEACHER_ALONE, "data.limit_test=40", "gate.max_drop=0.06"))
    assert done.code == 6, done.err
    assert "samples would decide" in done.err
    before_training = done.err[: done.err.index("export-teacher")]
    assert "! data               the test split has 40 samples, too few to decide" in before_training
    assert "note data: the test split has 40 samples" in here("status").out


def test_without_student_and_pruning_the_teacher_is_quantized(built: Path, tmp_path: Path, here: Here) -> None:
    shutil.copytree(built / ".dlx", tmp_path / ".dlx")
    done = here("build", "--json", *tiny(*TEACHER_ALONE))
    assert done.code == 0, done.err
    rows = json.loads(done.out)[0]["results"]["rows"]
    assert [(r["model"], r["shipped"]) for r in rows] == [("teacher", False), ("quantized", True)]


def test_why_and_plan(built: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_of(built, tmp_path)
    planned = here("plan", *tiny("distill.epochs=5"), "--json")
    actions = {p["step"]: (p["action"], p["why"]) for p in json.loads(planned.out)}
    assert actions["teacher"] == ("hit", "cached")
    assert actions["distill"] == ("run", "params.epochs: 3 → 5")
    assert actions["prune"] == ("run", "needs distill, not built yet")
    with monkeypatch.context() as changed:
        changed.setattr(package, "_runtime_digest", lambda: "of another dlx-deploy")
        again = {p["step"]: p["why"] for p in json.loads(here("plan", *tiny(), "--json").out) if p["action"] == "run"}
    assert [*again] == ["package"], "a package of another runtime is never taken for one of this"
    assert again["package"].startswith("params.runtime: ")
    why = here("why", "distill", *tiny("distill.epochs=5"))
    assert why.out.startswith("distill for jetson-orin-nano-8gb: run: params.epochs: 3 → 5\nkey ")


def test_what_no_build_needs_is_collected(built_again: Path, tmp_path: Path, here: Here) -> None:
    copy_of(built_again, tmp_path)
    collected = here("gc", "--json")
    assert len(json.loads(collected.out)["removed"]) == len(RESTS_ON_PRUNING)  # of the build before, and no more
    assert here("build", *tiny("prune.epochs=1")).code == 0
    assert ran(tmp_path) == []
