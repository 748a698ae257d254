"""A package of a task that the runtime does not know, with two inputs and two outputs, through every command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from dlx_deploy import cli
from dlx_deploy.runtime.backends.table import BackendOptions
from dlx_deploy.runtime.commands.bench import BenchOptions, bench_package
from dlx_deploy.runtime.commands.main import main
from dlx_deploy.runtime.commands.selftest import self_test
from dlx_deploy.runtime.commands.verify import teacher_outputs
from dlx_deploy.runtime.errors import InputError, PackageError, SelfTestFailed
from dlx_deploy.runtime.package.archive import to_json, write_archive
from dlx_deploy.runtime.package.contents import PackageContents, assemble, make_reference, parse_package
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.tasks.arrays import Tolerance
from dlx_deploy.runtime.tasks.table import GROUP, TASKS

from . import made_up  # type: ignore[attr-defined]
from .made_up import NAME, measuring, network, read_lines  # type: ignore[import-not-found]

TASK = measuring({"m": 1, "km": 1000})
LINES = ["1 2 3 m = 2", "4 km = 4001", "5 5 m = 5", "1 9 2 8 km = 5000", "7 m = 7"]


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "made_up_task", made_up)
    monkeypatch.setitem(TASKS, NAME, "made_up_task:open_task")


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    (tmp_path / "lines.txt").write_text("\n".join(LINES) + "\n")
    return tmp_path / "lines.txt"


@pytest.fixture
def contents(lines: Path, helpers: Any) -> Any:
    def make(batch: int | None = None, off: float = 0.0) -> PackageContents:
        given, targets = read_lines(lines)
        feeds = TASK.inputs.read(given)
        value = np.array([[2], [4000], [5], [5000], [7]], np.float32)
        distances = np.array([[1, 0, 1, 0], [0] * 4, [0] * 4, [4, 4, 3, 3], [0] * 4], np.float32)
        columns = TASK.outputs.record({"value": value}, targets)
        return PackageContents(
            task=TASK,
            metadata=helpers.metadata(preprocessing={}),
            model=network(batch, off),
            golden_inputs=feeds,
            golden_outputs={"distances": distances, "value": value},
            tolerances={"value": Tolerance(0.01, 0), "distances": Tolerance(0.5, 0)},
            reference=make_reference(TASK, feeds, columns),
            manifest=b"{}\n",
            model_card="# made up\n",
            batch=batch,
        )

    return make


@pytest.fixture
def packed(contents: Any, tmp_path: Path) -> str:
    write_archive(tmp_path / "x.dlx", assemble(contents()))
    return str(tmp_path / "x.dlx")


def opened(contents: PackageContents) -> Predictor:
    return Predictor(parse_package(assemble(contents), "x.dlx"), BackendOptions(threads=1))


def test_what_a_package_says_of_it(contents: Any) -> None:
    files = assemble(contents())
    meta = json.loads(files["package.json"])
    assert (meta["task"], meta["units"]) == (NAME, {"m": 1, "km": 1000})
    assert [(end["name"], end["shape"]) for end in meta["inputs"] + meta["outputs"]] == [
        ("series", ["batch", "length"]),
        ("size", ["batch", 1]),
        ("value", ["batch", 1]),
        ("distances", ["batch", "length"]),
    ]
    assert meta["golden"]["tolerances"]["distances"] == {"atol": 0.5, "rtol": 0}
    arrays = {name for name in files if name.endswith(".npy")}
    golden = {f"golden/{name}.npy" for name in ("series", "size", "value", "distances")}
    assert arrays == golden | {f"reference/{name}.npy" for name in ("digest", "truth", "teacher")}


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_it_answers_and_tests_itself(contents: Any, batch: int | None) -> None:
    predictor = opened(contents(batch))
    assert predictor.predict(["1 2 3 m", "4 km"]).to_dict() == {"values": [2, 4000]}
    assert predictor.predict("4 km").to_dict() == {"values": [4000]}
    result = self_test(predictor)
    assert (result.images, [(o.name, o.atol) for o in result.outputs]) == (5, [("value", 0.01), ("distances", 0.5)])
    outputs = predictor.run(predictor.read(["1 2 3 m", "4 km"]))
    assert [outputs[name].dtype for name in ("value", "distances")] == [np.float32, np.float32]
    assert bench_package(predictor, BenchOptions(rounds=3, warmup=0, batches=(7,))).batch == 7


def test_every_output_is_tested(contents: Any) -> None:
    with pytest.raises(SelfTestFailed, match=r"golden measurement 0 differs \(5 of 5 do\): value is 2\.5, expected 2 "):
        self_test(opened(contents(off=0.5)))
    good = contents()
    apart = {**good.golden_outputs, "distances": good.golden_outputs["distances"] + np.float32([[0]] * 4 + [[1]])}
    with pytest.raises(SelfTestFailed, match=r"golden measurement 4 differs \(1 of 5 do\)"):
        self_test(opened(replace(good, golden_outputs=apart)))


def test_the_model_s_ends_are_held_to_the_task_s(contents: Any) -> None:
    renamed = network().replace(b"distances", b"distancez")
    rule = r"must have value: tensor\(float\)\['batch', 1\], distances: tensor\(float\)\['batch', length\]"
    with pytest.raises(PackageError, match=rf"the model has distancez: .*, value: .*; {rule}"):
        opened(replace(contents(), model=renamed))
    meta = json.loads((files := assemble(contents()))["package.json"])
    meta["inputs"].pop()
    with pytest.raises(PackageError, match=r"inputs is \[.*\]; must be \[.*'series'.*'size'"):
        parse_package({**files, "package.json": to_json(meta)}, "x.dlx")


def test_values_that_mean_nothing(contents: Any) -> None:
    good = contents()
    with pytest.raises(PackageError, match=r"'golden/size\.npy' holds sizes of no unit"):
        assemble(replace(good, golden_inputs={**good.golden_inputs, "size": np.full((5, 1), 7, np.int32)}))
    with pytest.raises(PackageError, match=r"'golden/size\.npy' is int32\[4, 1\]; must be int32\[5, 1\]"):
        assemble(replace(good, golden_inputs={**good.golden_inputs, "size": np.ones((4, 1), np.int32)}))


def test_a_teacher_answers_by_name(contents: Any, lines: Path, tmp_path: Path) -> None:
    given, _ = read_lines(lines)
    (tmp_path / "teacher.onnx").write_bytes(network())
    feeds = TASK.inputs.read(given)
    outputs = teacher_outputs(tmp_path / "teacher.onnx", TASK, feeds)
    assert outputs["value"][:, 0].tolist() == [2, 4000, 5, 5000, 7]
    with pytest.raises(InputError, match=r"the teacher reads .*'series'.* at batch batch; must read \[\('size'"):
        teacher_outputs(tmp_path / "teacher.onnx", TASK, {"size": feeds["size"]})


def test_every_command_of_the_package(packed: str, lines: Path, tmp_path: Path, capsys: Any) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments), packed)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    assert run("predict", "1 2 3 m", "4 km") == (0, "1 2 3 m\t2.00\n4 km\t4000.00\n", "")
    (tmp_path / "out").mkdir()
    assert run("predict", "4 km", "--out", str(tmp_path / "out"))[0] == 0
    assert (tmp_path / "out" / "4-km.txt").read_text() == "4000.0\n"
    assert run("predict", "x m") == (2, "", "error: 'x m' does not begin with a number\n")
    assert run("predict", "1 yd") == (2, "", "error: measurement 0 has the unit 'yd'; must be one of km, m\n")
    assert "\ninput    numbers and a unit of km, m\ngives    a value\n" in run("info")[1]
    code, out, _ = run("selftest")
    assert code == 0
    assert out.startswith("self-test passed: 5 golden inputs, every sign the same, value within 0 (")
    assert ", distances within " in out
    assert "measurements/s" in run("bench", "--rounds", "3")[1]
    assert run("verify", "--data", str(lines)) == (0, "error 0.200 and 0.200 on measurements\n", "")
    lines.write_text(lines.read_text().replace("= 4001", "= 4002"))
    result = json.loads(run("verify", "--data", str(lines), "--json")[1])
    assert (result["changed"], result["error"]) == (1, pytest.approx(0.4))


def test_every_command_of_the_tool(packed: str, lines: Path, capsys: Any) -> None:
    assert cli.run(["run", packed, "4 km", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predictions"] == [{"measurement": "4 km", "value": 4000.0}]
    assert cli.run(["verify", packed, "--data", str(lines)]) == 0


def test_a_damaged_package_misses_its_budget(contents: Any, lines: Path, tmp_path: Path, capsys: Any) -> None:
    write_archive(tmp_path / "bad.dlx", assemble(contents(off=0.5)))
    assert main(["verify", "--data", str(lines)], str(tmp_path / "bad.dlx")) == 3
    assert "error: the error grew" in capsys.readouterr().err


def test_a_package_is_run_by_the_runtime_inside_it(packed: str, tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "made_up_task-1.0.dist-info").mkdir(parents=True)
    (site / "made_up_task-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up\nVersion: 1\n")
    (site / "made_up_task-1.0.dist-info" / "entry_points.txt").write_text(f"[{GROUP}]\n{NAME} = made_up_task:open_task")
    source = Path(made_up.__file__).read_text(encoding="utf-8")
    probe = "import sys\nprint(*sorted(n for n in sys.modules if n.startswith('dlx_deploy')), file=sys.stderr)\n"
    (site / "made_up_task.py").write_text(source + probe)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        libraries = {str(Path(module.__file__ or "").parents[1]) for module in (np, onnx)}
        path = os.pathsep.join([str(site), *sorted(libraries)])  # -S: no .pth file, and so no dlx-deploy to be edited
        command = [sys.executable, "-S", "-W", "error", packed, *arguments]
        return subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
        )

    done = run("predict", "1 2 3 m")
    assert (done.returncode, done.stdout) == (0, "1 2 3 m\t2.00\n"), done.stderr
    imported = done.stderr.split()
    assert {"dlx_deploy.runtime", "dlx_deploy.runtime.errors", "dlx_deploy.runtime.tasks.task"} <= set(imported)
    assert not [name for name in imported if not f"{name}.".startswith("dlx_deploy.runtime.") and name != "dlx_deploy"]
    refused = run("predict", "one m")
    assert (refused.returncode, refused.stderr.splitlines()[-1]) == (
        2,
        "error: 'one m' does not begin with a number",
    )
