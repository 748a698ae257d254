from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from dlx_deploy.runtime.commands.verify import teacher_outputs
from dlx_deploy.runtime.commands.verify import verify_package as judged
from dlx_deploy.runtime.commands.verify_view import VerifyView
from dlx_deploy.runtime.commands.views import PackageView
from dlx_deploy.runtime.errors import BudgetMissed, InputError, PackageError, TeacherNeeded
from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import assemble, make_reference, open_package
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.statistics.resampled import DropVerdict, FloorVerdict
from dlx_deploy.runtime.tasks.class_metrics import METRICS
from dlx_deploy.runtime.tasks.class_verdicts import Verification
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.judging import Judging, MetricVerification
from dlx_deploy.runtime.tasks.judging import judged as judged_by
from dlx_deploy.runtime.tasks.labelled import load_labelled_images, load_labelled_texts


def verify_package(
    predictor: Predictor, images: np.ndarray, labels: np.ndarray, teacher: np.ndarray | None = None, **budgets: Any
) -> Verification:
    """``teacher``: its answers, int[N]."""
    outputs = None if teacher is None else {"logits": np.eye(3, dtype=np.float32)[teacher]}
    own = replace(predictor.package.budgets, **budgets)
    result = judged(predictor, {"images": images}, {"label": labels}, own, outputs).judgement
    assert isinstance(result, Verification)
    return result


def write_folder(root: Path, images: np.ndarray, labels: np.ndarray, names: list[str]) -> Path:
    for i, (image, k) in enumerate(zip(images, labels, strict=True)):
        folder = root / names[k]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:03}.png")
    return root


def test_a_faithful_package_passes(predictor: Predictor, data: Any) -> None:
    result = verify_package(predictor, *data)
    assert (result.verdict.verdict, result.b, result.c, result.relabelled) == ("pass", 0, 0, 0)
    assert (result.accuracy, result.teacher_accuracy) == (1.0, 1.0)
    assert (result.verdict.max_drop, result.verdict.confidence) == (0.02, 0.95)
    assert json.loads(json.dumps(result.to_dict()))["verdict"]["images"] == 300


