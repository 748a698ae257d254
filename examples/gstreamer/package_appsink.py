"""A GStreamer pipeline whose frames a package answers: a line of JSON for each.

    python3 package_appsink.py X.dlx "videotestsrc num-buffers=10"
    python3 package_appsink.py X.dlx "v4l2src device=/dev/video0" live
    python3 package_appsink.py X.dlx "nvarguscamerasrc ! nvvidconv" live     # a Jetson's camera

Needs GStreamer 1.x with its Python bindings (Debian, Ubuntu: python3-gst-1.0, gstreamer1.0-plugins-base), numpy and
onnxruntime (Pillow, where frames have another size than the model); the runtime is the package's own. What is given is
everything in front of the conversion to RGB. ``live``: frames that come while one is answered are dropped; without it
the source waits, so that a file loses none. It was run on GStreamer 1.22 (Debian 12) with videotestsrc; on cameras it
was not.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import gi
import numpy as np

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402  # the version must be asked for first

SINK = "videoconvert ! video/x-raw,format=RGB ! appsink name=frames max-buffers=1 sync=false"
WAIT_NS = 5 * 10**9
"""So long a live source may give no frame before that is an error."""


def pixels_of(sample: Any) -> np.ndarray:
    """The frame as uint8[H, W, 3], RGB, owned by the caller: rows in a buffer end on multiples of 4 bytes.

    Raises:
        ValueError: the buffer is smaller than its frame.
    """
    shape = sample.get_caps().get_structure(0)
    width, height = shape.get_value("width"), shape.get_value("height")
    buffer = sample.get_buffer()
    mapped, held = buffer.map(Gst.MapFlags.READ)
    if not mapped:
        raise ValueError("a buffer cannot be read")
    try:
        data = np.frombuffer(held.data, np.uint8)
        stride = data.size // height
        if stride < 3 * width:
            raise ValueError(f"{data.size} bytes are no {width} x {height} RGB pixels")
        rows = data[: stride * height].reshape(height, stride)[:, : 3 * width]
        return rows.reshape(height, width, 3).copy()
    finally:
        buffer.unmap(held)


def frames(source: str, live: bool = False) -> Iterator[tuple[float, np.ndarray]]:
    """The time of each frame in s, and its pixels, until the source ends.

    Raises:
        RuntimeError: the pipeline cannot be made, fails, or gives nothing for some seconds.
    """
    Gst.init(None)
    try:
        pipeline = Gst.parse_launch(f"{source} ! {SINK} drop={str(live).lower()}")
    except Exception as e:  # GLib.Error
        raise RuntimeError(f"no pipeline: {e}") from e
    sink, bus = pipeline.get_by_name("frames"), pipeline.get_bus()
    pipeline.set_state(Gst.State.PLAYING)
    try:
        while True:
            sample = sink.emit("try-pull-sample", WAIT_NS)
            if sample is not None:
                yield sample.get_buffer().pts / 1e9, pixels_of(sample)
                continue
            message = bus.timed_pop_filtered(0, Gst.MessageType.ERROR)
            if message is not None:
                raise RuntimeError(f"the pipeline failed: {message.parse_error()[0]}")
            if sink.get_property("eos"):
                return
            raise RuntimeError(f"no frame came for {WAIT_NS // 10**9} s")
    finally:
        pipeline.set_state(Gst.State.NULL)


def main(package: str, source: str, live: bool = False) -> None:
    """Print a line for each frame."""
    sys.path.insert(0, package)
    from dlx_runtime import load  # the package's own runtime

    predictor = load(package)
    for time_s, pixels in frames(source, live):
        answers = predictor.predict(pixels)
        told = answers.shares() if hasattr(answers, "masks") else [dict(top) for top in answers.top(3)]
        print(json.dumps({"time_s": round(time_s, 3), "answer": told[0]}), flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or sys.argv[3:] not in ([], ["live"]):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], live=len(sys.argv) == 4)
