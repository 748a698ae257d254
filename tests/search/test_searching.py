"""Searches from the command line: tiny ones, of which trials share all that they can."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dlx_deploy import cli
from dlx_deploy.errors import ConfigError, DataError, DlxError, EnvironmentMissing, StageFailed, StoreError
from dlx_deploy.pipeline.manifest import latest_manifests
from dlx_deploy.pipeline.store import Store
from dlx_deploy.report.live import QuietWatcher
from dlx_deploy.runtime.power.meter import Energy, Reading
from dlx_deploy.search.base import Search, base_of
from dlx_deploy.search.trial import TrialStore, run_trial

from ..conftest import Here, Run
from ..devices.fake import FakeDevice

CONFIG = """# mine
name = "tiny"
threads = 1
targets = ["jetson"]

[data]
test_fraction = 0.2
calibration_images = 64

[teacher]
model = "resnet8"
arguments = { width = 0.5 }
epochs = 1

[distill]
enabled = false
epochs = 1
arguments = { width = 0.25 }

[prune]
enabled = false

[compile]
engine = "off"

[gate]
allow_chance = true
max_drop = 0.9

[search]
space = { "quantize.precision" = ["int8", "fp32", "auto"] }  # three
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a search of two trials; read only."""
    folder = tmp_path_factory.mktemp("searched")
    (folder / "deploy.toml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.run(["search", "--trials", "2"]) == 0
    return folder


@pytest.fixture
def copied(searched: Path, tmp_path: Path) -> Path:
    shutil.copytree(searched, tmp_path, dirs_exist_ok=True)
    return tmp_path


def view(done: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.out)
    return found


def steps_ran(folder: Path) -> list[list[str]]:
    """Of each build of the studies, the last one last, the steps that ran."""
    manifests = sorted(folder.glob(".dlx/search/*/builds/*.json"), key=lambda path: path.stat().st_mtime_ns)
    loaded = [json.loads(path.read_text())["steps"] for path in manifests]
    return [[entry["step"] for entry in steps if entry["status"] == "ran"] for steps in loaded]


def test_trials_share_what_they_have_in_common(searched: Path) -> None:
    ran = [step for steps in steps_ran(searched) for step in steps]
    assert sorted(step for step in ran if step in ("data", "teacher", "export-teacher", "score-teacher")) == [
        "data",
        "export-teacher",
        "score-teacher",
        "teacher",
    ]
    assert ran.count("quantize") == 2
    assert not [step for step in ran if step.startswith(("evaluate", "verify", "package"))], (
        "the test split is not seen"
    )
    assert (searched / "search" / "front.svg").read_text().startswith("<?xml")
    assert latest_manifests(Store(searched / ".dlx")) == {}, "a trial is no build of its target"


def test_a_search_goes_on_where_it_was(copied: Path, here: Here) -> None:
    before = len(steps_ran(copied))
    same = here("search", "--trials", "2", "--json")
    assert same.code == 0, same.err
    assert len(steps_ran(copied)) == before
    more = here("search", "--trials", "3", "--json")
    assert more.code == 0, more.err
    assert len(view(more)["trials"]) == 3
    assert view(more)["trials"][:2] == view(same)["trials"]
    assert more.err.count("trial ") == 1
    assert "trial 2 of 3  precision " in more.err
    assert {row["values"]["quantize.precision"] for row in view(more)["trials"]} == {'"int8"', '"fp32"', '"auto"'}
    assert len(view(here("search", "--trials", "9", "--json"))["trials"]) == 3, "there are no more combinations"


def test_the_choice_is_built_from_the_store(copied: Path, here: Here) -> None:
    chosen = (copied / "search" / "deploy.toml").read_text()
    assert chosen.startswith("# Chosen by dlx-deploy search, trial ")
    assert "# mine" in chosen
    done = here("build", "-c", "search/deploy.toml", "--json")
    assert done.code == 0, done.err
    (path,) = copied.glob(".dlx/builds/*.json")
    ran = [entry["step"] for entry in json.loads(path.read_text())["steps"] if entry["status"] == "ran"]
    assert ran == ["evaluate-teacher", "evaluate-quantized", "verify", "package"]
    search = json.loads(here("report", "jetson", "--json").out)[0]["search"]
    assert [one["number"] for one in search["trials"]["trials"]] == [0, 1]
    assert f'\nstudy = "{search["study"]}"\ntrial = {search["trial"]}\n' in chosen
    assert search["changed"] == []
    (page,) = (copied / "dist").glob("*.report.html")
    assert f"This build is of trial {search['trial']}" in page.read_text(encoding="utf-8")
    other = here("build", "-c", "search/deploy.toml", "--set", 'quantize.precision="fp16"', "--json")
    assert other.code == 0, other.err
    changed = json.loads(here("report", "jetson", "--json").out)[0]["search"]["changed"]
    assert re.fullmatch(r'quantize.precision is "fp16", and was "\w+" in the trial', "".join(changed))


def test_missed_budgets_end_with_3_and_the_nearest_before_anything_is_trained(copied: Path, here: Here) -> None:
    budgets = ["--set", "search.max_size_mib=0.001", "--set", "gate.max_latency_p90_ms=0.02"]
    done = here("search", "--trials", "1", *budgets, "--json")
    assert done.code == 3, done.err
    found = view(done)
    assert (found["chosen"], found["nearest"], found["file"]) == (None, 0, "")
    assert [row["state"] for row in found["trials"]] == ["stopped"]
    assert [miss["budget"] for miss in found["trials"][0]["misses"]] == [
        "gate.max_latency_p90_ms",
        "search.max_size_mib",
    ]
    assert "error: search: none of 1 trials meets the budgets; the nearest is trial 0 (precision " in done.err
    assert "(roofline at its best, before training), gate.max_latency_p90_ms allows 0.0200 ms; the model" in done.err
    assert "search.max_size_mib allows 1.0 KiB; raise --trials, widen search.space, or raise that budget" in done.err
    assert steps_ran(copied)[-1] == [], "up to the teacher all was there, and nothing came after"


def test_a_network_far_below_its_teacher_is_stopped_after_training(copied: Path, here: Here) -> None:
    sets = [
        "distill.enabled=true",
        "gate.min_accuracy=0.99",
        "search.slack=0.0",
        'search.space={"distill.epochs"={choice=[0, 1]}}',
    ]
    done = here("search", "--trials", "1", *(part for one in sets for part in ("--set", one)))
    assert done.code == 3, done.err
    assert "1 stopped early" in done.out
    assert " on validation, gate.min_accuracy asks for 99.00 %; raise --trials" in done.err
    assert [steps[-1] for steps in steps_ran(copied) if "distill" in steps] == ["distill"]


def test_an_interrupted_trial_is_taken_up_again(copied: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["search", "--trials", "3", "--json"]
    with monkeypatch.context() as patch:
        patch.setattr(QuietWatcher, "started", _interrupt_at("compile"))
        assert here(*arguments).code == 130
    killed = steps_ran(copied)[-1]
    assert killed == ["quantize"]
    done = here(*arguments)
    assert done.code == 0, done.err
    assert [row["number"] for row in view(done)["trials"]] == [0, 1, 3]
    assert steps_ran(copied)[-1] == ["compile"], "which chose the very model that was weighed before"


def _interrupt_at(step: str) -> Any:
    def started(self: QuietWatcher, planned: Any) -> None:
        if planned.step.name == step:
            raise KeyboardInterrupt

    return started


@pytest.mark.parametrize("error", [ConfigError("a and b"), StageFailed("prune: so much cannot be removed")])
def test_a_trial_that_cannot_be_built_ends_no_search(error: DlxError, tmp_path: Path) -> None:
    outcome = run_trial(_raising(error), TrialStore(tmp_path, tmp_path), QuietWatcher(print))
    assert (outcome.state, outcome.reason) == ("failed", str(error))
    for ends in (EnvironmentMissing("no torch"), StoreError("disk full"), DataError("no validation samples")):
        with pytest.raises(type(ends)):
            run_trial(_raising(ends), TrialStore(tmp_path, tmp_path), QuietWatcher(print))


@dataclass
class Metered(FakeDevice):
    """A board on which what is larger takes less energy."""

    def energy_unknown(self, processor: str) -> str:
        return "" if processor == "gpu" else "no sensor"

    def energy(self, model: Path, sample: Any, threads: int) -> Reading:
        mj = 1e6 / model.stat().st_size
        return Reading(Energy(mj, mj, mj, 0.0, 9, 9, 3.0, 2.0, 1.0, ("VDD_IN",)))


def test_the_least_energy_is_chosen_where_it_is_measured(
    copied: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlx_deploy.building.device_for", lambda profile: Metered(ms={"shipped": 1.0}))
    asked = ("search", "--trials", "3", "--set", "search.choose='energy'")
    done = here(*asked, "--json")
    assert done.code == 0, done.err
    seen = view(done)
    chosen = next(row for row in seen["trials"] if row["number"] == seen["chosen"])
    assert chosen["values"] == {"quantize.precision": '"fp32"'}, "the largest"
    taken = {row["figures"]["energy_mj"] for row in seen["trials"]}
    assert len(taken) == 2
    assert chosen["figures"]["energy_mj"] == min(taken) == 1e6 / chosen["figures"]["size_bytes"]
    assert chosen["on_front"]
    text = here(*asked).out
    assert f"  {min(taken):.3g} mJ  " in text
    assert "the least energy of those that meet the budgets" in text


@pytest.mark.parametrize(
    ("device", "said"),
    [
        (None, "search.choose is 'energy', and jetson-orin-nano-8gb is not this machine; rule: a target that is this"),
        (FakeDevice(), "search.choose is 'energy', and a board (a CPU) does not measure it: no sensor; rule: a target"),
    ],
)
def test_energy_that_is_not_measured_is_refused_at_once(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: FakeDevice | None, said: str
) -> None:
    monkeypatch.setattr("dlx_deploy.building.device_for", lambda profile: device)
    (tmp_path / "deploy.toml").write_text(CONFIG)
    done = here("search", "--set", "search.choose='energy'")
    assert (done.code, steps_ran(tmp_path)) == (2, [])
    assert f"error: {said}" in done.err


def _raising(error: DlxError) -> Any:
    def make() -> None:
        raise error

    return make


def test_without_time_nothing_is_chosen(here: Here, tmp_path: Path) -> None:
    (tmp_path / "deploy.toml").write_text(CONFIG)
    done = here("search", "--minutes", "1e-9")
    assert done.code == 5
    assert "0 of 3 trials: none finished; 0 steps ran" in done.out
    assert "error: search: no trial could be weighed; none came to an end; give more --minutes" in done.err


BAD: dict[str, tuple[Sequence[str], str]] = {
    "no minutes": (["--minutes", "0"], "error: --minutes is 0; rule: more than 0"),
    "minutes of nothing": (["--minutes", "nan"], "error: --minutes is nan; rule: more than 0"),
    "a folder with a configuration of one's own": (
        ["--output", "."],
        "error: --output .: deploy.toml is there, and no search wrote it; name another folder",
    ),
    "empty space": (
        ["--set", "search.space={}", "--set", "quantize.precision=fp32"],
        "error: search.space is empty, and nothing that is enabled has a usual one",
    ),
    "unknown key": (
        ["--set", 'search.space={"quantize.precison"=["int8", "fp32"]}'],
        "error: search.space has quantize.precison = \"int8\": unknown key 'quantize.precison' ('int8'); nearest",
    ),
    "impossible value": (
        ["--set", 'search.space={"prune.reduce_macs"=[0.5, 1.5]}', "--set", "prune.enabled=true"],
        "error: search.space has prune.reduce_macs = 1.5: prune.reduce_macs is 1.5; rule: Expected `float` < 1.0",
    ),
    "what the target does not run": (
        ["--target", "rpi5", "--set", 'search.space={"quantize.precision"=["fp16", "fp32"]}'],
        "error: search.space has quantize.precision = \"fp16\": quantize: quantize.precision is 'fp16'",
    ),
    "of what is left out": (
        ["--set", 'search.space={"distill.epochs"=[1, 2]}'],
        "error: search.space has distill.epochs = 1: distill.enabled is false, and then it changes nothing; rule: with",
    ),
    "two targets": (
        ["--target", "rpi5", "--target", "jetson"],
        "error: targets are rpi5, jetson; rule: a search is for",
    ),
    "a budget that nothing meets": (
        ["--set", "gate.max_latency_p90_ms=0.00001"],
        "error: gate.max_latency_p90_ms is 1e-05, and on jetson-orin-nano-8gb a single layer takes",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, here: Here, tmp_path: Path) -> None:
    (tmp_path / "deploy.toml").write_text(CONFIG)
    arguments, message = BAD[name]
    done = here("search", *arguments)
    assert done.code == 2
    assert message in done.err
    assert not list(tmp_path.glob(".dlx/search/*"))


@pytest.mark.parametrize("target", ["jetson", "rpi5"])
def test_each_value_that_is_usual_is_valid(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = base_of(Search(None, (target,), (), tmp_path / ".dlx", 1, 1.0, tmp_path, QuietWatcher(print), print))
    assert {one.key for one in base.parameters} >= {"distill.arguments.width", "distill.model", "prune.reduce_macs"}


def test_without_optuna_the_extra_is_named(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlx_deploy.search.searching.find_spec", lambda name: None if name == "optuna" else object())
    done = here("search")
    assert done.code == 4
    assert "error: search needs optuna, not installed here; install with: pip install" in done.err
    assert "search]" in done.err