def test_a_list_that_groups_samples_has_whole_groups_drawn(predictor: Predictor, data: Any) -> None:
    images, labels = data
    given = {"label": labels, "group": np.arange(300) // 10}
    result = judged(predictor, {"images": images}, given)
    assert result.judgement.to_dict()["verdict"]["noun"] == "groups"
    assert result.statistic["group"].tolist() == given["group"].tolist()
    alone = judged(predictor, {"images": images}, {"label": labels, "group": np.arange(300)})
    assert alone.judgement.to_dict() == verify_package(predictor, images, labels).to_dict()
    assert "group" not in alone.statistic


def test_a_damaged_package_fails(make_predictor: Any, helpers: Any, data: Any) -> None:
    result = verify_package(make_predictor(model=helpers.tiny_model(shift=1)), *data)
    assert (result.verdict.verdict, result.b, result.c, result.accuracy) == ("fail", 300, 0, 0.0)
    assert isinstance(result.verdict.failure(), BudgetMissed)


def test_too_few_images_are_undecided(predictor: Predictor, data: Any) -> None:
    images, labels = data
    result = verify_package(predictor, images[:50], labels[:50])
    assert (result.verdict.verdict, result.verdict.images_needed) == ("undecided", 133)


def test_options_override_the_package_s_budgets(predictor: Predictor, data: Any) -> None:
    verdict = verify_package(predictor, *data, max_drop=0.001, confidence=0.9).verdict
    assert (verdict.verdict, verdict.max_drop, verdict.confidence) == ("undecided", 0.001, 0.9)
    with pytest.raises(InputError, match="the confidence is 2"):
        verify_package(predictor, *data, confidence=2)


def test_pairs_by_pixels_whatever_the_order(make_predictor: Any, data: Any, helpers: Any) -> None:
    images, labels = data
    teacher = labels.copy()
    teacher[:30] = (labels[:30] + 1) % 3  # the teacher is wrong on 30 images
    predictor = make_predictor(reference=helpers.tiny_reference(images, labels, teacher))
    order = np.random.default_rng(0).permutation(300)
    result = verify_package(predictor, images[order], labels[order])
    assert (result.b, result.c, result.teacher_accuracy) == (0, 30, 0.9)
    assert result.verdict.drop == pytest.approx(-0.1)


def test_unknown_images_need_the_teacher(predictor: Predictor, data: Any, helpers: Any) -> None:
    images, labels = data
    fresh, fresh_labels = helpers.make_images(200, seed=9)
    mixed, both = np.concatenate([images[1:], fresh]), np.concatenate([labels[1:], fresh_labels])
    with pytest.raises(
        TeacherNeeded,
        match=r"200 of 499 images \(first: number 299, number 300, .*, …\) are not in the pack.*--teacher model\.onnx",
    ):
        verify_package(predictor, mixed, both)
    teacher = (both + (np.arange(499) < 7)) % 3
    result = verify_package(predictor, mixed, both, teacher)
    assert (result.verdict.verdict, result.b, result.c) == ("pass", 0, 7)


def test_changed_labels_are_counted(predictor: Predictor, data: Any) -> None:
    images, labels = data
    changed = labels.copy()
    changed[:3] = (changed[:3] + 1) % 3
    result = verify_package(predictor, images, changed)
    assert (result.relabelled, result.accuracy) == (3, 0.99)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], "there are 4 images and 2 labels"),
        ([0, 1, 2, 3], "labels run from 0 to 3; the package has 3 classes, 0 to 2"),
        ([0, 1, 2, -1], "labels run from -1 to 2"),
        ([0.5, 1.5, 2.5, 0.5], r"labels are float64\[4\]; must be whole numbers \[N\], the class of each of the i"),
        ([0.0, 1.0, 2.0, np.nan], r"labels are float64\[4\]"),
        ([[0], [1], [2], [0]], r"labels are int64\[4, 1\]"),
        (np.eye(4, 3, dtype=np.uint8), r"labels are uint8\[4, 3\]"),
        ([True, False, True, False], r"labels are bool\[4\]"),
        (["0", "1", "2", "0"], r"labels are <U1\[4\]"),
        (1, r"labels are int64\[\]"),
    ],
)
def test_labels_that_do_not_fit(predictor: Predictor, data: Any, labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        verify_package(predictor, data[0][:4], np.array(labels))


def test_no_images_and_too_few_answers(predictor: Predictor, data: Any) -> None:
    images, labels = data
    with pytest.raises(InputError, match="there are 0 images and 0 labels"):
        verify_package(predictor, images[:0], labels[:0])
    with pytest.raises(InputError, match="there are 3 answers of the teacher for 300 images"):
        verify_package(predictor, images, labels, np.zeros(3, np.int64))


def teacher_top1(path: Path, images: np.ndarray, helpers: Any) -> np.ndarray:
    return teacher_outputs(path, helpers.tiny_task(), {"images": images}, threads=1)["logits"].argmax(axis=1)


def test_answers_of_a_teacher(tmp_path: Path, helpers: Any, data: Any) -> None:
    path = tmp_path / "teacher.onnx"
    path.write_bytes(helpers.tiny_model(shift=2))
    np.testing.assert_array_equal(teacher_top1(path, data[0], helpers), (data[1] + 2) % 3)
    other = onnx.load_model_from_string(helpers.tiny_model(shift=2))  # by its place where the name is another
    other.graph.node[-1].output[0] = other.graph.output[0].name = "scores"
    path.write_bytes(other.SerializeToString())
    np.testing.assert_array_equal(teacher_top1(path, data[0], helpers), (data[1] + 2) % 3)


def test_teacher_that_does_not_fit(tmp_path: Path, helpers: Any, data: Any) -> None:
    path = tmp_path / "teacher.onnx"
    with pytest.raises(InputError, match=r"teacher\.onnx: the teacher cannot be read .*give an \.onnx file"):
        teacher_top1(path, data[0], helpers)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"teacher\.onnx: ONNX Runtime \S+ cannot load the model: it is no ONNX model"):
        teacher_top1(path, data[0], helpers)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"teacher\.onnx: ONNX Runtime \S+ cannot load the model"):
        teacher_top1(path, data[0], helpers)
    path.write_bytes(helpers.tiny_model())
    with pytest.raises(
        InputError, match=r"the teacher reads \[\('images', 'tensor\(uint8\)', \(6, 4, 3\)\)\].*\(8, 8, 1\)"
    ):
        teacher_top1(path, np.zeros((5, 8, 8, 1), np.uint8), helpers)
    path.write_bytes(helpers.tiny_model(batch=2))
    with pytest.raises(InputError, match="at batch 2; must read"):
        teacher_top1(path, data[0], helpers)


