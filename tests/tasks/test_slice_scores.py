"""Slices by metrics that are no mean over samples: a bad one fails alone, in a build and on a device alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from dlx_deploy.config import Gate
from dlx_deploy.graph.samples import Arrays
from dlx_deploy.nn.data.slices import SLICES, write_slices
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.report.slices import draw_slices, slice_table
from dlx_deploy.runtime.errors import Undecided
from dlx_deploy.runtime.statistics.groups import judge_groups
from dlx_deploy.runtime.statistics.resampled import UNKNOWN
from dlx_deploy.runtime.statistics.scored import Scored
from dlx_deploy.runtime.tasks.classes import Classes
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.judging import Judging
from dlx_deploy.runtime.tasks.masks import Masks
from dlx_deploy.runtime.tasks.slice_verdicts import SlicesJudged, judge_slices
from dlx_deploy.runtime.tasks.slices import SliceBudgets
from dlx_deploy.runtime.tasks.task import Budgets
from dlx_deploy.stages.support.regression import baseline_of, judge_regression, sliced
from dlx_deploy.tasks import find_task, user_metric
from dlx_deploy.tasks.judging import comparison_by
from dlx_deploy.tasks.slices import slice_notes
from dlx_deploy.tasks.verification import Accuracy, Comparison, Row

CLASSES, MASKS = find_task("image-classification"), find_task("semantic-segmentation")
LABELS = ("a", "b", "c")
N = 400
CAMERAS = ["0", "1"] * (N // 2)
"""Camera 1 is the bad one."""
BAD = np.array(CAMERAS) == "1"


def answers(wrong: np.ndarray, grouped: bool = False) -> Arrays:
    """Logits of three classes, sure of the next class where they are ``wrong``, bool[N], and of the right one else."""
    label = np.arange(N) // 2 % 3
    logits = np.eye(3, dtype=np.float32)[np.where(wrong, label + 1, label) % 3] * 4
    own = {"label": label, "logits": logits, "answer": logits.argmax(axis=1), "right": ~wrong}
    return {**own, "group": np.arange(N) // 20} if grouped else own


def masks(wrong: np.ndarray, grouped: bool = False) -> Arrays:
    """Counts of images of 30 pixels, of which those that are ``wrong``, bool[N], have a third of each class wrong."""
    counts = np.tile(np.array([[10, 0, 0]] * 3, np.int64), (N, 1, 1))
    counts[wrong] = [6, 4, 4]
    return {"counts": counts, "group": np.arange(N) // 20} if grouped else {"counts": counts}


def few(share: float) -> np.ndarray:
    """Wrong ones among those of the bad camera."""
    return BAD & (np.random.default_rng(1).random(N) < share)


NONE = np.zeros(N, np.bool_)
JUDGED: list[tuple[Comparison, Any, Callable[..., Arrays]]] = [
    (comparison_by(CLASSES, "macro_f1"), Classes(LABELS).judged_by(Judging("macro_f1")), answers),
    (comparison_by(MASKS, ""), Masks(LABELS, Framing(6, 5, 3)), masks),
]
each = pytest.mark.parametrize(("comparison", "device", "made"), JUDGED, ids=["macro_f1", "miou"])


def built(
    folder: Path, comparison: Comparison, pair: tuple[Arrays, Arrays], columns: Mapping[str, Sequence[str]]
) -> Accuracy:
    """As ``verify`` writes it and a warm build reads it: the teacher beside a model, which is held against its last
    release too, whose answers are the teacher's."""
    teacher, model = pair
    write_slices(folder / SLICES, list(columns), list(zip(*columns.values(), strict=True)))
    (folder / "baseline.json").write_text('{"name": "x", "version": "1", "target": "cpu", "digest": "0"}')
    inputs = {"slices": folder / SLICES, "baseline": folder / "baseline.json"}
    found, evidence = sliced(comparison, inputs, pair, judged=True), comparison.evidence(teacher, model)
    rows = [
        Row(
            model=name,
            score=comparison.score(of),
            evidence=evidence,
            size_bytes=1,
            macs=1,
            parameters=1,
        )
        for name, of in (("teacher", teacher), ("quantized", model))
    ]
    accuracy = Accuracy(
        metric=comparison.name,
        title=comparison.title,
        judge="native",
        n=N,
        shipped="quantized",
        rows=tuple(rows),
        facts={"constant": 0.3},
        slice_scores=found.scores,
        slice_bounds=found.bounds,
        baseline=baseline_of(comparison, inputs, {"released": teacher}, model, judged=True),
    )
    return msgspec.json.decode(msgspec.json.encode(accuracy), type=Accuracy)


def gate(results: Sequence[GateResult], name: str) -> GateResult:
    return next(result for result in results if result.gate == name)


def on_device(
    device: Any, pair: tuple[Arrays, Arrays], columns: Mapping[str, Sequence[str]], budget: float
) -> SlicesJudged:
    asked = Budgets(0.2, 0.95, slices=SliceBudgets(tuple(columns), budget, {}))
    seen = judge_slices(device, pair, columns, asked)
    assert seen is not None
    return seen


