"""A drift watch on the tiny package: its images are noise, so what is usual can be drawn at will."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from dlx_deploy.runtime import Watch
from dlx_deploy.runtime.backends.table import BackendOptions
from dlx_deploy.runtime.commands.predicting import PredictRequest, predict_asked
from dlx_deploy.runtime.commands.views import PackageView
from dlx_deploy.runtime.errors import InputError, PackageError
from dlx_deploy.runtime.package.contents import Package, assemble, parse_package
from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.tasks.features import features_of
from dlx_deploy.runtime.watching.drift import DriftOptions, DriftWatch
from dlx_deploy.runtime.watching.exposition import exposition
from dlx_deploy.runtime.watching.logs import EventLog
from dlx_deploy.runtime.watching.reference import DriftReference, FeatureReference
from dlx_deploy.runtime.watching.report import DriftReport
from dlx_deploy.stages.support.drift import drift_file

from ..conftest import make_images, tiny_contents, tiny_model

BUILD, FIELD = 400, 8000


def images_of(count: int, seed: int) -> np.ndarray:
    """Images in an order of no meaning, tinted: the first channel is darker than the last."""
    images, _ = make_images(count, seed)
    tinted: np.ndarray = (images * np.array([0.6, 0.8, 1.0])).astype(np.uint8)
    return tinted[np.random.default_rng(seed).permutation(count)]


@pytest.fixture(scope="module")
def drifting() -> Package:
    """The tiny package, with statistics of 400 images."""
    images, labels = make_images(30)
    plain = tiny_contents(images, labels)
    seen = images_of(BUILD, 1)
    predictor = Predictor(parse_package(assemble(plain), "tiny.dlx"), BackendOptions(threads=1))
    features = features_of(plain.task, {"images": seen}, predictor.run({"images": seen}))
    return parse_package(assemble(replace(plain, drift=drift_file(features))), "tiny.dlx")


def judged(package: Package, images: np.ndarray, window: int) -> list[DriftReport]:
    reports: list[DriftReport] = []
    watch = Watch(Predictor(package, BackendOptions(threads=1)), drift=DriftOptions(window))
    assert watch.drift is not None
    watch.drift._heard = reports.append
    for start in range(0, len(images), 500):
        watch.predict(images[start : start + 500])
    return reports


def test_undrifted_samples_are_silent_over_many_windows(drifting: Package) -> None:
    reports = judged(drifting, images_of(FIELD, 2), 64)
    assert len(reports) == FIELD // 64
    assert sum(bool(one.drifted) for one in reports) <= 2  # of 125: at most 1 % a window is promised


def brighter(images: np.ndarray) -> np.ndarray:
    return np.clip(images * 1.2, 0, 255).astype(np.uint8)


def swapped(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images[..., ::-1])


def one_class(images: np.ndarray) -> np.ndarray:
    return images[images[:, :2].mean(axis=(1, 2, 3)) > 100]


def noisy(images: np.ndarray) -> np.ndarray:
    return np.clip(images + np.random.default_rng(3).normal(0, 25, images.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (brighter, {"input_brightness", "input_contrast"}),
        (swapped, {"input_tint_0", "input_tint_2"}),
        (one_class, {"output_class"}),
        (noisy, {"input_detail"}),
    ],
)
def test_each_drift_is_found_in_the_first_window_and_named(drifting: Package, change: Any, names: set[str]) -> None:
    first = judged(drifting, change(images_of(2000, 4)), 256)[0]
    assert names <= {one.name for one in first.drifted}
    if change is one_class:
        (answer,) = (one for one in first.drifted if one.name == "output_class")
        assert ", class 0 100.0 %, was 3" in answer.describe()
        assert json.loads(json.dumps(first.to_dict()))["features"]["output_class"]["moved"]["number"] == 0
    assert (
        first.drifted[0].distance / first.drifted[0].threshold
        >= first.drifted[-1].distance / first.drifted[-1].threshold
    )


def test_windows_do_not_depend_on_how_samples_came(drifting: Package) -> None:
    images = images_of(200, 5)

    def seen(sizes: list[int], every: int) -> Any:
        predictor = Predictor(drifting, BackendOptions(threads=1))
        watch, start = DriftWatch(drifting, DriftOptions(64, every)), 0
        for size in sizes:
            feeds = {"images": images[start : start + size]}
            watch.see(feeds, predictor.run(feeds))
            start += size
        assert watch.last is not None
        return watch.last.to_dict()

    at_once = seen([200], 1)
    assert at_once["window"] == 3
    assert seen([1, 63, 100, 36], 1) == at_once
    assert seen([200], 3) == seen([1, 1, 5, 93, 100], 3)
    assert seen([200], 3)["window"] == 1


def test_copies_that_fill_a_fixed_batch_are_not_counted(drifting: Package) -> None:
    images = images_of(70, 6)
    contents = tiny_contents(*make_images(30), model=tiny_model(batch=4), batch=4, drift=drifting.drift)
    fixed = parse_package(assemble(contents), "tiny.dlx")
    watch = Watch(Predictor(fixed, BackendOptions(threads=1)), drift=DriftOptions(64))
    watch.start(warm_up=lambda: watch.predict(images[:50]))  # is not of the field
    for image in images:
        watch.predict(image)
    watch.predict(images[:3])
    assert watch.drift is not None
    assert watch.drift.to_dict()["kept"] == 73 - 64


def test_of_a_fixed_batch_each_so_many_samples_one_is_looked_at(drifting: Package) -> None:
    contents = tiny_contents(*make_images(30), model=tiny_model(batch=4), batch=4, drift=drifting.drift)
    fixed = parse_package(assemble(contents), "tiny.dlx")
    watch = Watch(Predictor(fixed, BackendOptions(threads=1)), drift=DriftOptions(64, every=3))
    for image in np.repeat(images_of(1, 6), 30, axis=0):
        watch.predict(image)
    watch.predict(np.repeat(images_of(1, 7), 6, axis=0))  # alike, and still samples
    assert watch.drift is not None
    assert watch.drift.to_dict()["kept"] == 12


def test_what_is_no_class_of_the_build_is_not_named_as_one(drifting: Package) -> None:
    watch = DriftWatch(drifting, DriftOptions(64))
    feature = FeatureReference("output_class", None, (5, 5, 0), (0.1,))
    watch.reference = DriftReference(10, (64,), (feature,))
    (one,) = watch.judge(np.full((64, 1), 7, np.float32), 64)
    assert one.describe() == "output_class 0.866 (usual: up to 0.100, other classes 100.0 %, was 0.0 %)"
    assert one.to_dict()["moved"] == {"number": None, "share": 1.0, "usual": 0.0}


def test_a_drift_is_said_in_the_log_in_metrics_and_as_json(drifting: Package) -> None:
    lines: list[bytes] = []
    predictor = Predictor(drifting, BackendOptions(threads=1))
    watch = Watch(predictor, log=EventLog(lines.append), drift=DriftOptions(64))
    empty = watch.to_dict()["drift"]
    watch.predict(swapped(images_of(128, 7)))
    watch.predict(images_of(64, 8))
    assert [json.loads(one)["event"] for one in lines] == ["drift", "drift", "drift-ended"]
    assert json.loads(lines[1])["in_a_row"] == 2
    assert "input_tint_0 " in json.loads(lines[0])["features"]
    assert "usual: up to" in json.loads(lines[0])["features"]
    table = json.loads(json.dumps(watch.to_dict()))["drift"]
    assert (table["last"]["window"], table["last"]["drifted"], table["last"]["drifted_windows"]) == (3, [], 2)
    families = {one.name: one for one in text_string_to_metric_families(exposition(watch.families()))}
    assert families["dlx_drift_windows"].samples[0].value == 3
    assert families["dlx_drift_drifted_windows"].samples[0].value == 2
    assert families["dlx_drift_in_a_row"].samples[0].value == 0
    assert {one.labels["feature"] for one in families["dlx_drift_distance"].samples} == set(table["last"]["features"])
    assert json.loads(json.dumps(empty))["last"] is None


def test_a_fault_of_the_watch_costs_no_answer(drifting: Package, data: Any) -> None:
    lines: list[bytes] = []
    predictor = Predictor(drifting, BackendOptions(threads=1))
    watch = Watch(predictor, log=EventLog(lines.append), drift=True)
    assert watch.drift is not None
    object.__setattr__(drifting.task.outputs, "features", lambda outputs: {})
    try:
        answers: Any = watch.predict(data[0][:2])
    finally:
        object.__delattr__(drifting.task.outputs, "features")
    assert answers.classes.tolist() == data[1][:2].tolist()
    assert json.loads(lines[0])["event"] == "drift-failed"


def test_answers_that_are_no_numbers_are_far_away_and_still_json(drifting: Package) -> None:
    images = images_of(64, 10)
    watch = DriftWatch(drifting, DriftOptions(64))
    watch.see({"images": images}, {"logits": np.full((64, 3), np.nan, np.float32)})
    assert watch.last is not None
    confidence = next(one for one in watch.last.features if one.name == "output_confidence")
    assert (confidence.drifted, confidence.median) == (True, None)
    json.dumps(watch.to_dict(), allow_nan=False)


def test_inspect_says_whether_drift_can_be_watched(drifting: Package, predictor: Predictor) -> None:
    seen, other = PackageView(drifting), PackageView(predictor.package)
    assert "\ndrift    carries what --drift needs\n" in seen.text
    assert "--drift" not in other.text
    assert (seen.data["drift"], other.data["drift"]) == (True, False)


def test_what_cannot_be_watched_is_refused(drifting: Package, predictor: Predictor) -> None:
    with pytest.raises(PackageError, match=r"tiny 1\.2\.3 carries no statistics to hold the field against; build it"):
        Watch(predictor, drift=True)
    with pytest.raises(
        InputError, match="the window of drift is 100; must be one that the package knows: 64, 256, 1024"
    ):
        DriftWatch(drifting, DriftOptions(100))
    with pytest.raises(InputError, match="drift looks at every 0 samples; must be 1 or more"):
        DriftWatch(drifting, DriftOptions(64, 0))
    damaged = replace(drifting, drift=b"{}")
    with pytest.raises(PackageError, match=r"tiny: drift\.json: schema is None; must be 1"):
        DriftWatch(damaged, DriftOptions())


def test_predict_says_what_drifted_and_at_its_end_all_of_it(drifting: Package, tmp_path: Any) -> None:
    said: list[str] = []
    predictor = Predictor(drifting, BackendOptions(threads=1), said.append)

    def predicted(images: np.ndarray) -> list[str]:
        said.clear()
        paths = []
        for i, image in enumerate(images):
            paths.append(str(tmp_path / f"{i}.png"))
            Image.fromarray(image).save(paths[-1])
        view: Any = predict_asked(predictor, PredictRequest(paths, drift=True), [])
        assert len(view.rows) == len(images)
        return list(said)

    assert predicted(images_of(70, 9)) == ["drift: 0 of 1 windows drifted"]
    first, last = predicted(swapped(images_of(70, 9)))
    assert first.startswith("drift: window 1 of 70 samples: input_tint_")
    assert last == "drift: 1 of 1 windows drifted"
    assert predicted(images_of(9, 9)) == ["drift: 9 samples are too few to say; at least 64 make a window"]
