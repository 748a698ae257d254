from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlx_deploy.config import Gate
from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.samples import Arrays
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.judging import Judging, judged
from dlx_deploy.runtime.tasks.semantic_segmentation import semantic_segmentation
from dlx_deploy.tasks import find_task, told_resamples
from dlx_deploy.tasks.judging import comparison_by, watched
from dlx_deploy.tasks.verification import Accuracy, Comparison, Row

TASK = find_task("semantic-segmentation")
OUTPUTS: Any = judged(semantic_segmentation(Framing(6, 5, 3), ["a", "b", "c"]), Judging("mine.py:own", False)).outputs
MIOU = """
import numpy as np
RESAMPLES = 400

def own(confusions, weights):
    sums = np.tensordot(weights, confusions, 1)
    there = sums.sum(axis=1) > 0
    union = sums.sum(axis=0) + sums.sum(axis=1) - sums.diagonal()
    return (sums.diagonal() / np.maximum(union, 1))[there].mean()
"""
BODY = "import numpy as np\ndef own(confusions, weights):\n    "


def statistic(wrong: float, seed: int = 0, n: int = 40) -> Arrays:
    """Of a model that has so many of its pixels ``wrong``; the first row of every mask is ignored."""
    masks = np.random.default_rng(9).integers(0, 3, (n, 6, 5), np.uint8)
    rng = np.random.default_rng(seed)
    answers = np.where(rng.random(masks.shape) < wrong, (masks + 1) % 3, masks)
    masks[:, 0] = 255
    logits = np.moveaxis(np.eye(3, dtype=np.float32)[answers], 3, 1)
    found: Arrays = OUTPUTS.statistic({"logits": logits}, {"mask": masks})
    return found


def written(folder: Path, text: str) -> Comparison:
    (folder / "mine.py").write_text(text, encoding="utf-8")
    return comparison_by(TASK, f"{folder}/mine.py:own")


def test_confusions_are_of_pixels_that_count() -> None:
    """[true, answered], and as small as classes: the frame could have any number of pixels."""
    masks, answers = np.array([[[0, 1, 1], [2, 255, 0]]], np.uint8), np.array([[[0, 0, 1], [2, 2, 2]]], np.uint8)
    outputs: Any = judged(semantic_segmentation(Framing(2, 3, 3), ["a", "b", "c"]), Judging("m.py:f")).outputs
    logits = np.moveaxis(np.eye(3, dtype=np.float32)[answers], 3, 1)
    found = outputs.statistic({"logits": logits}, {"mask": masks, "group": np.array([7])})
    assert found["confusions"].tolist() == [[[1, 0, 1], [1, 1, 0], [0, 0, 1]]]
    assert (found["confusions"].dtype, list(found), found["group"]) == (np.int32, ["counts", "group", "confusions"], 7)
    kept = outputs.record({"logits": logits}, {"mask": masks})
    assert sorted(kept) == sorted(tensor.name for tensor in outputs.columns) == ["counts", "mask_digest"]


def test_a_function_is_bounded_as_mean_iou_of_ours(tmp_path: Path) -> None:
    mine, teacher, model = written(tmp_path, MIOU), statistic(0.1), statistic(0.2, 1)
    ours: Any = comparison_by(TASK, "")
    assert mine.score(model) == pytest.approx(ours.score(model), abs=1e-12)
    found, theirs = mine.evidence(teacher, model), ours.evidence(teacher, model)
    for name in ("lowers", "uppers", "drop_lowers", "drop_uppers"):
        assert found[name][45] == pytest.approx(theirs[name][45], abs=0.02)  # at 0.95
    masks = np.random.default_rng(9).integers(0, 3, (40, 6, 5), np.uint8)
    masks[:, 0] = 255
    constant = mine.evidence(teacher, teacher)["constant"]
    assert constant == pytest.approx(ours.facts({"mask": masks})["constant"], abs=1e-12)


def test_models_that_agree_have_a_bound_and_the_order_of_images_has_no_part(tmp_path: Path) -> None:
    mine, teacher, model = written(tmp_path, MIOU), statistic(0.1), statistic(0.2, 1)
    same = mine.evidence(teacher, teacher)["drop_uppers"]
    assert isinstance(same, tuple)
    assert same[45] > 0.05  # of 40 images, one in 40 three times
    turned: list[Arrays] = [{name: array[::-1] for name, array in of.items()} for of in (teacher, model)]
    assert mine.evidence(*turned) == mine.evidence(teacher, model)


