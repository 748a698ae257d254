"""Preprocessing that differs is found, and named."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper
from PIL import Image

from dlx_deploy.debugging.debug import Debugged, debug_package
from dlx_deploy.graph.comparison.front import compare_fronts
from dlx_deploy.graph.comparison.pairing import paired_layers
from dlx_deploy.graph.model import load
from dlx_deploy.report.debug_facts import ReadingFinding
from dlx_deploy.report.debugging import DebugView
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.image_inputs import ImageInputs
from dlx_deploy.runtime.tasks.images import fit_image, load_image
from dlx_deploy.tasks.readings import image_readings, turned_by_exif

from ..arrays import samples
from ..onnx_fixtures import images, node
from .conftest import Bench, scale_by, split, write_data


def looked(bench: Bench, package: Path, **asked: Any) -> DebugView:
    return debug_package(Debugged(package, bench.folder / "store", **{"layers": 0, **asked}))


def only(view: DebugView) -> ReadingFinding:
    (found,) = view.reading
    assert found.said in view.text
    assert found.remedy in view.text
    return found


def test_nothing_differs_where_nothing_was_changed(bench: Bench) -> None:
    view = looked(bench, bench.package("read"))
    assert view.reading == ()
    assert "preprocessing: nothing differs; 200 of 200 images are fed byte by byte" in view.text
    assert "conv1/Conv, the first layer, reads the same as in floating point" in view.text


def without_normalisation(model: ModelProto) -> None:
    node(model, "scaled/Mul").CopyFrom(helper.make_node("Identity", ["planes"], ["scaled"], name="scaled/Identity"))
    node(model, "x/Add").CopyFrom(helper.make_node("Identity", ["scaled"], ["x"], name="x/Identity"))


def shifted(model: ModelProto) -> None:
    shift = next(t for t in model.graph.initializer if t.name == "pre.shift")
    shift.CopyFrom(numpy_helper.from_array(np.full((1, 1, 1), -0.4, np.float32), "pre.shift"))


def turned(model: ModelProto) -> None:
    node(model, "planes/Transpose").attribute[0].ints[:] = [0, 3, 2, 1]


def zero(model: ModelProto) -> None:
    scale_by(0.0, "pre.scale")(model)


@pytest.mark.parametrize(
    ("change", "name", "said"),
    [
        (
            without_normalisation,
            "normalisation",
            "not normalised, they come as 0..255: 0 to 255, where the network .* -1",
        ),
        (shifted, "normalisation", "normalised with another mean or standard deviation: -0.4 to 1.59"),
        (turned, "layout", "rows and columns are swapped"),
        (zero, "unknown", "reads something else, which no order of colours"),
    ],
    ids=["not normalised", "another mean", "layout", "nothing explains it"],
)
def test_a_graph_that_reads_otherwise(bench: Bench, change: Callable[[ModelProto], None], name: str, said: str) -> None:
    view = looked(bench, bench.package(f"graph-{change.__name__}", change=change))
    found = only(view)
    assert found.name == name
    assert re.search(said, found.said)
    assert found.said.startswith("in the graph, before conv1/Conv: ")


def colour_net(order: str = "") -> ModelProto:
    """A convolution of three normalised channels; ``order``: ``bgr``, or ``255`` without a scale."""
    mean = np.array([0.3, 0.5, 0.6], np.float32).reshape(3, 1, 1)
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], name="a", to=1),
        helper.make_node("Transpose", ["float"], ["planes"], name="b", perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["planes", "order"], ["ordered"], name="c", axis=1),
        helper.make_node("Mul", ["ordered", "scale"], ["scaled"], name="d"),
        helper.make_node("Sub", ["scaled", "mean"], ["x"], name="e"),
        helper.make_node("Conv", ["x", "weight"], ["maps"], name="conv/Conv"),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"], name="g"),
        helper.make_node("Flatten", ["pooled"], ["logits"], name="h"),
    ]
    weight = np.random.default_rng(0).normal(0, 1, (4, 3, 3, 3)).astype(np.float32)
    constants = {
        "order": np.array([2, 1, 0] if order == "bgr" else [0, 1, 2]),
        "scale": np.array(1.0 if order == "255" else 1 / 255, np.float32),
        "mean": mean * (0 if order in ("255", "0..1") else 1),
        "weight": weight,
    }
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("images", 2, ["batch", 8, 8, 3])],
        [helper.make_tensor_value_info("logits", 1, ["batch", 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("ours", "theirs", "names"),
    [
        ("", "", []),
        ("", "bgr", ["channels"]),
        ("", "0..1", ["normalisation"]),
        ("0..1", "255", ["scale"]),
    ],
)
def test_colours_and_scale_in_the_graph_are_told_apart(ours: str, theirs: str, names: list[str]) -> None:
    plain, other = colour_net(ours), colour_net(theirs)
    pixels = (images(20, channels=3, seed=4) * np.array([0.3, 0.6, 1.0])).astype(np.uint8)
    front = compare_fronts(plain, other, paired_layers(plain, other), samples(pixels), exact=False)
    assert front is not None
    assert front.layer == "conv/Conv"
    if "channels" in names:  # with means of their own swapped channels are shifted, too
        assert next(iter(front.differences)) == "channels"
    else:
        assert list(front.differences) == names


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    random = np.random.default_rng(0)
    for number in range(3):
        pixels = random.integers(0, 256, (20, 30, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return [str(path) for path in sorted(tmp_path.glob("*.png"))]


BUILT = Framing(8, 8, 3)


@pytest.mark.parametrize(
    ("package", "name", "said"),
    [
        (replace(BUILT, color_order="bgr"), "channels", "RGB and BGR are swapped"),
        (replace(BUILT, resize="crop"), "resize", "resize = 'squash', interpolation = 'bilinear'"),
        (replace(BUILT, interpolation="bicubic"), "interpolation", "interpolation = 'bilinear'"),
        (replace(BUILT, resize="letterbox", interpolation="nearest"), "resize and interpolation", "resize = 'squash'"),
    ],
    ids=["colours", "resize", "filter", "both"],
)
def test_how_files_were_read_by_the_build_is_found(photos: list[str], package: Framing, name: str, said: str) -> None:
    wanted = ImageInputs(BUILT).digests({"images": np.stack([load_image(path, BUILT) for path in photos])})
    inputs = ImageInputs(package)
    feeds = {"images": np.stack([load_image(path, package) for path in photos])}
    assert not np.isin(inputs.digests(feeds), wanted).any()
    first = next(
        reading
        for reading in image_readings(inputs, feeds, photos)
        if np.isin(inputs.digests(reading.arrays), wanted).any()
    )
    assert first.name == name
    assert said in first.said


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_pictures_that_the_build_read_without_their_exif_orientation(tmp_path: Path, orientation: int) -> None:
    """As of a build from arrays that another library decoded: OpenCV's IMREAD_UNCHANGED, torchvision."""
    random, files, exif = np.random.default_rng(0), [], Image.Exif()
    exif[0x0112] = orientation
    for number, own in enumerate((Image.Exif(), exif, exif)):
        files.append(str(tmp_path / f"{number}.jpg"))
        Image.fromarray(random.integers(0, 256, (20, 30, 3)).astype(np.uint8)).save(files[-1], exif=own)
    stored = [np.asarray(Image.open(path)) for path in files]
    inputs = ImageInputs(BUILT)
    wanted = inputs.digests({"images": np.stack([fit_image(pixels, BUILT) for pixels in stored])})
    feeds = {"images": np.stack([load_image(path, BUILT) for path in files])}
    assert np.isin(inputs.digests(feeds), wanted).tolist() == [True, False, False]
    found = [
        reading
        for reading in image_readings(inputs, feeds, files)
        if np.isin(inputs.digests(reading.arrays), wanted).all()
    ]
    assert [reading.name for reading in found] == ["orientation"]
    assert found[0].said == "as their files store them, and not turned by their EXIF orientation"
    assert turned_by_exif([*files, str(tmp_path / "none.jpg")]) == 2
    no_exif = list(image_readings(inputs, feeds, files[:1] * 3))
    assert "EXIF orientation" not in "".join(reading.said for reading in no_exif if reading.said.startswith("as their"))