def test_teacher_whose_answers_cannot_be_used(tmp_path: Path, helpers: Any, data: Any) -> None:
    path = tmp_path / "teacher.onnx"
    path.write_bytes(helpers.tiny_model(classes=4))
    with pytest.raises(InputError, match=r"teacher\.onnx: the teacher gives \[300, 4\]; must give \[300, 3\]"):
        teacher_top1(path, data[0], helpers)
    model = onnx.ModelProto.FromString(helpers.tiny_model())
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0]) * np.float32("nan")
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "weights"))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="the teacher gives NaN or infinite logits; all must be finite"):
        teacher_top1(path, data[0], helpers)
    model.graph.node[2].op_type = "Reshape"
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.array([7, 3], np.int64), "weights"))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"teacher\.onnx: the teacher cannot be run: "):
        teacher_top1(path, data[0], helpers)


@pytest.mark.parametrize("inside", ["", "test"])
def test_folder_of_classes(tmp_path: Path, data: Any, helpers: Any, inside: str) -> None:
    images, labels = data[0][:9], data[1][:9]
    write_folder(tmp_path / inside, images, labels, helpers.labels)
    (tmp_path / inside / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / inside / "cat" / "._0.png").write_text("not an image")
    (tmp_path / inside / ".git").mkdir()
    loaded, targets = load_labelled_images(tmp_path, helpers.labels, Framing(*helpers.shape))
    classes = targets["label"]
    assert classes.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert classes.dtype == np.int64
    np.testing.assert_array_equal(loaded, images[np.argsort(labels, kind="stable")])


def test_folder_of_one_class_is_enough(tmp_path: Path, data: Any, helpers: Any) -> None:
    write_folder(tmp_path, data[0][1:2], data[1][1:2], helpers.labels)
    assert load_labelled_images(tmp_path, helpers.labels, Framing(*helpers.shape))[1]["label"].tolist() == [1]


def test_folders_that_cannot_be_used(tmp_path: Path, data: Any, helpers: Any) -> None:
    def load() -> None:
        load_labelled_images(tmp_path / "data", helpers.labels, Framing(*helpers.shape))

    with pytest.raises(InputError, match="data: no such folder; give one that holds a folder of images per class"):
        load()
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match=r"data: holds no class folders with images; .*one of: cat, dog, owl"):
        load()
    write_folder(tmp_path / "data", data[0][:1], data[1][:1], helpers.labels)
    (tmp_path / "data" / "dogs").mkdir()
    with pytest.raises(InputError, match="dogs: 'dogs' is no class of the package; nearest: 'dog'"):
        load()
    (tmp_path / "data" / "dogs").rename(tmp_path / "data" / "owl")
    with pytest.raises(InputError, match=r"owl: the class has no images \(\.bmp.*; add some or remove the folder"):
        load()
    (tmp_path / "data" / "owl" / "a.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"owl/a\.png: cannot be decoded as an image"):
        load()


@pytest.mark.parametrize("name", ["train", "Train"])
def test_training_images_alone_verify_nothing(tmp_path: Path, data: Any, helpers: Any, name: str) -> None:
    write_folder(tmp_path / name, *data, helpers.labels)
    with pytest.raises(InputError, match="has a train folder and no test folder; a package is verified on what it was"):
        load_labelled_images(tmp_path, helpers.labels, Framing(*helpers.shape))
    assert load_labelled_images(tmp_path / name, helpers.labels, Framing(*helpers.shape))[0].shape[0] == len(data[0])


def test_class_that_resembles_none(tmp_path: Path, data: Any, helpers: Any) -> None:
    write_folder(tmp_path, data[0][:1], data[1][:1], ["zebrafish"])
    with pytest.raises(InputError, match="'zebrafish' is no class of the package; the package knows: cat, dog, owl"):
        load_labelled_images(tmp_path, helpers.labels, Framing(*helpers.shape))


def write_arrays(folder: Path, images: np.ndarray, labels: np.ndarray, classes: list[str]) -> None:
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps({"schema": 1, "classes": classes}))
    np.save(folder / "test.images.npy", images)
    np.save(folder / "test.labels.npy", labels)


