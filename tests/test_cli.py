"""The command line: every command, what it prints and where, the exit codes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import time
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from dlx_deploy import __version__, cli
from dlx_deploy.errors import DlxError
from dlx_deploy.runtime.package.contents import open_package

from .conftest import PACKAGE, Here, dlx, image_folder, tiny

# -- what works ------------------------------------------------------------------------------------------------------


def test_version_and_help(here: Here) -> None:
    assert here("--version").out.strip() == __version__
    shown = here("--help").out
    for command in (
        "init",
        "data",
        "build",
        "plan",
        "status",
        "why",
        "verify",
        "debug",
        "predict",
        "bench",
        "inspect",
        "selftest",
        "engine",
        "hazards",
        "targets",
        "gc",
    ):
        assert f"  {command} " in shown or f" {command} " in shown


def test_init_writes_a_file_that_is_used(here: Here, tmp_path: Path) -> None:
    assert here("init").code == 0
    again = here("init")
    assert (again.code, "deploy.toml is there already" in again.err) == (2, True)
    assert here("init", "--force").code == 0
    text = (tmp_path / "deploy.toml").read_text()
    (tmp_path / "deploy.toml").write_text(text.replace('name = "digits"', 'name = "mine"'))
    why = here("why", "package", "--json")
    assert why.code == 0, why.err
    (tmp_path / "deploy.toml").write_text(text.replace("\nepochs", "\nepoch", 1))
    wrong = here("plan")
    assert (wrong.code, "nearest valid name: 'epochs'" in wrong.err) == (2, True)


def test_targets(here: Here) -> None:
    listed = json.loads(here("targets", "list", "--json").out)
    assert {"jetson-orin-nano-8gb", "rpi5", "cpu-x86_64"} <= {t["name"] for t in listed["targets"]}
    assert listed["aliases"]["jetson"]["target"] == "jetson-orin-nano-8gb"
    shown = here("targets", "show", "jetson")
    assert "jetson is an alias of jetson-orin-nano-8gb" in shown.out
    assert "roofline.int8_tops" in shown.out
    assert "jetson-orin-nano-8gb" in here("targets", "list").out


def test_the_alias_is_said(built: Path, here: Here) -> None:
    assert "jetson is an alias of jetson-orin-nano-8gb" in here("plan").err


def test_a_board_of_one_s_own(here: Here, tmp_path: Path) -> None:
    (tmp_path / "board.toml").write_text('name = "robot-arm"\nextends = "jetson-orin-nx-16gb"\n')
    planned = here("plan", "--target", "./board.toml", "--json")
    assert planned.code == 0, planned.err
    assert {p["target"] for p in json.loads(planned.out)} == {"robot-arm"}
    (tmp_path / "board.toml").write_text('name = "robot-arm"\nextends = "jetson-orin-nx-16gb"\nopsett = 3\n')
    wrong = here("plan", "--target", "./board.toml")
    assert (wrong.code, "nearest valid name: 'opset'" in wrong.err) == (2, True)


def test_package_commands(built: Path, here: Here, tmp_path: Path) -> None:
    from PIL import Image
    from sklearn.datasets import load_digits

    package = built / PACKAGE
    info = json.loads(here("inspect", package, "--json").out)
    assert (info["name"], info["target"]["kind"]) == ("digits", "tensorrt")
    largest = np.abs(open_package(package).golden_outputs["logits"]).max()
    allowed = info["golden"]["tolerances"]["logits"]
    assert allowed["atol"] == pytest.approx(0.05 * largest)  # INT8: a value on the edge may round the other way
    assert "self-test passed" in here("inspect", package, "--selftest").out
    digit = load_digits().images[0]
    Image.fromarray((digit * 255 / 16).round().astype(np.uint8)).save(tmp_path / "zero.png")
    predicted = json.loads(here("run", package, "zero.png", "--top", "3", "--json").out)
    assert [len(p["top"]) for p in predicted["predictions"]] == [3]
    bench = json.loads(here("bench", package, "--rounds", "40", "--json").out)
    assert bench["latency"]["n"] == 40
    assert here("bench", package, "--rounds", "40", "--max-p90-ms", "0.000001").code == 3


def test_verify_again_on_the_shipped_bytes(built: Path, here: Here) -> None:
    package = built / PACKAGE
    again = here("verify", package, "--data", "digits", "--json")
    assert again.code == 0, again.err
    manifest = json.loads(package.with_suffix(".manifest.json").read_text())
    gate = manifest["gates"][0]
    seen = json.loads(again.out)
    assert seen["verdict"]["drop"] == pytest.approx(gate["value"])
    assert seen["verdict"]["upper"] == pytest.approx(gate["bound"])
    strict = here("verify", package, "--data", "digits", "--max-drop", "0.0001")
    assert strict.code in (3, 6)  # a network of three epochs is not as good as its teacher to a hundredth of a point
    assert "error: " in strict.err


def test_image_folder_and_own_model_with_checkpoint(here: Here, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    image_folder(tmp_path / "data", {"dark": 40, "light": 40})
    image_folder(tmp_path / "data", {"dark": 30, "light": 30}, split="test")
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def make(num_classes, width=8):\n"
        "    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),\n"
        "        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes))\n"
    )
    namespace: dict[str, Any] = {}
    exec((tmp_path / "net.py").read_text(), namespace)
    torch.manual_seed(0)
    save_file(namespace["make"](2).state_dict(), tmp_path / "w.safetensors")
    (tmp_path / "deploy.toml").write_text(
        'name = "light"\n[data]\nkind = "imagefolder"\npath = "data"\nheight = 8\n'
        '[teacher]\nmodel = "net.py:make"\ncheckpoint = "w.safetensors"\narguments = {}\n'
    )
    options = ["--set", "teacher.epochs=2", "--set", "teacher.batch_size=8", "--set", "distill.enabled=false"]
    options += ["--set", "prune.enabled=false", "--set", "gate.max_drop=0.9", "--set", "threads=1"]
    done = here("build", "--json", *options)
    assert done.code == 0, done.err
    package = Path(json.loads(done.out)[0]["package"])
    verified = here("verify", package, "--data", "data")
    assert verified.code == 0, verified.err
    assert here("build", *options).err.count("cached") >= 6
    (tmp_path / "net.py").write_text((tmp_path / "net.py").read_text() + "\n# touched\n")
    plan = {p["step"]: p["why"] for p in json.loads(here("plan", "--json", *options).out)}
    assert plan["data"] == "cached"
    assert plan["teacher"].startswith("input source (")


def test_a_plan_names_some_of_what_a_step_waits_for(here: Here) -> None:
    plan = {p["step"]: p["why"] for p in json.loads(here("plan", "--json").out)}
    assert re.fullmatch(r"needs compile, data, evaluate-pruned and \d+ more, not built yet", plan["verify"])
    assert plan["quantize"] == "needs data, export-pruned, export-teacher, not built yet"


# -- the border ------------------------------------------------------------------------------------------------------


def test_our_bug_is_exit_1_with_a_traceback(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*arguments: Any) -> None:
        raise RuntimeError("unexpected")

    monkeypatch.setattr("dlx_deploy.report.plans.view_plan", explode)
    done = here("plan")
    assert done.code == 1
    assert "Traceback" in done.err
    assert "this is a bug in dlx-deploy" in done.err


def test_interrupt_is_130(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dlx_deploy.report.plans.view_plan", interrupt)
    done = here("plan")
    assert done.code == 130
    assert "interrupted; finished stages are kept: build again to go on" in done.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["push", "x.dlx", "a"], "interrupted; what has arrived on a board is kept, .*: push again to go on$"),
        (["push", "x.dlx", "a", "--rollback"], "interrupted; a board that was reached may have gone back already: "),
        (["inspect", "x.dlx"], "interrupted$"),
        (["build"], "interrupted; finished stages are kept: build again to go on$"),
    ],
)
def test_an_interruption_says_what_is_so_afterwards(
    here: Here, monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupt)
    done = here(*words)
    assert (done.code, re.match(told, done.err.strip()) is not None) == (130, True), done.err


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_is_an_interruption(here: Here, monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> None:
    number = getattr(signal, name)
    handled: list[Any] = []

    def terminate(*arguments: Any) -> None:
        handled.append(signal.getsignal(number))
        os.kill(os.getpid(), number)
        time.sleep(5)

    monkeypatch.setattr("dlx_deploy.report.plans.view_plan", terminate)
    before = signal.getsignal(number)
    done = here("plan")
    assert (done.code, done.out) == (code, "")
    assert f"interrupted by {name}; finished stages are kept: build again to go on" in done.err
    assert "Traceback" not in done.err
    assert callable(handled[0])
    assert signal.getsignal(number) == before


def test_a_signal_ends_the_workers_too(monkeypatch: pytest.MonkeyPatch, here: Here) -> None:
    class Team:
        said: ClassVar[list[str]] = []

        def abandon(self) -> None:
            self.said.append("abandoned")

        def close(self) -> None:
            self.said.append("closed")

    monkeypatch.setattr("dlx_deploy.building.team_for", lambda processes: Team())
    monkeypatch.setattr("dlx_deploy.building.run_build", lambda *rest: os.kill(os.getpid(), signal.SIGTERM))
    assert here("build").code == 143
    assert Team.said == ["abandoned", "closed"]


def test_a_patch_release_retrains_nothing(
    built: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(built / ".dlx", tmp_path / ".dlx")
    real = metadata.version
    patched = real("safetensors") + ".999"
    monkeypatch.setattr(
        "dlx_deploy.pipeline.key._installed", lambda name: patched if name == "safetensors" else real(name)
    )
    planned = {step["step"]: step for step in json.loads(here("plan", *tiny(), "--json").out)}
    assert {step["action"] for step in planned.values()} == {"hit"}
    made = f"made with safetensors {real('safetensors')} ({patched} is here)"
    assert planned["teacher"]["why"] == f"cached, {made}"
    assert planned["data"]["why"] == "cached"
    assert f"teacher for jetson-orin-nano-8gb: hit: cached, {made}" in here("why", "teacher", *tiny()).out
    exact = {step["step"]: step for step in json.loads(here("plan", *tiny(), "--exact-tools", "--json").out)}
    assert (exact["data"]["action"], exact["teacher"]["action"]) == ("hit", "run")
    assert exact["teacher"]["why"] == f"{made}, and --exact-tools is set"


def test_json_keeps_talk_off_stdout(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built / ".dlx", tmp_path / ".dlx")
    done = dlx("build", "--json", *tiny(), cwd=tmp_path)
    assert json.loads(done.out)[0]["cached"] == 15
    assert "alias" in done.err


def test_every_error_of_ours_has_an_exit_code() -> None:
    def leaves(kind: type[DlxError]) -> list[type[DlxError]]:
        return [kind, *(leaf for sub in kind.__subclasses__() for leaf in leaves(sub))]

    codes = {kind.__name__: kind.exit_code for kind in leaves(DlxError)}
    assert (codes["GateFailed"], codes["GateUndecided"]) == (3, 6)
    assert codes["ConfigError"] == codes["DataError"] == 2
    assert (codes["EnvironmentMissing"], codes["StageFailed"], codes["StoreError"]) == (4, 5, 5)
    assert cli._report(DlxError("x")) == 1


def test_an_engine_needs_tensorrt(built: Path, here: Here) -> None:
    if importlib.util.find_spec("tensorrt"):
        pytest.skip("tensorrt is installed")
    for command in (["engine"], ["engine", "--no-build", "--json"], ["bench", "--backend", "tensorrt"]):
        done = here(command[0], built / PACKAGE, *command[1:])
        assert (done.code, done.out) == (4, "")
        assert "tensorrt cannot be imported" in done.err
    done = here("inspect", built / PACKAGE, "--selftest")
    assert done.code == 0
    assert "backend: onnxruntime-cpu (passed over: tensorrt: " in done.err
    done = here("run", built / PACKAGE, "x.png", "--backend", "magic")
    assert (done.code, "backend is 'magic'" in done.err) == (2, True)


def test_inspect_says_what_runs_in_what(built: Path, here: Here) -> None:
    done = here("inspect", built / PACKAGE)
    assert "plan     int8, fp16 elsewhere" in done.out
    if importlib.util.find_spec("tensorrt_rtx"):
        assert "; engine checked, tensorrt-rtx " in done.out
        assert ": int8 10 of 10 (100 %); 0 reformats" in done.out


def test_inspect_says_which_parts_a_network_has(here: Here) -> None:
    done = here("inspect", "resnet8", "--argument", "width=0.5", "--classes", "4", "--size", "8", "--json")
    assert (done.code, [part["modules"][0] for part in json.loads(done.out)["parts"]]) == (
        0,
        ["linear", "layer3", "layer2", "layer1", "conv1"],
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resnt8"], "'resnt8' is no file here and no network; nearest valid name: 'resnet8'"),
        (["resnet8", "--argument", "width"], "--argument 'width' is not KEY=VALUE"),
        (["resnet8", "--argument", "width=wide"], "argument width is 'wide'"),
        (["none.pt"], "none.pt: cannot be read"),
    ],
)
def test_inspect_refuses_what_is_neither(here: Here, arguments: list[str], said: str) -> None:
    done = here("inspect", *arguments)
    assert (done.code, said in done.err) == (2, True), done.err