def test_pictures_with_an_exif_orientation_are_told_of(bench: Bench, tmp_path: Path) -> None:
    pixels, classes = split()
    exif = Image.Exif()
    exif[0x0112] = 3
    for number in range(6):
        folder = tmp_path / "photos" / str(classes[number])
        folder.mkdir(parents=True, exist_ok=True)
        upright = pixels[number, ..., 0]
        stored = Image.fromarray(np.ascontiguousarray(upright[::-1, ::-1]) if number < 2 else upright)
        stored.save(folder / f"{number}.png", exif=exif if number < 2 else Image.Exif())
    view = looked(bench, bench.package("photographs"), data=str(tmp_path / "photos"))
    assert view.reading == ()
    assert "6 of 6 images are fed byte by byte as the build had them" in view.compared
    assert "2 of the files have an EXIF orientation, by which they are turned upright here, in a build and in " in (
        view.compared
    )


def test_pixels_that_were_turned_or_scaled_are_found(bench: Bench, tmp_path: Path) -> None:
    pixels, classes = split()
    package = bench.package("fed")
    data = write_data(tmp_path / "turned", np.ascontiguousarray(pixels.swapaxes(1, 2)), classes)
    view = looked(bench, package, data=str(data))
    assert only(view).name == "layout"
    assert "the build read these images with rows and columns swapped; the package does not (200 differ)" in view.text
    other = write_data(tmp_path / "other", images(20, seed=9), classes[:20])
    assert only(looked(bench, package, data=str(other))).name == "unknown"


def test_a_package_that_says_another_normalisation_than_its_data(bench: Bench) -> None:
    view = looked(bench, bench.package("fields", preprocessing={"mean": [0.5], "std": [0.4]}))
    found = only(view)
    assert found.name == "mean"
    assert found.said == "package.json says preprocessing.mean = [0.5], and the build's data have [0.3]"


def test_golden_samples_that_are_answered_otherwise(bench: Bench) -> None:
    view = looked(bench, bench.package("golden", golden=3.0))
    assert only(view).name == "golden"
    assert "4 of 4 golden samples are answered otherwise than where it was built" in view.text


def test_a_graph_of_another_size_is_not_compared(bench: Bench) -> None:
    plain = load(bench.folder / "plain.onnx")
    assert compare_fronts(plain, plain, [], samples(split()[0]), exact=False) is None