def test_data_folder_of_arrays(tmp_path: Path, predictor: Predictor, data: Any, helpers: Any) -> None:
    write_arrays(tmp_path / "data", *data, helpers.labels)
    images, targets = predictor.package.task.load_labelled(tmp_path / "data")
    assert verify_package(predictor, images, targets["label"]).verdict.verdict == "pass"


def test_data_folder_that_cannot_be_used(tmp_path: Path, predictor: Predictor, data: Any) -> None:
    write_arrays(tmp_path / "data", *data, ["cat", "dog", "eel"])
    with pytest.raises(InputError, match="its classes are cat, dog, eel; the package's are cat, dog, owl"):
        predictor.package.task.load_labelled(tmp_path / "data")
    (tmp_path / "data" / "test.labels.npy").unlink()
    with pytest.raises(InputError, match="not a readable data folder"):
        predictor.package.task.load_labelled(tmp_path / "data")
    (tmp_path / "data" / "dataset.json").write_text("[]")
    with pytest.raises(InputError, match=r"not a readable data folder \(TypeError: dataset.json holds no table\)"):
        predictor.package.task.load_labelled(tmp_path / "data")


@pytest.mark.parametrize("held", ['{"a text": 1}', '["a text", 2]'])
def test_a_data_folder_whose_texts_are_none(tmp_path: Path, held: str) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"classes": ["bad", "good"]}))
    (tmp_path / "test.texts.json").write_text(held)
    with pytest.raises(InputError, match=r"\(TypeError: test.texts.json holds no list of texts\)"):
        load_labelled_texts(tmp_path, ["bad", "good"])


@pytest.mark.parametrize(("floor", "verdict"), [(0.98, "pass"), (0.995, "undecided")])
def test_a_floor_travels_with_the_package(
    make_predictor: Any, helpers: Any, data: Any, floor: float, verdict: str
) -> None:
    budgets = {"max_drop": 0.02, "confidence": 0.95, "max_latency_p90_ms": 0, "min_accuracy": floor}
    result = verify_package(make_predictor(metadata=helpers.metadata(budgets=budgets)), *data)
    assert result.floor is not None
    assert (result.floor.verdict, result.floor.samples, result.floor.floor) == (verdict, 300, floor)
    assert (result.failure() is None) is (verdict == "pass")
    assert json.loads(json.dumps(result.to_dict()))["floor"]["verdict"] == verdict


def test_an_older_package_has_no_floor_and_can_be_given_one(predictor: Predictor, data: Any) -> None:
    result = verify_package(predictor, *data)
    assert (predictor.package.budgets.min_accuracy, result.floor) == (0.0, None)
    held = verify_package(predictor, *data, min_accuracy=0.9)
    assert held.floor is not None
    assert held.floor.verdict == "pass"
    with pytest.raises(InputError, match=r"the least accuracy is 1\.5; must be at least 0 and under 1"):
        verify_package(predictor, *data, min_accuracy=1.5)


def test_a_missed_floor_comes_before_an_undecided_drop(make_predictor: Any, helpers: Any, data: Any) -> None:
    images, labels = data[0][:50], data[1][:50]
    budgets = {"max_drop": 0.02, "confidence": 0.95, "max_latency_p90_ms": 0, "min_accuracy": 0.9}
    broken = make_predictor(
        model=helpers.tiny_model(shift=1),
        metadata=helpers.metadata(budgets=budgets),
        reference=helpers.tiny_reference(*data, (data[1] + 1) % 3),  # the teacher is as broken, so there is no drop
    )
    result = verify_package(broken, images, labels)
    assert (result.verdict.verdict, result.floor and result.floor.verdict) == ("undecided", "fail")
    assert isinstance(result.failure(), BudgetMissed)


def test_a_floor_out_of_range_is_refused_at_load(make_predictor: Any, helpers: Any) -> None:
    budgets = {"max_drop": 0.02, "confidence": 0.95, "max_latency_p90_ms": 0, "min_accuracy": 5}
    with pytest.raises(PackageError, match=r"budgets\.min_accuracy is 5\.0; must be at least 0 and under 1"):
        make_predictor(metadata=helpers.metadata(budgets=budgets))


