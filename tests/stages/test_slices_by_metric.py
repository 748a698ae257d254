"""Slices by metrics that are no mean over samples, in the stages themselves: macro-F1, and masks by a user's function
beside the last release."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from dlx_deploy.config import Config, Data, Gate
from dlx_deploy.nn.data.dataset import open_data
from dlx_deploy.nn.data.slices import SLICES, write_slices
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.stage import Job
from dlx_deploy.report.results import read_results
from dlx_deploy.report.view import to_json
from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import PackageContents, assemble, make_reference
from dlx_deploy.runtime.tasks.arrays import Tolerance
from dlx_deploy.stages import baseline, verify
from dlx_deploy.stages.baseline import BaselineParams
from dlx_deploy.stages.support.judging import read_statistic
from dlx_deploy.stages.support.regression import baseline_of, judge_regression
from dlx_deploy.stages.verify import VerifyParams
from dlx_deploy.targets import load_target
from dlx_deploy.tasks import find_task, prepare
from dlx_deploy.tasks.judging import METRIC, comparison_by
from dlx_deploy.tasks.verification import Accuracy, BySliceScore, Row

from ..datasets import held_images
from ..runtime.tasks.made_up import network as made_up
from ..runtime.tasks.test_semantic_segmentation import logits, network, scenes
from .test_baseline import METADATA

N = 400
LIGHT = ["day", "night"] * (N // 2)


def verdicts(results: Any) -> dict[str, GateResult]:
    return {result.gate: result for result in results}


def test_a_slice_that_sinks_by_macro_f1_fails_a_verification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the night a third is lost: the whole keeps to its budget, and the slice does not."""
    label = np.arange(N) // 2 % 2
    data = held_images(np.zeros((N, 1, 1, 1), np.uint8), label, "test")
    monkeypatch.setattr("dlx_deploy.nn.data.dataset.open_data", lambda path: data)
    wrong = (np.array(LIGHT) == "night") & (np.arange(N) % 3 == 0)
    inputs = {"data": tmp_path, "slices": tmp_path / SLICES}
    write_slices(inputs["slices"], ["light"], [(one,) for one in LIGHT])
    for name, of in (("teacher", np.zeros(N, bool)), ("small", wrong)):
        inputs[name] = tmp_path / name
        inputs[name].write_bytes(made_up(off=len(name) / 10))
        inputs[f"evaluated-{name}"] = tmp_path / f"{name}.npz"
        np.savez(inputs[f"evaluated-{name}"], label=label, answer=np.where(of, 1 - label, label), right=~of)
    params = VerifyParams(candidates=("teacher", "small"), metric="macro_f1", bounds_slices=True)
    given = {**inputs, "shipped": inputs["small"]}
    (tmp_path / "out").mkdir()
    verify.STAGE.run(Job(params, given, tmp_path / "out", load_target("jetson").profile, threads=1))
    outputs = {name: tmp_path / "out" / name for name in verify.STAGE.outputs}

    config = Config(gate=Gate(metric="macro_f1", max_drop=0.3, slices={"light=night": 0.1}, allow_chance=True))
    judged = verdicts(verify.judge(config, outputs, {}))
    assert (judged["accuracy"].verdict, judged["slice_drop"].verdict) == ("pass", "fail")
    assert judged["slice_drop"].metric == "slice_macro_f1_drop"
    kept = msgspec.structs.replace(config.gate, slices={"light=day": 0.1, "light=night": 0.5})
    assert (
        verdicts(verify.judge(msgspec.structs.replace(config, gate=kept), outputs, {}))["slice_drop"].verdict == "pass"
    )
    table = json.loads(to_json(read_results("jetson", outputs, config).data))["slice_scores"]
    assert {one["name"]: round(one["package"], 2) for one in table} == {"light=day": 1.0, "light=night": 0.66}


OWN = """
import numpy as np
RESAMPLES = 400

def seen(confusions, weights):
    share = confusions.diagonal(axis1=1, axis2=2).sum(axis=1) / confusions.sum(axis=(1, 2))
    return np.average(share, weights=weights)
"""


