"""A ROS 2 node that answers the images of a topic with a package: classes as JSON, masks as images.

    source /opt/ros/humble/setup.bash
    python3 package_node.py X.dlx --ros-args -p image:=/camera/image_raw

Needs rclpy, sensor_msgs and std_msgs of a ROS 2, numpy and onnxruntime (Pillow, where images have another size than the
model); the runtime is the package's own. It is tested with stand-ins for ROS 2's modules: on a real ROS 2 it was not
run. Topics: ``image`` (sensor_msgs/Image: rgb8, bgr8, rgba8, mono8) in; ``answer`` (std_msgs/String, JSON) or ``mask``
(sensor_msgs/Image, mono8: the class of each pixel, 255 where the model does not see) out, with the image's own header.
"""

from __future__ import annotations

import json
import sys
from array import array
from typing import Any

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String

CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "mono8": 1}
"""Encodings that a package reads, with their bytes a pixel."""


def pixels_of(image: Any) -> np.ndarray:
    """The message as uint8[H, W, C] in its own order of colours, without the padding at the end of rows.

    Raises:
        ValueError: an encoding that no package reads, or fewer bytes than the message says.
    """
    channels = CHANNELS.get(image.encoding)
    if channels is None:
        raise ValueError(f"encoding is {image.encoding!r}; must be one of {', '.join(CHANNELS)}")
    row = image.width * channels
    data = np.frombuffer(image.data, np.uint8)
    if image.step < row or data.size < image.step * image.height:
        raise ValueError(f"{data.size} bytes in rows of {image.step} are no {image.width} x {image.height} pixels")
    rows = data[: image.step * image.height].reshape(image.height, image.step)
    return np.ascontiguousarray(rows[:, :row]).reshape(image.height, image.width, channels)


class PackageNode(Node):
    """Subscribes to ``image``; publishes ``answer`` or ``mask``."""

    def __init__(self, predictor: Any) -> None:
        super().__init__("package")
        self.predictor = predictor
        self.answers = self.create_publisher(String, "answer", 10)
        self.masks = self.create_publisher(Image, "mask", 10)
        topic = self.declare_parameter("image", "image").value
        # Best effort and a short queue: an answer to an old frame is worth less than none.
        self.create_subscription(Image, topic, self.answer, qos_profile_sensor_data)
        self.get_logger().info(f"{predictor.package.name} {predictor.package.version} answers {topic}")

    def answer(self, image: Any) -> None:
        """One message in, one out; an image that cannot be read is said and left out."""
        try:
            found = self.predictor.predict(pixels_of(image), bgr=image.encoding == "bgr8")
            if hasattr(found, "masks"):
                self.masks.publish(self.mask(image.header, found.masks[0]))
            else:
                self.answers.publish(self.text(image.header, found))
        except ValueError as e:  # the runtime's InputError and PackageError are not: they mean that every image fails
            self.get_logger().error(f"an image is left out: {e}")

    def text(self, header: Any, found: Any) -> Any:
        """The best classes as JSON, with when and where the image was taken."""
        top = [{"label": label, "probability": round(p, 4)} for label, p in found.top(3)[0]]
        stamp = {"sec": header.stamp.sec, "nanosec": header.stamp.nanosec}
        return String(data=json.dumps({"stamp": stamp, "frame_id": header.frame_id, "top": top}))

    def mask(self, header: Any, classes: np.ndarray) -> Any:
        """The mask as an image of the same size as the one it is of."""
        height, width = classes.shape
        shown = Image(header=header, height=height, width=width, encoding="mono8", step=width)
        shown.data = array("B", classes.tobytes())  # what the message holds; any other sequence is looked through
        return shown


def main(package: str) -> None:
    """Answer until the node is shut down."""
    sys.path.insert(0, package)
    from dlx_runtime import load  # the package's own runtime

    predictor = load(package)
    warm = predictor.package.task.inputs.tensors[0].dims
    predictor.predict(np.zeros(warm, np.uint8))  # the first run is the slow one
    rclpy.init(args=sys.argv)
    node = PackageNode(predictor)
    try:
        rclpy.spin(node)
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1])