def test_samples_beside_the_whole_test_split_are_passed_over(predictor: Predictor, data: Any) -> None:
    images, labels = data
    more = np.concatenate([images[:1] ^ 1, images, images[:5] ^ 2])
    wrong = np.concatenate([labels[:1], labels, labels[:5]])
    assert verify_package(predictor, more, wrong) == verify_package(predictor, images, labels)
    left = judged(predictor, {"images": more}, {"label": wrong}).passed_over
    assert left == (0, *range(len(more) - 5, len(more)))
    with pytest.raises(InputError, match=r"6 of \d+ images .* are not in the package's reference table"):
        verify_package(predictor, np.delete(more, 3, 0), np.delete(wrong, 3))


def test_changed_answers_are_counted_and_may_have_a_budget(make_predictor: Any, helpers: Any, data: Any) -> None:
    """The teacher says another class on ten images, of which it has four right."""
    images, labels = data
    teacher = labels.copy()
    labels = labels.copy()
    labels[:4], teacher[:4] = (labels[:4] + 1) % 3, (labels[:4] + 1) % 3
    labels[4:10], teacher[4:10] = (labels[4:10] + 1) % 3, (labels[4:10] + 2) % 3
    budgets = {"max_drop": 0.1, "confidence": 0.95, "max_latency_p90_ms": 0, "max_flips": 0.06}
    table = helpers.tiny_reference(images, labels, teacher)
    predictor = make_predictor(metadata=helpers.metadata(budgets=budgets), reference=table)
    held = verify_package(predictor, images, labels)
    counts = "10 of 300 answers changed (3.33 %): 4 from right to wrong, 0 from wrong to right, 6 from wrong to wrong"
    assert held.flips.describe() == counts
    assert any(counts in text for text in held.lines("images"))
    assert held.flip_budget is not None
    assert (held.flip_budget.verdict, held.failure()) == ("pass", None)
    assert json.loads(json.dumps(held.to_dict()))["flips"] == {"lost": 4, "gained": 0, "changed": 10, "samples": 300}
    missed = verify_package(predictor, images, labels, max_flips=0.01)
    assert isinstance(missed.failure(), BudgetMissed)
    free = verify_package(predictor, images, labels, max_flips=0.0)
    assert free.flip_budget is None
    assert counts in free.lines("images")


def test_each_class_is_counted_and_may_have_a_budget(make_predictor: Any, helpers: Any, data: Any) -> None:
    """The package has twelve images of class 2 wrong that the teacher has right: 4 points of all, 12 of the class."""
    images, labels = data
    labels = labels.copy()
    mine = np.flatnonzero(labels == 2)[:12]
    labels[mine] = 1
    teacher = labels.copy()
    budgets = {"max_drop": 0.1, "confidence": 0.95, "max_latency_p90_ms": 0, "max_class_drop": 0.05}
    table = helpers.tiny_reference(images, labels, teacher)
    held = verify_package(make_predictor(metadata=helpers.metadata(budgets=budgets), reference=table), images, labels)
    assert held.verdict.verdict == "pass"
    assert held.class_budget is not None
    worst = held.class_budget.groups[0]
    assert (worst.verdict, worst.group.lost, worst.group.gained) == ("fail", 12, 0)
    assert isinstance(held.failure(), BudgetMissed)
    assert any("1 of 3 classes drop too far at 0.95 confidence" in text for text in held.lines("images"))
    shown = json.loads(json.dumps(held.to_dict()))
    assert shown["class_budget"]["groups"][0]["verdict"] == "fail"
    assert [row["lost"] for row in shown["classes"]["groups"]] == [12, 0, 0]
    assert sum(row["samples"] for row in shown["classes"]["groups"]) == 300
    free = verify_package(make_predictor(reference=table), images, labels, max_drop=0.1)
    assert (free.class_budget, free.failure()) == (None, None)
    assert any(text.startswith("classes that drop: ") and "12 lost" in text for text in free.lines("images"))


