from __future__ import annotations

import numpy as np
import pytest

from dlx_deploy.config import Gate
from dlx_deploy.errors import ConfigError, DataError
from dlx_deploy.runtime.tasks.class_metrics import METRICS
from dlx_deploy.tasks import find_task, told_resamples
from dlx_deploy.tasks.class_metrics import CLASS_METRICS
from dlx_deploy.tasks.judging import asked_metric, comparison_by, validation_notes, watched

TASK = find_task("image-classification")


def test_both_halves_have_the_same_metrics() -> None:
    for name, metric in METRICS.items():
        comparison = comparison_by(TASK, name)
        assert (comparison.name, comparison.title) == (metric.name, metric.title)


@pytest.mark.parametrize("metric", ["", "top1"])
def test_the_task_s_own_metric_has_two_names_and_one_key(metric: str) -> None:
    assert asked_metric(TASK, Gate(metric=metric)) == ""
    assert comparison_by(TASK, metric) == TASK.answers.comparison
    assert not validation_notes(TASK, Gate(metric=metric), {})


def test_masks_have_no_metric_of_classes() -> None:
    words = r"gate\.metric is 'auroc'; semantic-segmentation has: 'miou', or a function of yours, 'FILE\.py:FUNCTION'$"
    with pytest.raises(ConfigError, match=words):
        comparison_by(find_task("semantic-segmentation"), "auroc")


@pytest.mark.parametrize(("key", "value"), [("max_flips", 0.1), ("max_class_drop", 0.1), ("confidence", 0.9995)])
def test_budgets_that_no_resampling_judges_are_refused_in_a_plan(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"gate\.{key} is {value:g}; .* judged by"):
        comparison_by(TASK, "macro_f1").check(Gate(metric="macro_f1", **{key: value}))


def test_data_on_which_a_metric_has_no_value_are_named() -> None:
    statistic = {"label": np.zeros(9, np.int64), "logits": np.zeros((9, 2), np.float32)}
    comparison = comparison_by(TASK, "auroc")
    with pytest.raises(DataError, match=r"gate\.metric is 'auroc': the metric has no value on these samples"):
        comparison.score(statistic)
    with pytest.raises(DataError, match=r"gate\.metric is 'auroc': .*; or set another metric"):
        comparison.evidence(statistic, statistic)


def test_auroc_of_many_classes_is_said_to_take_long() -> None:
    metrics = {"classes": 1000.0}
    (note,) = CLASS_METRICS["auroc"].split_notes(Gate(), 50_000, metrics)
    assert "to resample 50000 samples of 1000 classes takes about 50 minutes of CPU for each model" in note
    assert not CLASS_METRICS["macro_f1"].split_notes(Gate(), 50_000, metrics)
    assert not CLASS_METRICS["auroc"].split_notes(Gate(), 5_000, {"classes": 10.0})


def test_resamples_tell_how_far_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the score, of its bounds and of both models' drops; what they come to is the same."""
    monkeypatch.setattr(told_resamples, "_EVERY_S", 0.0)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 40, 2)).astype(np.float32)
    teacher, model = ({"label": np.arange(40) % 2, "logits": one} for one in logits)
    heard: list[tuple[float, float, str]] = []
    silent = comparison_by(TASK, "auroc")
    told = watched(silent, lambda done, total, text="": heard.append((done, total, text)))
    assert told.evidence(teacher, model) == silent.evidence(teacher, model)
    assert {(total, text) for _, total, text in heard} == {(8000, "resamples of AUROC")}
    assert max(done for done, _, _ in heard) == 8000