def scene_folder(root: Path, counts: dict[str, int]) -> Path:
    """Images that ``network(0)`` has all right, and their masks."""
    for seed, (split, count) in enumerate(counts.items()):
        for part, arrays in zip(("images", "masks"), scenes(count, seed), strict=True):
            (root / split / part).mkdir(parents=True)
            for i, array in enumerate(arrays):
                Image.fromarray(array).save(root / split / part / f"{i:03}.png")
    return root


def released(folder: Path, data: Path, shift: int) -> Path:
    """A package for the masks in ``data`` whose answers are moved by so many classes."""
    opened, kind = open_data(data), find_task("semantic-segmentation")
    task = kind.device(opened, (), {})
    images, masks = opened.split("test")
    columns = task.outputs.record({"logits": logits(images)}, {"mask": masks})
    contents = PackageContents(
        task=task,
        metadata={**METADATA, "preprocessing": kind.inputs.preprocessing(opened)},
        model=network(shift),
        golden_inputs={"images": images[:1]},
        golden_outputs={"logits": logits(images[:1])},
        tolerances={"logits": Tolerance(1e-3, 0)},
        reference=make_reference(task, {"images": images}, columns),
        manifest=b"{}\n",
        model_card="# pixels\n",
    )
    path = folder / f"{shift}.dlx"
    write_archive(path, assemble(contents))
    return path


def test_masks_are_held_against_the_release_by_a_function_of_the_users(tmp_path: Path) -> None:
    """And their slices: each package answers the test split in the stage ``baseline``, as the one before the other."""
    root = scene_folder(tmp_path / "set", {"train": 12, "test": 40})
    times = "".join(f"test/images/{i:03}.png,{('day', 'night')[i % 2]}\n" for i in range(40))
    (root / "list.csv").write_text(f"path,time\n{times}")
    kind = Data(kind="maskfolder", path=str(root), height=4, width=6, calibration_images=4, slices=("time",))
    prepare(kind, tmp_path / "data", 0)
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    comparison = comparison_by(find_task("semantic-segmentation"), str(tmp_path / "own.py:seen"))
    profile, inputs = load_target("jetson").profile, {"data": tmp_path / "data", METRIC: tmp_path / "own.py"}
    statistics, outs = [], [tmp_path / "sunk", tmp_path / "better"]
    for out, shift in zip(outs, (1, 0), strict=True):
        out.mkdir()
        given = {**inputs, "package": released(out, tmp_path / "data", shift)}
        params = BaselineParams(metric="own.py:seen")
        metrics = baseline.STAGE.run(Job(params, given, out, profile, checkpoints=out / "kept"))
        statistics.append(read_statistic(out / "statistic.npz"))
        assert metrics["baseline_own.py:seen"] == comparison.score(statistics[-1])
    sunk, better = statistics
    assert comparison.score(better) - comparison.score(sunk) == 1
    assert isinstance(comparison, BySliceScore)

    def judge(shipped: Any, release: Any, out: Path) -> dict[str, str]:
        made = {"slices": tmp_path / SLICES, "baseline": out / "baseline.json"}
        row = {"size_bytes": 0, "macs": 0, "parameters": 0}
        rows = tuple(
            Row(model=name, score=comparison.score(of), evidence=comparison.evidence(better, of), **row)  # type: ignore[arg-type]
            for name, of in (("teacher", better), ("int8", shipped))
        )
        accuracy = Accuracy(
            metric=comparison.name,
            title=comparison.title,
            judge="exact-qdq",
            n=40,
            shipped="int8",
            rows=rows,
            baseline=baseline_of(comparison, made, {"released": release}, shipped, judged=True),
        )
        budgets = Gate(max_drop=0.1, max_slice_drop=0.12)
        return {one.gate: one.verdict for one in judge_regression(comparison, budgets, accuracy)}

    assert judge(sunk, better, outs[1]) == {"regression": "fail", "slice_regression": "fail"}
    assert judge(better, sunk, outs[0]) == {"regression": "pass", "slice_regression": "pass"}