@pytest.mark.parametrize("metric", ["macro_f1", "auroc"])
def test_a_package_is_judged_by_the_metric_that_its_gate_was(
    tmp_path: Path, helpers: Any, data: Any, metric: str
) -> None:
    images, labels = data
    task, logits = judged_by(helpers.tiny_task(), Judging(metric)), helpers.expected_logits(images)
    columns = task.outputs.record({"logits": logits}, {"label": labels})
    contents = helpers.tiny_contents(images, labels)
    reference = make_reference(task, {"images": images}, columns)
    write_archive(tmp_path / "x.dlx", assemble(replace(contents, task=task, reference=reference)))
    package = open_package(tmp_path / "x.dlx")
    assert (package.meta["schema"], package.meta["budgets"]["metric"]) == (3, metric)
    seen = judged(Predictor(package), {"images": images}, {"label": labels}).judgement
    assert isinstance(seen, MetricVerification)
    assert (seen.verdict.verdict, seen.verdict.drop) == ("pass", 0)
    assert f"budgets  {METRICS[metric].title} drop 2 points" in PackageView(package).text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("f1", r"budgets\.metric is 'f1'; .*must be one of 'macro_f1'"),
        (3, r"budgets\.metric is 3; must be of type str"),
    ],
)
def test_a_metric_that_there_is_not_is_refused_at_load(helpers: Any, data: Any, given: object, message: str) -> None:
    contents = helpers.tiny_contents(
        *data, metadata=helpers.metadata(budgets={**helpers.metadata()["budgets"], "metric": given})
    )
    with pytest.raises(PackageError, match=message):
        assemble(contents)


@pytest.mark.parametrize("metric", ["", "macro_f1"])
def test_a_package_whose_samples_come_in_groups_is_judged_by_groups(
    tmp_path: Path, helpers: Any, data: Any, metric: str
) -> None:
    """Thirty groups of ten: too few for two points, where 300 samples were enough."""
    images, labels = data
    task, logits = judged_by(helpers.tiny_task(), Judging(metric, grouped=True)), helpers.expected_logits(images)
    columns = task.outputs.record({"logits": logits}, {"label": labels, "group": np.arange(300) // 10})
    contents = helpers.tiny_contents(images, labels)
    budgets = {**helpers.metadata()["budgets"], "min_accuracy": 0.7, "max_flips": 0.2, "max_class_drop": 0.4}
    if metric:
        budgets = {**budgets, "max_flips": 0, "max_class_drop": 0}
    reference = make_reference(task, {"images": images}, columns)
    made = replace(contents, task=task, reference=reference, metadata=helpers.metadata(budgets=budgets))
    write_archive(tmp_path / "x.dlx", assemble(made))
    package = open_package(tmp_path / "x.dlx")
    assert (package.meta["schema"], package.meta["budgets"]["units"]) == (3, "groups")
    seen = judged(Predictor(package), {"images": images}, {"label": labels})
    assert isinstance(seen.judgement, (MetricVerification, Verification))
    verdict, floor = seen.judgement.verdict, seen.judgement.floor
    assert isinstance(verdict, DropVerdict)
    assert (verdict.verdict, verdict.units, verdict.noun) == ("undecided", 30, "groups")
    assert isinstance(floor, FloorVerdict)
    assert (floor.verdict, floor.units) == ("pass", 30)
    assert "30 groups" in "\n".join(seen.judgement.lines("images"))
    if isinstance(seen.judgement, Verification):
        assert seen.judgement.flip_budget
        assert 0.05 < seen.judgement.flip_budget.upper < 0.2
        assert seen.judgement.class_budget
        assert seen.judgement.class_budget.verdict == "pass"
    others, names = helpers.make_images(20, seed=5)
    mixed = {"images": np.concatenate([images, others])}, {"label": np.concatenate([labels, names])}
    teacher = {"logits": helpers.expected_logits(mixed[0]["images"])}
    more = judged(Predictor(package), *mixed, None, teacher)
    assert more.alone == 20
    assert "20 images are not in the package's reference table" in VerifyView(package, more.judgement, alone=20).text


def test_units_that_there_are_not_are_refused_at_load(helpers: Any, data: Any) -> None:
    budgets = {**helpers.metadata()["budgets"], "units": "videos"}
    with pytest.raises(PackageError, match=r"budgets\.units is 'videos'; must be 'groups', or left out"):
        assemble(helpers.tiny_contents(*data, metadata=helpers.metadata(budgets=budgets)))
