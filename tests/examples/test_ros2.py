"""examples/ros2: the node, with stand-ins for ROS 2's modules."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dlx_deploy.runtime.backends.table import BackendOptions
from dlx_deploy.runtime.package.contents import assemble, parse_package
from dlx_deploy.runtime.predictor import Predictor
from tests.bundles.packages import classes, masks
from tests.modules import load_module
from tests.runtime.conftest import make_images

SCRIPT = Path(__file__).parents[2] / "examples" / "ros2" / "package_node.py"


class Message(SimpleNamespace):
    """Image and String: fields by name."""


class Node:
    """What the example asks of rclpy's."""

    def __init__(self, name: str) -> None:
        self.name, self.published, self.errors = name, {}, []
        self.subscribed: list[tuple[Any, str, Any]] = []

    def create_publisher(self, kind: Any, topic: str, depth: int) -> Any:
        sent = self.published.setdefault(topic, [])
        return SimpleNamespace(publish=sent.append)

    def create_subscription(self, kind: Any, topic: str, call: Any, quality: Any) -> None:
        self.subscribed.append((kind, topic, call))

    def declare_parameter(self, name: str, default: str) -> Any:
        return SimpleNamespace(value="/camera/image_raw")

    def get_logger(self) -> Any:
        return SimpleNamespace(info=lambda text: None, error=self.errors.append)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    fakes = {
        "rclpy": {"init": None, "spin": None, "try_shutdown": None},
        "rclpy.node": {"Node": Node},
        "rclpy.qos": {"qos_profile_sensor_data": object()},
        "sensor_msgs": {},
        "sensor_msgs.msg": {"Image": Message},
        "std_msgs": {},
        "std_msgs.msg": {"String": Message},
    }
    for name, values in fakes.items():
        module = ModuleType(name)
        module.__dict__.update(values)
        monkeypatch.setitem(sys.modules, name, module)
    return load_module(SCRIPT)


def image(pixels: np.ndarray, encoding: str, padding: int = 0) -> Message:
    """``pixels``, uint8[H, W, C], as a message whose rows have ``padding`` bytes more."""
    height, width, channels = pixels.shape
    rows = np.pad(pixels.reshape(height, -1), ((0, 0), (0, padding)), constant_values=77)
    header = SimpleNamespace(stamp=SimpleNamespace(sec=7, nanosec=5), frame_id="camera")
    step = width * channels + padding
    return Message(
        header=header, height=height, width=width, encoding=encoding, step=step, data=rows.tobytes(), is_bigendian=0
    )


def predictor(contents: Any) -> Predictor:
    return Predictor(parse_package(assemble(contents), "x.dlx"), BackendOptions(threads=1))


@pytest.mark.parametrize(("encoding", "order"), [("rgb8", [0, 1, 2]), ("bgr8", [2, 1, 0])])
def test_a_class_for_each_image_of_the_topic(example: Any, encoding: str, order: list[int]) -> None:
    node = example.PackageNode(predictor(classes()))
    ((_, topic, call),) = node.subscribed
    assert topic == "/camera/image_raw"
    images, _ = make_images(3)
    for pixels in images:
        call(image(pixels[:, :, order], encoding, padding=3))
    told = [json.loads(message.data) for message in node.published["answer"]]
    assert [one["top"][0]["label"] for one in told] == ["cat", "dog", "owl"]
    assert told[0]["stamp"] == {"sec": 7, "nanosec": 5}
    assert told[0]["frame_id"] == "camera"
    assert node.published["mask"] == []


def test_a_mask_is_an_image_with_the_same_header(example: Any) -> None:
    contents = masks()
    node = example.PackageNode(predictor(contents))
    asked = image(contents.golden_inputs["images"][0], "rgb8")
    node.subscribed[0][2](asked)
    (shown,) = node.published["mask"]
    assert (shown.header, shown.encoding, shown.height, shown.width, shown.step) == (asked.header, "mono8", 4, 6, 6)
    wanted = contents.golden_outputs["logits"][0].argmax(axis=0).astype(np.uint8)
    assert np.frombuffer(shown.data, np.uint8).reshape(4, 6).tolist() == wanted.tolist()


def test_images_that_cannot_be_read_are_said_and_left_out(example: Any) -> None:
    node = example.PackageNode(predictor(classes()))
    pixels = make_images(1)[0][0]
    short = image(pixels, "rgb8")
    short.data = short.data[:-1]
    for message in (image(pixels, "bayer_rggb8"), short):
        node.subscribed[0][2](message)
    assert node.published["answer"] == []
    assert node.errors == [
        "an image is left out: encoding is 'bayer_rggb8'; must be one of rgb8, bgr8, rgba8, mono8",
        "an image is left out: 71 bytes in rows of 12 are no 4 x 6 pixels",
    ]
