from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dlx_deploy.config import Gate
from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.samples import Arrays
from dlx_deploy.pipeline.plan import Build, plan
from dlx_deploy.pipeline.run import run_build
from dlx_deploy.pipeline.stage import Job, Metrics, Stage, Step, Tree
from dlx_deploy.pipeline.store import Store
from dlx_deploy.progress import silent
from dlx_deploy.runtime.statistics.bootstrap import RESAMPLES
from dlx_deploy.runtime.tasks.class_metrics import METRICS
from dlx_deploy.tasks import find_task, told_resamples
from dlx_deploy.tasks.judging import asked_metric, comparison_by, metric_file, watched
from dlx_deploy.tasks.user_file import MOST
from dlx_deploy.tasks.verification import Comparison

from ..pipeline.conftest import Events, NoParams

TASK = find_task("image-classification")
BALANCED = """
import numpy as np
RESAMPLES = 400

def own(targets, answers, weights):
    right = answers.argmax(axis=1) == targets
    return np.mean([np.average(right[targets == k], weights=weights[targets == k]) for k in np.unique(targets)])
"""
BODY = "import numpy as np\ndef own(targets, answers, weights):\n    "


def statistic(seed: int, n: int = 60) -> Arrays:
    rng = np.random.default_rng(seed)
    labels = np.random.default_rng(9).integers(0, 3, n)
    logits = rng.normal(size=(n, 3)).astype(np.float32)
    logits[np.arange(n), labels] += 2
    return {"label": labels, "logits": logits}


def written(folder: Path, text: str) -> Comparison:
    (folder / "mine.py").write_text(text, encoding="utf-8")
    return comparison_by(TASK, f"{folder}/mine.py:own")


def test_a_function_is_bounded_as_the_same_metric_of_ours(tmp_path: Path) -> None:
    mine, teacher, model = written(tmp_path, BALANCED), statistic(1), statistic(2)
    ours = METRICS["balanced_accuracy"]
    given = [{"label": of["label"], "answer": of["logits"].argmax(axis=1).astype(np.int32)} for of in (teacher, model)]
    assert mine.score(model) == pytest.approx(ours.value(given[1]), abs=1e-12)
    found, drops = mine.evidence(teacher, model), ours.drops(given[0], given[1], 400)
    assert isinstance(found["drop_uppers"], tuple)
    assert found["drop_uppers"][45] == pytest.approx(drops.bounds.at(0.95)[1], abs=0.05)
    assert mine.evidence(teacher, teacher)["constant"] == pytest.approx(1 / 3)
    assert not list(tmp_path.glob("__pycache__"))


def test_the_folder_is_in_no_key_and_the_file_in_all(tmp_path: Path) -> None:
    budgets = Gate(metric=f"{tmp_path}/mine.py:own")
    assert asked_metric(TASK, budgets) == "mine.py:own"
    assert metric_file(budgets) == {"metric": tmp_path / "mine.py"}
    assert metric_file(Gate(metric="macro_f1")) == {}
    assert MOST == RESAMPLES


def test_modules_that_the_file_imports_from_its_folder_are_in_the_key(tmp_path: Path) -> None:
    (tmp_path / "nearby.py").write_text("def share(right):\n    import further\n    return further.VALUE\n")
    (tmp_path / "further.py").write_text("import json\nVALUE = 0.25\n")
    for name in ("unused.py", "json.py"):  # nobody imports it; Python's own is taken
        (tmp_path / name).write_text("raise OSError")
    mine = written(tmp_path, BODY + "from nearby import share\n    return share(targets)")
    assert mine.score(statistic(1)) == 0.25
    source = metric_file(Gate(metric=f"{tmp_path}/mine.py:own"))["metric"]
    assert isinstance(source, Tree)
    assert (source.root, source.names(tmp_path)) == (tmp_path, ["further.py", "mine.py", "nearby.py"])
    (tmp_path / "further.py").write_text("VALUE = 0.75\n")
    assert comparison_by(TASK, "mine.py:own", tmp_path).score(statistic(1)) == 0.75
    assert not list(tmp_path.glob("__pycache__"))


def test_a_changed_helper_reruns_the_step(tmp_path: Path) -> None:
    def score(job: Job) -> Metrics:
        value = comparison_by(TASK, "mine.py:own", job.inputs["metric"]).score(statistic(1))
        (job.out / "x").write_text(str(value))
        return {"value": value}

    (tmp_path / "nearby.py").write_text("VALUE = 0.25\n")
    written(tmp_path, BODY + "import nearby\n    return nearby.VALUE")
    stage = Stage("score", 1, NoParams, ("metric",), ("x",), score)
    step = Step("score", stage, NoParams(), metric_file(Gate(metric=f"{tmp_path}/mine.py:own")))
    build, store = Build("b", None, [step], {}), Store(tmp_path / ".dlx")
    run_build(build, store, Events())
    assert plan(build, store)[0].action == "hit"
    (tmp_path / "nearby.py").write_text("VALUE = 0.75\n")
    assert plan(build, store)[0].why.startswith(f"input metric ({tmp_path}) changed: ")
    run_build(build, store, Events())
    assert [record.metrics["value"] for record in store.records()] in ([0.25, 0.75], [0.75, 0.25])