@each
def test_a_bad_slice_fails_alone(
    tmp_path: Path, comparison: Comparison, device: Any, made: Callable[..., Arrays]
) -> None:
    pair, columns = (made(NONE), made(few(0.4))), {"camera": CAMERAS}
    accuracy = built(tmp_path, comparison, pair, columns)
    budgets = Gate(max_drop=0.4, max_slice_drop=0.1)
    for asked in (budgets, Gate(slices={"camera=1": 0.1})):
        comparison.check(asked)
    results = comparison.judge(budgets, accuracy)
    whole, slices = gate(results, "accuracy"), gate(results, "slice_drop")
    assert (whole.verdict, slices.verdict) == ("pass", "fail")
    assert slices.metric == f"slice_{comparison.name}_drop"
    assert f"1 of 2 slices drop too far at 0.95 confidence (Holm, over 2): 'camera=1' {100 * slices.value:.2f}" in (
        slices.text
    )
    assert f"({comparison.title} 100.00 % to " in slices.text
    assert "shown by 200 samples" in slices.text
    regression = gate(judge_regression(comparison, replace(budgets, max_regression=0.4), accuracy), "slice_regression")
    assert (regression.verdict, regression.value) == ("fail", slices.value)
    seen = on_device(device, pair, columns, 0.1)
    assert seen.verdict is not None
    assert f"quantized: {seen.verdict.explain()}" in slices.text
    assert [(one.group.name, one.verdict) for one in seen.verdict.groups] == [
        ("camera=1", "fail"),
        ("camera=0", "pass"),
    ]
    free = Gate(max_drop=0.4, max_slice_drop=0.1, slices={"camera=1": 0.0})
    assert gate(comparison.judge(free, accuracy), "slice_drop").verdict == "pass"
    assert "slice_drop" not in {result.gate for result in comparison.judge(Gate(max_drop=0.4), accuracy)}
    header, *rows = slice_table(accuracy.each_slice)
    assert header == ("slice", "samples", "teacher", "model", f"{comparison.title} drop")
    assert [row[:3] for row in rows] == [("camera=1", "200", "100.00 %"), ("camera=0", "200", "100.00 %")]


@each
def test_a_slice_is_judged_as_the_whole_is_on_its_samples_alone(
    comparison: Any, device: Any, made: Callable[..., Arrays]
) -> None:
    """Also where samples come in groups, which are drawn whole within it."""
    for grouped, noun, units in ((False, "samples", 200), (True, "groups", 20)):
        teacher, model = made(NONE, grouped), made(few(0.2), grouped)
        scores, bounds = comparison.slice_scores(teacher, model, {"camera": CAMERAS}, True)
        alone = [{name: array[BAD] for name, array in one.items()} for one in (teacher, model)]
        whole = comparison.drops(*alone)
        assert (bounds[1], scores[1].drop) == (whole.bounds, whole.drop)
        assert (scores[1].name, scores[1].samples, scores[1].noun) == ("camera=1", units, noun)


@each
def test_without_a_budget_there_are_values_and_nothing_is_resampled(
    monkeypatch: pytest.MonkeyPatch, comparison: Any, device: Any, made: Callable[..., Arrays]
) -> None:
    for draws in ("weighted.Units.resamples", "bootstrap._resampled"):
        monkeypatch.setattr(f"dlx_deploy.runtime.statistics.{draws}", None)
    pair = made(NONE), made(few(0.4))
    scores, bounds = comparison.slice_scores(*pair, {"camera": CAMERAS}, False)
    assert ([one.teacher for one in scores], bounds) == ([1.0, 1.0], ())
    seen = on_device(device, pair, {"camera": CAMERAS}, 0.0)
    assert (seen.verdict, seen.groups) == (None, scores)
    assert seen.lines()[0].startswith(f"slices that drop: 'camera=1' {100 * scores[1].drop:.2f} points")
    assert "camera=1" in "\n".join(draw_slices(scores))


def test_a_slice_on_which_a_metric_has_no_value_is_undecided_and_says_why(tmp_path: Path) -> None:
    """One class alone has no AUROC, and of a single other sample many resamples lack it; nothing else passes for it."""
    auroc, device = comparison_by(CLASSES, "auroc"), Classes(LABELS).judged_by(Judging("auroc"))
    pair = answers(NONE), answers(NONE)
    light = ["day"] * 300 + ["dusk"] * 100
    for one in pair:
        one["label"] = np.where(np.arange(N) < 300, one["label"], 0)
    columns = {"light": light}
    accuracy = built(tmp_path, auroc, pair, columns)
    result = gate(auroc.judge(Gate(max_drop=0.4, max_slice_drop=0.3), accuracy), "slice_drop")
    assert result.verdict == "undecided"
    assert "1 of 2 slices are undecided at 0.95 confidence: 'light=dusk': the metric has no value on these" in (
        result.text
    )
    seen = on_device(device, pair, columns, 0.3)
    assert isinstance(seen.failure(), Undecided)
    dusk = next(one for one in seen.groups if one.name == "light=dusk")
    assert isinstance(dusk, Scored)
    assert (dusk.teacher, dusk.package) == (None, None)
    assert slice_table(seen.groups)[2] == ("light=dusk", "100", "no value", "no value", "")
    for one in pair:
        one["label"] = np.where(np.arange(N) < 399, one["label"], 1)
    seen = on_device(device, pair, columns, 0.3)
    assert isinstance(seen.failure(), Undecided)
    assert "'light=dusk': the metric has no value in " in str(seen.failure())


