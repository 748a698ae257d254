from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.statistics.weighted import Units, weighted_drops
from dlx_deploy.runtime.tasks.class_metrics import METRICS, MetricClasses
from dlx_deploy.runtime.tasks.class_scores import auroc, balanced_accuracy, log_odds, macro_f1, top1
from dlx_deploy.runtime.tasks.judging import Judging
from dlx_deploy.runtime.tasks.task import Budgets


def drawn(
    classes: int, n: int, seed: int, lead: float = 1.0
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float64]]:
    """Labels, logits, of two classes with ties, and the weights of four resamples."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    if classes == 2:
        logits = np.round(4 * logits) / 4  # differences are exact, and some are ties
    logits[np.arange(n), labels] += lead
    return labels, logits, rng.multinomial(n, np.full(n, 1 / n), 4).astype(np.float64)


@pytest.mark.parametrize(("classes", "n"), [(2, 40), (5, 300), (12, 900)])
def test_metrics_of_weighted_samples_are_those_of_scikit_learn(classes: int, n: int) -> None:
    labels, logits, weights = drawn(classes, n, classes)
    answers = logits.argmax(axis=1)
    odds = np.exp(logits.astype(np.float64))
    shares = odds / odds.sum(axis=1, keepdims=True)
    given = {"y_score": log_odds(logits)[:, 1]} if classes == 2 else {"y_score": shares, "multi_class": "ovr"}
    for i, one in enumerate(weights):
        assert macro_f1(labels, answers)(weights)[i] == pytest.approx(
            f1_score(labels, answers, average="macro", sample_weight=one)
        )
        assert balanced_accuracy(labels, answers)(weights)[i] == pytest.approx(
            balanced_accuracy_score(labels, answers, sample_weight=one)
        )
        assert auroc(labels, log_odds(logits))(weights)[i] == pytest.approx(
            roc_auc_score(labels, sample_weight=one, **given)
        )
        assert top1(labels, answers)(weights)[i] == pytest.approx(np.average(labels == answers, weights=one))


def test_a_class_that_no_sample_is_of_does_not_count_for_either_model() -> None:
    labels, answers = np.array([0, 0, 1, 2]), np.array([0, 2, 1, 2])
    without = np.array([[1.0, 1, 1, 0]])
    assert macro_f1(labels, answers)(without) == pytest.approx(
        f1_score([0, 0, 1], [0, 2, 1], labels=[0, 1], average="macro")
    )
    assert balanced_accuracy(labels, answers)(without) == pytest.approx(0.75)


def test_log_odds_keep_apart_what_rounds_to_a_probability_of_one() -> None:
    logits = np.array([[40.0, 0.0], [60.0, 0.0], [0.0, 50.0]], np.float32)
    assert log_odds(logits)[:, 0] == pytest.approx([40, 60, -50])
    assert auroc(np.array([1, 0, 0]), log_odds(logits))(np.ones((1, 3))) == pytest.approx(0.5)


@pytest.mark.parametrize("name", METRICS)
def test_models_that_answer_alike_have_bounds_that_more_samples_narrow(name: str) -> None:
    widths = []
    for n in (60, 600):
        labels, logits, _ = drawn(3, n, 1)
        statistic = statistic_of(labels, logits, name)
        drops = METRICS[name].drops(statistic, statistic)
        low, high = drops.bounds.at(0.95)
        assert drops.drop == 0
        assert low < 0 < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 4


@pytest.mark.parametrize("name", METRICS)
def test_bounds_do_not_depend_on_the_order_of_samples(name: str) -> None:
    labels, logits, _ = drawn(3, 80, 2)
    other = logits + np.random.default_rng(3).normal(0, 0.5, logits.shape).astype(np.float32)
    order = np.random.default_rng(4).permutation(len(labels))
    seen = METRICS[name].drops(statistic_of(labels, logits, name), statistic_of(labels, other, name))
    again = METRICS[name].drops(
        statistic_of(labels[order], logits[order], name), statistic_of(labels[order], other[order], name)
    )
    assert again.bounds.uppers == pytest.approx(seen.bounds.uppers, abs=1e-12)


def test_units_that_come_twice_weigh_twice() -> None:
    """A resample that collapsed its repeats would be a subsample, and its spread too small."""
    units = Units.ordered([bytes([i]) for i in range(30)], np.arange(30), np.array([1.0]))
    (weights,) = next(units.resamples([True], 200))
    real = weights[:, :30]
    assert real.max() >= 3
    assert weights.sum(axis=1) == pytest.approx(np.full(200, 31))


def test_groups_are_drawn_whole() -> None:
    groups = np.repeat(np.arange(10), 5)
    units = Units.ordered([bytes([i]) for i in range(50)], groups, np.array([0.5, 0.5]))
    (weights,) = next(units.resamples([False], 50))
    assert units.count == 10
    assert (np.ptp(weights[:, :50].reshape(50, 10, 5), axis=2) == 0).all()


def test_samples_of_one_group_say_less_than_as_many_of_their_own() -> None:
    labels = np.zeros(200, np.int64)
    answers = np.repeat(np.arange(20) % 4 == 0, 10).astype(np.int64)
    pair = (
        top1(np.append(labels, [0, 0]), np.append(labels, [0, 1])),
        top1(np.append(labels, [0, 0]), np.append(answers, [0, 1])),
    )
    keys = [bytes([a]) for a in answers]
    alone = weighted_drops(pair, Units.ordered(keys, np.arange(200), np.array([1.0])))
    grouped = weighted_drops(pair, Units.ordered(keys, np.repeat(np.arange(20), 10), np.array([1.0])))
    assert (alone.units, grouped.units) == (200, 20)
    assert grouped.bounds.at(0.95)[1] - grouped.drop > 2 * (alone.bounds.at(0.95)[1] - alone.drop)


@pytest.mark.parametrize(
    ("name", "labels", "why"),
    [
        ("auroc", np.zeros(20, np.int64), "no value on these samples"),
        ("auroc", np.array([1] + [0] * 19), "has no value in .* of 4000 resamples"),
        ("macro_f1", np.zeros(0, np.int64), "there are no samples"),
    ],
)
def test_a_metric_without_a_value_is_refused(name: str, labels: NDArray[np.int64], why: str) -> None:
    logits = np.random.default_rng(0).normal(size=(len(labels), 2)).astype(np.float32)
    statistic = statistic_of(labels, logits, name)
    with pytest.raises(InputError, match=why):
        METRICS[name].drops(statistic, statistic)


@pytest.mark.parametrize(("name", "constant"), [("macro_f1", 0.4), ("balanced_accuracy", 0.5), ("auroc", 0.5)])
def test_what_a_constant_answer_reaches(name: str, constant: float) -> None:
    labels = np.array([0, 0, 1, 0, 0, 1])
    assert METRICS[name].constant(labels) == pytest.approx(constant)
    assert METRICS[name].value(statistic_of(labels, np.zeros((6, 2), np.float32), name)) == pytest.approx(constant)


def test_a_package_is_judged_by_its_metric_and_floor() -> None:
    outputs = MetricClasses.of(("a", "b", "c"), Judging("balanced_accuracy"))
    labels, logits, _ = drawn(3, 400, 5, lead=3)
    teacher = outputs.statistic({"logits": logits}, {"label": labels})
    columns = outputs.record({"logits": logits}, {"label": labels})
    recalled = outputs.recall(columns, {"label": labels})
    assert {name: values.tolist() for name, values in recalled.items()} == {
        name: values.tolist() for name, values in teacher.items()
    }
    seen = outputs.judge(recalled, teacher, Budgets(0.05, 0.95, 0.5), 3)
    assert seen.failure() is None
    first, *others = seen.lines("images")
    assert first.startswith("balanced accuracy: teacher ")
    assert [line.partition(" ")[0] for line in others] == ["balanced", "balanced", "3"]
    poor = outputs.judge(recalled, {**teacher, "answer": np.zeros_like(labels)}, Budgets(0.05, 0.95), 0).failure()
    assert poor is not None
    assert poor.exit_code == 3
    assert "balanced accuracy drop" in str(poor)


def test_scores_travel_only_where_the_metric_reads_them() -> None:
    names = {
        metric: [column.name for column in MetricClasses.of(("a", "b"), Judging(metric)).columns] for metric in METRICS
    }
    assert names == {
        "macro_f1": ["label", "teacher"],
        "balanced_accuracy": ["label", "teacher"],
        "auroc": ["label", "teacher", "logits"],
    }
    with pytest.raises(InputError, match=r"metric is 'f1'; must be one of 'macro_f1', .*, or left out: top-1"):
        MetricClasses.of(("a", "b"), Judging("f1"))


def statistic_of(labels: NDArray[np.int64], logits: NDArray[np.float32], name: str) -> dict[str, NDArray[np.generic]]:
    outputs = MetricClasses.of(tuple("abcdefghijkl"[: logits.shape[1]]), Judging(name))
    return dict(outputs.statistic({"logits": logits}, {"label": labels}))


@pytest.mark.parametrize(("classes", "one"), [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
def test_samples_of_one_class_have_no_auroc(classes: int, one: int) -> None:
    labels = np.full(6, one, np.int64)
    logits = np.random.default_rng(0).normal(size=(6, classes)).astype(np.float32)
    statistic = {"label": labels, "logits": logits}
    with pytest.raises(InputError, match="one class"):
        METRICS["auroc"].drops(statistic, statistic)


@pytest.mark.parametrize("whole", [True, False])
def test_auroc_counts_pairs_by_weight_and_ties_half(whole: bool) -> None:
    """Scores of few values, so most pairs of a positive and another tie; each pair counted by itself."""
    rng = np.random.default_rng(3)
    labels, scores = rng.integers(0, 3, 40), rng.integers(0, 4, (40, 3)).astype(np.float64)
    weights = rng.integers(0, 4, (5, 40)) + (0.0 if whole else 0.25)
    found = auroc(labels, scores)(weights)
    for row, value in zip(weights, found, strict=True):
        areas = []
        for k in range(3):
            mine, others = labels == k, labels != k
            above = np.sign(scores[mine, k][:, None] - scores[others, k][None, :]) / 2 + 0.5
            pairs = row[mine][:, None] * row[others][None, :]
            areas.append((pairs * above).sum() / pairs.sum())
        assert value == pytest.approx(np.mean(areas), abs=1e-12)
