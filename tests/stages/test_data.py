"""What ``[data]`` may say, and what is said of a test split before anything is judged by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlx_deploy.config import Config, Data, Gate, load_config
from dlx_deploy.errors import ConfigError, DataError
from dlx_deploy.runtime.statistics.drops import non_inferiority
from dlx_deploy.runtime.statistics.floors import accuracy_lower_bound
from dlx_deploy.stages.data import notes, refuse_data, refuse_large_batches

from ..conftest import image_folder
from .support.planning import planned, texts


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.path=here"], r"data\.path is 'here', and data\.kind 'digits' takes none: it is scikit-learn's digits"),
        (["data.height=9"], r"data\.height is 9; the digits are 8 x 8: leave it out"),
        (["data.tokenizer=words"], r"data\.tokenizer is 'words', and data\.kind 'digits' has images"),
        (
            ["data.vocabulary=500"],
            r"data\.vocabulary is 500, and data\.kind 'digits' has images, which have no such key",
        ),
        (["data.mean=[0.5,0.5]"], r"data\.mean has 2 values \[0\.5, 0\.5\]; the images have 1 channels"),
    ],
)
def test_what_a_plan_refuses(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, *overrides)


def test_what_a_plan_refuses_of_other_data(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "images", {"a": 3, "b": 3})
    given = ["data.kind=imagefolder", f"data.path={folder}"]
    with pytest.raises(ConfigError, match=r"data\.height is 0; data\.kind 'imagefolder' needs the height in pixels"):
        planned(tmp_path, *given)
    assert planned(tmp_path, *given, "data.height=8")
    words = texts(tmp_path / "texts")
    assert planned(tmp_path, *words)
    with pytest.raises(ConfigError, match=r"data\.height is 8, and data\.kind 'text' has texts, which have no"):
        planned(tmp_path, *words, "data.height=8")


@pytest.mark.parametrize("section", ["teacher", "distill", "prune"])
def test_a_batch_larger_than_the_training_split_is_said_after_data(section: str) -> None:
    config = load_config(None, [f"{section}.batch_size=500"])
    with pytest.raises(DataError, match=rf"the training split has 400 images and batch_size is 500 \({section}\)"):
        refuse_large_batches(config, {}, {"train_images": 400.0})
    assert refuse_large_batches(config, {}, {"train_images": 500.0}) == ()
    assert refuse_large_batches(config, {}, {"train_texts": 5.0}) == ()
    off = load_config(None, [f"{section}.batch_size=500", f"{section}.epochs=0"])
    assert refuse_large_batches(off, {}, {"train_images": 400.0}) == ()


def split(n: int, classes: int = 10, noun: str = "images") -> dict[str, float]:
    return {f"test_{noun}": float(n), "train_images": 1000.0, "classes": float(classes)}


@pytest.mark.parametrize(("kind", "noun"), [("digits", "images"), ("docstrings", "texts")])
def test_a_split_that_can_decide_nothing(kind: str, noun: str) -> None:
    (note,) = notes(Config(data=Data(kind=kind), gate=Gate(max_drop=0.02)), {}, split(132, noun=noun))
    assert "the test split has 132 samples, too few to decide: gate.max_drop 0.02 at gate.confidence 0.95" in note
    assert "takes at least 133 if not one answer differs from the teacher's, and 215 if 2 % of the answers" in note
    assert [non_inferiority(0, 0, n, 0.02, 0.95).verdict for n in (132, 133)] == ["undecided", "pass"]


def test_a_split_of_few_groups_is_said_to_decide_nothing() -> None:
    (note,) = notes(Config(), {}, {**split(600), "test_groups": 40.0})
    assert note.startswith("the 600 test samples are of 40 groups, and those of one err alike; the gate draws whole gr")
    assert "takes about 150 groups if every answer is the teacher's, 110 more; add samples of other groups" in note
    assert not notes(Config(), {}, {**split(600), "test_groups": 150.0})
    assert not notes(Config(), {}, {**split(600), "test_groups": 600.0})


def test_a_task_that_draws_single_samples_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlx_deploy.tasks.grouped.draws_groups", lambda task: False)
    (note,) = notes(Config(), {}, {**split(600), "test_groups": 300.0})
    assert "the gate's bounds take each for one of its own, so a verdict is surer than it should be" in note


def test_a_bound_that_groups_cannot_tell_is_refused_behind_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    sure = Config(gate=Gate(confidence=0.9995))
    with pytest.raises(ConfigError, match=r"gate.confidence is 0.9995; .* no bound above 0.999: set that or less"):
        refuse_data(sure, {}, {**split(600), "test_groups": 300.0})
    assert refuse_data(sure, {}, split(600)) == ()
    monkeypatch.setattr("dlx_deploy.stages.data.draws_groups", lambda task: False)
    assert refuse_data(sure, {}, {**split(600), "test_groups": 300.0}) == ()


def test_a_split_that_may_decide_nothing() -> None:
    (note,) = notes(Config(gate=Gate(max_drop=0.02)), {}, split(214))
    assert "which may be too few" in note
    assert not notes(Config(gate=Gate(max_drop=0.02)), {}, split(215))
    assert non_inferiority(2, 2, 215, 0.02, 0.95).verdict == "pass"


@pytest.mark.parametrize(("max_drop", "confidence"), [(0.001, 0.99), (0.005, 0.9), (0.06, 0.95)])
def test_the_number_named_is_the_fewest_that_pass(max_drop: float, confidence: float) -> None:
    config = Config(gate=Gate(max_drop=max_drop, confidence=confidence, allow_chance=True))
    (note,) = notes(config, {}, split(1))
    least = int(note.partition("takes at least ")[2].partition(" ")[0])
    verdicts = [non_inferiority(0, 0, n, max_drop, confidence).verdict for n in (least - 1, least)]
    assert verdicts == ["undecided", "pass"]


@pytest.mark.parametrize("max_drop", [0.0, 1e-300])
def test_no_drop_at_all_cannot_be_shown_by_an_equal(max_drop: float) -> None:
    (note,) = notes(Config(gate=Gate(max_drop=max_drop)), {}, split(50_000))
    assert "can only be shown of a network that is clearly better than its teacher; allow a drop" in note


def test_a_floor_that_no_outcome_clears() -> None:
    (note,) = notes(Config(gate=Gate(max_drop=0.9, min_accuracy=0.99)), {}, split(298))
    assert "gate.min_accuracy 0.99 at gate.confidence 0.95 takes at least 299, all of them right" in note
    assert not notes(Config(gate=Gate(max_drop=0.9, min_accuracy=0.99)), {}, split(299))


def test_a_teacher_that_cannot_be_told_from_the_largest_class() -> None:
    (note,) = notes(Config(gate=Gate(max_drop=0.9)), {}, split(4, classes=2))
    assert "the test split has 4 samples of 2 classes" in note
    assert "takes at least 5 at gate.confidence 0.95" in note
    assert accuracy_lower_bound(5, 5, 0.95) > 0.5
    assert not notes(Config(gate=Gate(max_drop=0.9)), {}, split(5, classes=2))
    assert not notes(Config(gate=Gate(max_drop=0.9, allow_chance=True)), {}, split(4, classes=2))


@pytest.mark.parametrize("budgets", [Gate(max_drop=1e-8), Gate(confidence=0.5), Gate(min_accuracy=1e-12)])
def test_odd_budgets_are_answered(budgets: Gate) -> None:
    assert all(isinstance(note, str) for note in notes(Config(gate=budgets), {}, split(2, classes=1)))