def test_images_that_are_wholly_ignored_make_no_bound_narrower(tmp_path: Path) -> None:
    """None of their pixels counts, so the extra image is as large as the others are."""
    mine: Any = written(tmp_path, MIOU)
    own = statistic(0.1)
    ignored: Arrays = {name: np.concatenate([of, np.zeros_like(of)]) for name, of in own.items()}
    alone, beside = mine.given([own]), mine.given([ignored])
    assert beside.models[0][0][-2:].tolist() == alone.models[0][0][-2:].tolist()
    assert mine.score(ignored) == pytest.approx(mine.score(own), abs=1e-12)
    found, theirs = (mine.evidence(of, of)["drop_uppers"][45] for of in (ignored, own))
    assert found > theirs - 0.01


def test_whole_groups_are_drawn(tmp_path: Path) -> None:
    mine, groups = written(tmp_path, MIOU), {"group": np.arange(40) // 5}
    found = mine.evidence({**statistic(0.1), **groups}, {**statistic(0.2, 1), **groups})
    single = mine.evidence(statistic(0.1), statistic(0.2, 1))
    uppers, narrow = found["drop_uppers"], single["drop_uppers"]
    assert isinstance(uppers, tuple)
    assert isinstance(narrow, tuple)
    assert (found["groups"], uppers[45] > narrow[45]) == (8, True)


def test_the_gate_has_a_drop_and_a_floor_or_a_constant(tmp_path: Path) -> None:
    mine, teacher, model = written(tmp_path, MIOU), statistic(0.05), statistic(0.5, 1)
    rows = tuple(
        Row(
            model=name,
            score=mine.score(of),
            evidence=mine.evidence(teacher, of),
            size_bytes=0,
            macs=0,
            parameters=0,
        )
        for name, of in (("teacher", teacher), ("int8", model))
    )
    accuracy = Accuracy(metric=mine.name, title=mine.title, judge="native", n=40, shipped="int8", rows=rows)
    drop, chance = mine.judge(Gate(max_drop=0.02), accuracy)
    assert (drop.metric, drop.verdict, chance.metric) == ("mine.py:own_drop", "fail", "teacher_mine.py:own")
    assert (chance.verdict, chance.limit) == ("pass", pytest.approx(0.115, abs=0.02))
    _, floor = mine.judge(Gate(max_drop=0.9, min_accuracy=0.9), accuracy)
    assert (floor.gate, floor.verdict) == ("min_accuracy", "fail")
    with pytest.raises(ConfigError, match=r"gate\.max_flips"):
        mine.check(Gate(max_flips=0.1))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return confusions.trace(axis1=1, axis2=2).sum() / confusions.sum()", r"gives .* must use its weights"),
        ("return 100.0", r"gives 100; must be 0 to 1, higher is better"),
        ("return float('nan')", r"gives NaN on these samples; must be a number"),
        ("return float('-inf')", r"gives -inf; must be 0 to 1"),
        ("return confusions.sum(axis=(1, 2)) / confusions.sum()", r"gives a ndarray; must be one number"),
        ("return '0.5'", r"gives a str; must be one number"),
        ("confusions[0] = 0\n    return 0.5", r"fails with ValueError: assignment destination is read-only; it gets"),
        (
            "return confusions[9999]",
            r"fails with IndexError: .*; it gets confusions int64\[m, K, K\], \[true, answered\]",
        ),
    ],
)
def test_what_a_function_does_wrong_is_said(tmp_path: Path, body: str, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"gate\.metric is 'mine\.py:own': the function {told}"):
        written(tmp_path, BODY + body).score(statistic(0.1))


def test_a_function_for_classes_is_told_what_masks_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fails with TypeError: .*'weights'; it gets confusions int64\[m, K, K\]"):
        written(tmp_path, "def own(targets, answers, weights): ...").score(statistic(0.1))


def test_resamples_tell_how_far_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told_resamples, "_EVERY_S", 0.0)
    heard: list[tuple[float, str]] = []
    told = watched(written(tmp_path, MIOU), lambda done, total, text="": heard.append((total, text)))
    told.evidence(statistic(0.1), statistic(0.2, 1))
    assert set(heard) == {(800, "resamples of own")}


def test_a_package_does_not_judge_by_what_it_does_not_carry() -> None:
    assert OUTPUTS.judging.metric == "mine.py:own"
    for refused in (lambda: OUTPUTS.recall({}, {}), lambda: OUTPUTS.judge({}, {}, None, 0)):
        with pytest.raises(
            InputError, match=r"judged by mine\.py:own, a function of who built it, which packages do not"
        ):
            refused()
    with pytest.raises(InputError, match=r"metric is 'auroc'; masks are judged by mIoU, or a function, 'FILE\.py:FUNC"):
        judged(semantic_segmentation(Framing(6, 5, 3), ["a", "b"]), Judging("auroc"))
