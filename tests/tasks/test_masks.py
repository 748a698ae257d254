"""Masks as answers: what training may do with them, and how they are judged beside a teacher's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from dlx_deploy.config import Data, Gate, Training
from dlx_deploy.errors import ConfigError
from dlx_deploy.pipeline.digest import canonical_json
from dlx_deploy.runtime.statistics.groups import GroupsVerdict
from dlx_deploy.runtime.statistics.resampled import LEVELS
from dlx_deploy.runtime.tasks.mask_verdicts import MaskVerification
from dlx_deploy.runtime.tasks.masks import Masks as OnDevice
from dlx_deploy.tasks import task_for
from dlx_deploy.tasks.flips import flips_of
from dlx_deploy.tasks.grouped import bounds_in
from dlx_deploy.tasks.masks import Masks
from dlx_deploy.tasks.verification import Accuracy, Row, read_accuracy

COMPARISON = Masks().comparison
DEVICE = OnDevice(("a", "b", "c"), (6, 5))


def scenes(count: int, seed: int = 0) -> np.ndarray:
    masks = np.random.default_rng(seed).integers(0, 3, (count, 6, 5), np.uint8)
    masks[:, 0] = 255
    return masks


def counts(masks: np.ndarray, wrong: float, seed: int) -> dict[str, np.ndarray]:
    """The statistic of a model that answers so large a share of the pixels wrong."""
    rng = np.random.default_rng(seed)
    answers = np.where(rng.random(masks.shape) < wrong, (masks + 1) % 3, masks) % 3
    logits = np.eye(3, dtype=np.float32)[answers].transpose(0, 3, 1, 2)
    return dict(DEVICE.statistic({"logits": logits}, {"mask": masks}))


def verified(n: int, teacher: float, shipped: float) -> Accuracy:
    """A verification of two models that answer so many pixels wrong."""
    masks = scenes(n)
    statistics = {"teacher": counts(masks, teacher, 1), "quantized": counts(masks, shipped, 2)}
    rows = tuple(
        Row(
            model=name,
            score=COMPARISON.score(of),
            evidence=COMPARISON.evidence(statistics["teacher"], of),
            size_bytes=1,
            macs=1,
            parameters=1,
        )
        for name, of in statistics.items()
    )
    facts = COMPARISON.facts({"mask": masks})
    return Accuracy(metric="miou", title="mIoU", judge="native", n=n, shipped="quantized", rows=rows, facts=facts)


def test_a_build_and_a_device_say_the_same() -> None:
    """From the file as from the statistic, at any confidence that can be told."""
    from dlx_deploy.runtime.tasks.task import Budgets

    masks, accuracy = scenes(150), verified(150, 0.05, 0.08)
    teacher, shipped = counts(masks, 0.05, 1), counts(masks, 0.08, 2)
    for confidence in (0.5, 0.9, 0.95, 0.97, 0.999):
        for max_drop, floor in ((0.02, 0.0), (0.1, 0.8), (0.2, 0.95)):
            gates = COMPARISON.judge(Gate(max_drop=max_drop, confidence=confidence, min_accuracy=floor), accuracy)
            seen = DEVICE.judge(teacher, shipped, Budgets(max_drop, confidence, floor), 0)
            assert (gates[0].verdict, gates[0].value, gates[0].bound) == (
                seen.verdict.verdict, seen.verdict.drop, seen.verdict.upper,
            )  # fmt: skip
            assert (gates[1].gate, gates[1].verdict) == (
                ("min_accuracy", seen.floor.verdict) if seen.floor else ("chance", "pass")
            )


def test_each_class_is_held_against_a_budget_by_a_build_and_a_device_alike() -> None:
    """A class is lost on one image in five, which mean IoU dilutes; one that 20 images of 200 show decides nothing."""
    from dlx_deploy.runtime.tasks.task import Budgets

    sums = np.tile(np.array([[10, 0, 0], [10, 0, 0], [0, 0, 0]], np.int64), (200, 1, 1))
    worse = sums.copy()
    worse[::5, 1] = [0, 0, 10]
    worse[::5, 0] = [10, 10, 0]
    teacher, shipped = {"counts": sums}, {"counts": worse}

    def judged(model: dict[str, np.ndarray], limit: float) -> tuple[GroupsVerdict, MaskVerification]:
        row = Row(
            model="quantized",
            score=COMPARISON.score(model),
            evidence=COMPARISON.evidence(teacher, model),
            size_bytes=1,
            macs=1,
            parameters=1,
        )
        accuracy = Accuracy(
            metric="miou",
            title="mIoU",
            judge="native",
            n=200,
            shipped="quantized",
            rows=(replace(row, model="teacher"), row),
            facts={"constant": 0.5},
            class_scores=COMPARISON.class_scores(teacher, model, DEVICE.labels),
            class_bounds=COMPARISON.class_bounds(teacher, model, 3),
        )
        gates = COMPARISON.judge(
            Gate(max_class_drop=limit, allow_chance=True),
            msgspec.json.decode(msgspec.json.encode(accuracy), type=Accuracy),
        )
        seen = DEVICE.judge(teacher, model, Budgets(0.02, 0.95, max_class_drop=limit), 0)
        assert seen.class_budget is not None
        assert (gates[1].gate, gates[1].metric) == ("class_drop", "class_miou_drop")
        assert (gates[1].verdict, gates[1].value) == (
            seen.class_budget.verdict, seen.class_budget.cause.group.drop,
        )  # fmt: skip
        assert gates[1].text.startswith(f"quantized: {seen.class_budget.explain()}")
        return seen.class_budget, seen

    failed, seen = judged(shipped, 0.05)
    assert failed.verdict == "fail"
    assert (
        "2 of 3 classes drop too far at 0.95 confidence (Holm, over 3): 'b' 20.00 points (IoU 100.00 %"
        in failed.explain()
    )
    assert seen.to_dict()["class_budget"]["groups"][0]["group"]["name"] == "b"
    assert failed.explain() in seen.lines("images")
    sums[:, 2] = [10, 0, 0]
    assert judged(teacher, 0.05)[0].verdict == "pass"
    sums[20:, 2] = 0
    rare, _ = judged(teacher, 0.05)
    assert (rare.verdict, [one.verdict for one in rare.groups].count("pass")) == ("undecided", 2)
    assert "'c' 0.00 points (IoU 100.00 % to 100.00 %, shown by 20 samples)" in rare.explain()
    (note,) = COMPARISON.split_notes(Gate(max_drop=0.1, max_class_drop=0.05), 100, {})
    assert "gate.max_class_drop 0.05 at gate.confidence 0.95 takes about 120 that show the class" in note


def test_a_class_is_drawn_by_whole_groups() -> None:
    sums = np.tile(np.array([[10, 0, 0]], np.int64), (600, 1, 1))
    worse = sums.copy()
    worse[:10] = [[0, 10, 10]]
    uppers = []
    for own in ({}, {"group": np.arange(600) // 10}):
        (bounds,) = COMPARISON.class_bounds({"counts": sums, **own}, {"counts": worse, **own}, 1)
        uppers.append(bounds.at(0.95)[1])
    assert uppers[1] > 1.5 * uppers[0]
    (score,) = COMPARISON.class_scores({"counts": sums, **own}, {"counts": worse, **own}, ["a"])
    assert (score.samples, score.noun) == (60, "groups")


def test_gates_have_names_values_and_remedies(tmp_path: Path) -> None:
    accuracy = verified(200, 0.02, 0.3)
    (tmp_path / "accuracy.json").write_bytes(canonical_json(accuracy))
    read = read_accuracy({"accuracy.json": tmp_path / "accuracy.json"})
    assert read == accuracy
    drop, chance = COMPARISON.judge(Gate(), read)
    assert (drop.gate, drop.metric, drop.verdict, chance.gate, chance.metric, chance.verdict) == (
        "accuracy", "miou_drop", "fail", "chance", "teacher_miou", "pass",
    )  # fmt: skip
    assert drop.text.endswith(
        "budget 2.00 points: missed; to improve: train and distill longer, prune less, or raise gate.max_drop"
    )
    assert chance.limit == pytest.approx(accuracy.facts["constant"])
    _, floor = COMPARISON.judge(Gate(min_accuracy=0.9), read)
    assert (floor.gate, floor.metric, floor.verdict) == ("min_accuracy", "miou", "fail")
    assert floor.text.startswith("quantized: mIoU is ")
    assert floor.text.endswith(
        "floor 90.00 %: missed; train a better teacher, compress less, or lower gate.min_accuracy"
    )
    (low,) = COMPARISON.judge(Gate(min_accuracy=0.1), read)[1:]
    assert "always giving one answer reaches" in low.text
    assert COMPARISON.drop(read.row("quantized"), read, 0.95).upper == drop.bound
    assert COMPARISON.drop(read.row("teacher"), read, 0.95).value == 0


def test_a_teacher_that_knows_nothing_is_refused() -> None:
    """Two answers at random agree as well as two good ones; so what cannot be told from one class is refused."""
    nothing = verified(100, 2 / 3, 2 / 3)
    results = {gate.gate: gate for gate in COMPARISON.judge(Gate(max_drop=0.3), nothing)}
    assert results["chance"].verdict == "pass"  # wrong by a rule is not at random: 1/3 of each class is right
    blind = {"teacher": np.zeros((80, 6, 5), np.uint8)}
    masks = scenes(80)
    logits = np.eye(3, dtype=np.float32)[blind["teacher"]].transpose(0, 3, 1, 2)
    statistic = dict(DEVICE.statistic({"logits": logits}, {"mask": masks}))
    row = Row(
        model="teacher",
        score=COMPARISON.score(statistic),
        evidence=COMPARISON.evidence(statistic, statistic),
        size_bytes=1,
        macs=1,
        parameters=1,
    )
    facts = COMPARISON.facts({"mask": masks})
    same = Accuracy(metric="miou", title="mIoU", judge="native", n=80, shipped="teacher", rows=(row,), facts=facts)
    (_, chance) = COMPARISON.judge(Gate(max_drop=0.3), same)
    assert (chance.verdict, "not clearly better than always giving one answer" in chance.text) == ("fail", True)
    assert len(COMPARISON.judge(Gate(max_drop=0.3, allow_chance=True), same)) == 1
    (note,) = COMPARISON.shipped_notes(Gate(), same)
    assert "not clearly more than always giving one answer" in note
    assert COMPARISON.shipped_notes(Gate(allow_chance=True), same) == []
    assert COMPARISON.shipped_notes(Gate(), verified(80, 0.02, 0.02)) == []


def test_notes_before_anything_is_verified() -> None:
    assert COMPARISON.split_notes(Gate(max_drop=0.02), 400, {}) == []
    (few,) = COMPARISON.split_notes(Gate(max_drop=0.02), 200, {})
    assert "takes about 300 if every answer is the teacher's" in few
    (never,) = COMPARISON.split_notes(Gate(max_drop=0.0), 200, {})
    assert "clearly better than its teacher" in never
    metrics = {"validation_miou": 0.3, "validation_constant": 0.31, "validation_samples": 80.0}
    (chance,) = COMPARISON.teacher_notes(Gate(), metrics)
    assert "no better than always giving one answer (31.00 %)" in chance
    (low,) = COMPARISON.teacher_notes(Gate(min_accuracy=0.5), metrics)
    assert "under gate.min_accuracy 0.5" in low
    assert COMPARISON.teacher_notes(Gate(), {**metrics, "validation_miou": 0.6}) == []
    assert COMPARISON.teacher_notes(Gate(), {}) == []


def test_agreement_takes_as_many_images_as_the_note_says() -> None:
    masks = scenes(300)
    same = counts(masks, 0.0, 1)
    evidence = COMPARISON.evidence(same, same)
    upper = evidence["drop_uppers"]
    assert isinstance(upper, tuple)
    assert upper[LEVELS.index(0.95)] == pytest.approx(0.02, abs=0.003)


def test_a_confidence_that_resampling_cannot_tell_is_refused_in_a_plan() -> None:
    COMPARISON.check(Gate(confidence=0.999))
    with pytest.raises(ConfigError, match=r"gate\.confidence is 0\.9995; mIoU is judged by resampling .* above 0\.999"):
        COMPARISON.check(Gate(confidence=0.9995))
    COMPARISON.check(Gate(max_flips=0.1))


def test_what_training_cannot_do_with_masks() -> None:
    task = task_for(Data(kind="scenes"))
    task.check_training("teacher", Training(loss="cross-entropy+dice", flip=True, shift_px=4))
    for key in ("mixup", "cutmix", "rand_augment"):
        with pytest.raises(ConfigError, match=rf"teacher\.{key} is 1.*leaves their masks as they are: set 0"):
            task.check_training("teacher", Training(**{key: 1}))  # type: ignore[arg-type]


def test_golden_answers_stay_small() -> None:
    small, large = np.zeros((20, 3, 8, 8), np.float32), np.zeros((4, 21, 512, 512), np.float32)
    assert Masks().golden({"logits": small}, 0.01, 8).tolist() == list(range(8))
    assert Masks().golden({"logits": large}, 0.01, 8).tolist() == [0]


def test_a_plan_of_masks_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from dlx_deploy.config import Data; from dlx_deploy.tasks import find_task\n"
        "task = find_task('semantic-segmentation'); task.inputs.check(Data(kind='scenes'));"
        "task.answers.comparison; task.files(Data(kind='scenes')); task.classes(Data(kind='scenes'))\n"
        "print([m for m in ('numpy', 'torch', 'onnx', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("grouped", [False, True])
def test_masks_that_changed_are_held_by_a_build_and_a_device_alike(grouped: bool) -> None:
    """Of 300 images 12 lose a fifth of their pixels' IoU and 3 gain it; half a point everywhere is no change."""
    from dlx_deploy.runtime.tasks.task import Budgets

    sums = np.tile(np.array([[400, 100, 100], [400, 100, 100], [0, 0, 0]], np.int64), (300, 1, 1))
    other = sums.copy()
    other[:, 0] += [-3, 0, 3]
    other[:12, :2] = [300, 200, 200]
    other[12:15, :2] = [480, 20, 20]
    groups = {"group": np.arange(300) // 3} if grouped else {}
    teacher, model = {"counts": sums, **groups}, {"counts": other, **groups}
    evidence = COMPARISON.evidence(teacher, model)
    row = Row(model="quantized", score=COMPARISON.score(model), evidence=evidence, size_bytes=1, macs=1, parameters=1)
    own = replace(row, model="teacher", score=COMPARISON.score(teacher))
    facts = {"constant": 0.5}
    accuracy = Accuracy(
        metric="miou", title="mIoU", judge="native", n=300, shipped="quantized", rows=(own, row), facts=facts
    )
    kept = msgspec.json.decode(msgspec.json.encode(accuracy), type=Accuracy)
    for most, verdict in ((0.2, "pass"), (0.02, "undecided" if grouped else "fail"), (0.06, "undecided")):
        gate = next(g for g in COMPARISON.judge(Gate(max_flips=most, allow_chance=True), kept) if g.gate == "flips")
        seen = DEVICE.judge(teacher, model, Budgets(0.02, 0.95, max_flips=most), 0)
        assert seen.flip_budget is not None
        assert (gate.verdict, seen.flip_budget.verdict) == (verdict, verdict), most
        assert gate.bound in (seen.flip_budget.upper, seen.flip_budget.lower)
        assert gate.text.startswith(f"quantized: {seen.flip_budget.explain()}")
    said = (
        "the masks of 15 of 300 images changed by more than 10.00 points of their own mIoU (5.00 %): 12 for the worse"
    )
    assert said in "\n".join(DEVICE.judge(teacher, model, Budgets(0.02, 0.95), 0).lines("images"))


@pytest.mark.parametrize("grouped", [False, True])
def test_masks_that_cannot_change_are_not_counted(grouped: bool) -> None:
    """Of 120 images 60 are ignored whole; of the others 6 changed, which is one in ten and not one in twenty."""
    from dlx_deploy.runtime.tasks.task import Budgets

    sums = np.tile(np.array([[400, 100, 100], [400, 100, 100], [0, 0, 0]], np.int64), (120, 1, 1))
    other = sums.copy()
    other[:6, :2] = [300, 200, 200]
    sums[60:], other[60:] = 0, 0
    groups = {"group": np.arange(120) // 2} if grouped else {}
    teacher, model = {"counts": sums, **groups}, {"counts": other, **groups}
    evidence = COMPARISON.evidence(teacher, model)
    seen = DEVICE.judge(teacher, model, Budgets(0.02, 0.95, max_flips=0.1), 0).flip_budget
    assert seen is not None
    assert (seen.flips.changed, seen.flips.samples, seen.verdict) == (6, 60, "undecided")
    alone = {"counts": sums[:60], **{name: of[:60] for name, of in groups.items()}}
    own = {"counts": other[:60], **{name: of[:60] for name, of in groups.items()}}
    same = DEVICE.judge(alone, own, Budgets(0.02, 0.95, max_flips=0.1), 0).flip_budget
    assert seen == same
    row = Row(model="quantized", score=0.5, evidence=evidence, size_bytes=1, macs=1, parameters=1)
    assert flips_of(row, 120) == seen.flips
    if grouped:
        assert bounds_in(row, "flip_") == bounds_in(replace(row, evidence=COMPARISON.evidence(alone, own)), "flip_")