def test_a_package_beside_the_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").write_text("VALUE = 0.5")
    monkeypatch.syspath_prepend(tmp_path)  # as for who starts Python there
    with pytest.raises(ConfigError, match=r"imports the package helpers/__init__\.py, which lies beside it; only"):
        written(tmp_path, BODY + "import helpers\n    return helpers.VALUE").score(statistic(1))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return (answers.argmax(axis=1) == targets).mean()", r"gives .* weights and .* must use its weights"),
        ("return float(answers[0, 0]) % 1", r"neither order nor chance"),
        ("return 100 * weights.sum() / weights.sum()", r"gives 100; must be 0 to 1, higher is better"),
        ("return float('inf')", r"gives inf; must be 0 to 1"),
        ("return float('nan')", r"gives NaN on these samples; must be a number"),
        ("return answers.argmax(axis=1) == targets", r"gives a ndarray; must be one number"),
        ("return None", r"gives a NoneType; must be one number"),
        ("return True", r"gives a bool; must be one number"),
        ("raise KeyError('x')", r"fails with KeyError: 'x'; it gets targets int64\[m\]"),
        ("raise SystemExit", r"fails with SystemExit; it gets"),
        ("weights[0] = 3\n    return 0.5", r"fails with ValueError: assignment destination is read-only"),
    ],
)
def test_what_a_function_does_wrong_is_said(tmp_path: Path, body: str, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"gate\.metric is 'mine\.py:own': the function {told}|{told}"):
        written(tmp_path, BODY + body).score(statistic(1))


@pytest.mark.parametrize(
    ("text", "confidence", "told"),
    [
        ("def other(): ...", 0.95, r"mine\.py has no function 'own'; define it there"),
        ("print(own)", 0.95, r"has no function 'own'"),
        ("def own(:", 0.95, r"mine\.py is no Python \(invalid syntax"),
        ("RESAMPLES = 5\nown = max", 0.95, r"RESAMPLES in .* is 5; must be a number written out, 400 to 4000"),
        ("RESAMPLES = 20 * 20\nown = max", 0.95, r"is 20 \* 20; must be a number written out"),
        ("RESAMPLES = 400\nown = max", 0.995, r"gate\.confidence is 0\.995, .* set gate\.confidence = 0\.99 or less"),
        ("RESAMPLES: int = 5\nown = max", 0.95, r"RESAMPLES in .* is 5; must be a number written out"),
        ("RESAMPLES = 400\nRESAMPLES = 10\nown = max", 0.95, r"RESAMPLES in .* is 10; must be a number written out"),
    ],
)
def test_a_plan_reads_the_file_and_does_not_run_it(tmp_path: Path, text: str, confidence: float, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        written(tmp_path, text).check(Gate(confidence=confidence))
    written(tmp_path, "raise OSError\nfrom a import own").check(Gate())


def test_a_file_that_fails_or_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"its file fails with ZeroDivisionError: division by zero; mend it"):
        written(tmp_path, "own = 1 / 0").score(statistic(1))
    with pytest.raises(ConfigError, match=r"own is a int; must be a function"):
        written(tmp_path, "own = 1").score(statistic(1))
    with pytest.raises(ConfigError, match=r"none\.py cannot be read \(.*\); name a Python file"):
        comparison_by(TASK, "none.py:own").check(Gate())
    with pytest.raises(ConfigError, match=r"must be 'FILE\.py:FUNCTION'"):
        comparison_by(TASK, "mine.py:1")
    segmentation = find_task("semantic-segmentation")
    with pytest.raises(ConfigError, match=r"segmentation has: 'miou', or a function of yours, 'FILE\.py:FUNCTION'$"):
        comparison_by(segmentation, "auroc")
    without: Any = SimpleNamespace(comparison=segmentation.answers.comparison)  # as tasks of other packages
    with pytest.raises(ConfigError, match=r"semantic-segmentation has: 'miou'$"):
        comparison_by(replace(segmentation, answers=without), "mine.py:own")


def test_a_function_that_would_take_hours_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlx_deploy.tasks.user_metric.MOST_S", 0.0)
    with pytest.raises(ConfigError, match=r"its 400 resamples take .* over 0 s; make the function faster"):
        written(tmp_path, BALANCED).evidence(statistic(1), statistic(2))


def test_resamples_tell_how_far_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both models' drop and of the model itself: from either side, so twice the 400 for each of these three."""
    monkeypatch.setattr(told_resamples, "_EVERY_S", 0.0)
    heard: list[tuple[float, float, str]] = []
    mine = written(tmp_path, BALANCED)
    quiet = mine.evidence(statistic(1), statistic(2))
    told = watched(mine, lambda done, total, text="": heard.append((done, total, text)))
    assert told.evidence(statistic(1), statistic(2)) == quiet
    assert {(total, text) for _, total, text in heard} == {(800, "resamples of own")}
    assert [done for done, _, _ in heard].count(400) == 3
    assert max(done for done, _, _ in heard) == 800
    ours = comparison_by(TASK, "top1")
    assert watched(ours, silent) is ours