def test_masks_whose_every_pixel_is_ignored_pass_no_budget() -> None:
    pair = masks(NONE), masks(NONE)
    for one in pair:
        one["counts"][BAD] = 0
    device = JUDGED[1][1]
    seen = on_device(device, pair, {"camera": CAMERAS}, 0.3)
    assert "'camera=1': every pixel of its masks is ignored" in str(seen.failure())
    (gone,) = [one for one in seen.groups if one.name == "camera=1"]
    assert gone.describe() == "'camera=1' 0.00 points (mIoU has no value, shown by 200 samples)"


def test_ignored_images_make_no_bound_surer() -> None:
    """The image more that is drawn is as large as those that show something: 40 among 400 say what 40 alone do."""
    comparison: Any = JUDGED[1][0]
    some = {"counts": masks(NONE)["counts"][:40]}
    among = masks(NONE)
    among["counts"][40:] = 0
    uppers = [comparison.drops(one, one).bounds.at(0.95)[1] for one in (some, among)]
    assert uppers[1] == pytest.approx(uppers[0], rel=0.2)


def test_a_slice_that_no_sample_is_of_is_told_so() -> None:
    asked = Budgets(0.2, 0.95, slices=SliceBudgets(("camera",), 0.0, {"camera=7": 0.1}))
    seen = judge_slices(JUDGED[0][1], (answers(NONE), answers(NONE)), {"camera": CAMERAS}, asked)
    assert seen is not None
    assert "1 of 1 slices are undecided at 0.95 confidence: 'camera=7': no sample is of it; give some" in str(
        seen.failure()
    )


def test_nothing_known_of_a_slice_is_no_pass_whatever_the_budget() -> None:
    score = Scored("x", 10_000, None, None, "AUROC", why="it has none")
    seen = judge_groups([score], [0.999], "slices", 0.5, [UNKNOWN])
    assert (seen.verdict, seen.groups[0].samples_needed) == ("undecided", None)


def test_slices_of_few_samples_are_said_before_anything_is_built() -> None:
    sizes = {"camera=0": 70, "camera=1": 130}
    budgets = Gate(max_slice_drop=0.05)
    (top1,) = slice_notes(comparison_by(CLASSES, ""), budgets, {**sizes, "camera=2": 50})
    assert "'camera=2' 50 of 59" in top1
    assert "1 of 3 slices" in top1
    assert slice_notes(JUDGED[0][0], budgets, sizes) == []
    (miou,) = slice_notes(JUDGED[1][0], budgets, sizes)
    assert "1 of 2 slices have too few" in miou
    assert "'camera=0' 70 of 120" in miou


MINE = """
import numpy as np
RESAMPLES = 400

def own(targets, answers, weights):
    if len(np.unique(targets)) < 2:
        raise ValueError("one class")
    return np.average(answers.argmax(axis=1) == targets, weights=weights)
"""


def test_a_function_judges_slices_and_one_that_fails_on_a_slice_leaves_it_undecided(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    own: Any = comparison_by(CLASSES, f"{tmp_path}/mine.py:own")
    own.check(Gate(metric="mine.py:own", max_slice_drop=0.1))
    pair = answers(NONE), answers(few(0.9))
    columns = {"camera": CAMERAS, "part": ["many" if i % 100 < 50 else "one" for i in range(N)]}
    for one in pair:
        one["label"] = np.where(np.arange(N) % 100 < 50, one["label"], 0)
    scores, bounds = own.slice_scores(*pair, columns, True)
    seen = judge_groups(scores, [0.1] * 4, "slices", 0.95, bounds)
    told = {one.group.name: one.verdict for one in seen.groups}
    assert (told["camera=1"], told["part=one"]) == ("fail", "undecided")
    one = next(score for score in scores if score.name == "part=one")
    assert one.why == (
        "gate.metric is 'mine.py:own': the function fails with ValueError: one class; it gets targets int64[m], logits "
        "float32[m, K] and weights float64[m]"
    )


def test_a_function_that_is_too_slow_for_all_slices_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    own: Any = comparison_by(CLASSES, f"{tmp_path}/mine.py:own")
    monkeypatch.setattr(user_metric, "MOST_S", -1.0)
    with pytest.raises(Exception, match=r"its resamples of 2 slices take \d+ s, over -1 s; make the function faster"):
        own.slice_scores(answers(NONE), answers(NONE), {"camera": CAMERAS}, True)
    own.slice_scores(answers(NONE), answers(NONE), {"camera": CAMERAS}, False)
