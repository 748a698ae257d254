"""What is said of the budgets before ``verify`` runs."""

from __future__ import annotations

import pytest

from dlx_deploy.config import Config, Gate
from dlx_deploy.runtime.statistics.drops import non_inferiority
from dlx_deploy.runtime.statistics.floors import accuracy_lower_bound
from dlx_deploy.stages.data import notes as data_notes
from dlx_deploy.stages.teacher import notes as teacher_notes


def data(n: int, classes: int = 10, noun: str = "images") -> dict[str, float]:
    return {f"test_{noun}": float(n), "train_images": 1000.0, "classes": float(classes)}


@pytest.mark.parametrize("noun", ["images", "texts"])
def test_a_split_that_can_decide_nothing(noun: str) -> None:
    (note,) = data_notes(Config(gate=Gate(max_drop=0.02)), {}, data(132, noun=noun))
    assert "the test split has 132 samples, too few to decide: gate.max_drop 0.02 at gate.confidence 0.95" in note
    assert "takes at least 133 if not one answer differs from the teacher's, and 215 if 2 % of the answers" in note
    assert [non_inferiority(0, 0, n, 0.02, 0.95).verdict for n in (132, 133)] == ["undecided", "pass"]


def test_a_split_that_may_decide_nothing() -> None:
    (note,) = data_notes(Config(gate=Gate(max_drop=0.02)), {}, data(214))
    assert "which may be too few" in note
    assert not data_notes(Config(gate=Gate(max_drop=0.02)), {}, data(215))
    assert non_inferiority(2, 2, 215, 0.02, 0.95).verdict == "pass"


@pytest.mark.parametrize(("max_drop", "confidence"), [(0.001, 0.99), (0.005, 0.9), (0.06, 0.95)])
def test_the_number_named_is_the_fewest_that_pass(max_drop: float, confidence: float) -> None:
    config = Config(gate=Gate(max_drop=max_drop, confidence=confidence, allow_chance=True))
    (note,) = data_notes(config, {}, data(1))
    least = int(note.partition("takes at least ")[2].partition(" ")[0])
    verdicts = [non_inferiority(0, 0, n, max_drop, confidence).verdict for n in (least - 1, least)]
    assert verdicts == ["undecided", "pass"]


@pytest.mark.parametrize("max_drop", [0.0, 1e-300])
def test_no_drop_at_all_cannot_be_shown_by_an_equal(max_drop: float) -> None:
    (note,) = data_notes(Config(gate=Gate(max_drop=max_drop)), {}, data(50_000))
    assert "can only be shown of a network that is clearly better than its teacher; allow a drop" in note


def test_a_floor_that_no_outcome_clears() -> None:
    (note,) = data_notes(Config(gate=Gate(max_drop=0.9, min_accuracy=0.99)), {}, data(298))
    assert "gate.min_accuracy 0.99 at gate.confidence 0.95 takes at least 299, all of them right" in note
    assert not data_notes(Config(gate=Gate(max_drop=0.9, min_accuracy=0.99)), {}, data(299))


def test_a_teacher_that_cannot_be_told_from_the_largest_class() -> None:
    (note,) = data_notes(Config(gate=Gate(max_drop=0.9)), {}, data(4, classes=2))
    assert "the test split has 4 samples of 2 classes" in note
    assert "takes at least 5 at gate.confidence 0.95" in note
    assert accuracy_lower_bound(5, 5, 0.95) > 0.5
    assert not data_notes(Config(gate=Gate(max_drop=0.9)), {}, data(5, classes=2))
    assert not data_notes(Config(gate=Gate(max_drop=0.9, allow_chance=True)), {}, data(4, classes=2))


@pytest.mark.parametrize(
    ("budgets", "top1", "said"),
    [
        (Gate(), 0.12, "not clearly more than always answering the largest class (10.00 %)"),
        (Gate(), 0.2, ""),
        (Gate(allow_chance=True), 0.12, ""),
        (Gate(min_accuracy=0.9), 0.8, "under gate.min_accuracy 0.9: what is built from it will hardly pass"),
        (Gate(min_accuracy=0.9), 0.88, ""),  # not clearly under it
        (Gate(), float("nan"), ""),
    ],
)
def test_a_teacher_that_learned_nothing(budgets: Gate, top1: float, said: str) -> None:
    metrics = {"validation_top1": top1, "validation_samples": 100.0, "validation_largest_class": 0.1}
    notes = teacher_notes(Config(gate=budgets), {}, metrics)
    assert len(notes) == bool(said)
    assert said in "".join(notes)


def test_a_record_of_an_older_version_says_nothing() -> None:
    assert not teacher_notes(Config(), {}, {"validation_top1": 0.1})


@pytest.mark.parametrize("budgets", [Gate(max_drop=1e-8), Gate(confidence=0.5), Gate(min_accuracy=1e-12)])
def test_odd_budgets_are_answered(budgets: Gate) -> None:
    assert all(isinstance(note, str) for note in data_notes(Config(gate=budgets), {}, data(2, classes=1)))
