"""Frames of video files and cameras, by OpenCV: Pillow's images, RGB, turned upright where the file says how."""

from __future__ import annotations

import logging
import os
import re
import time
from typing import Iterator, Union

import numpy as np

from ..errors import BackendMissing, InputError
from ..files import PathLike, open_file, reason
from ..untyped import Foreign
from .framing import pillow
from .source import Sample

__all__ = ["read_camera", "read_video"]

URL = r"(rtsps?|https?|udp|tcp)://"
MISSING = "install it with: pip install opencv-python-headless (or, where the system brings it: python3-opencv)"
PIPELINE = "does this OpenCV have GStreamer (the system's python3-opencv has, PyPI's has not), and the pipeline run?"
_log = logging.getLogger(__name__)


def read_video(path: PathLike, every: int = 1) -> Iterator[Sample]:
    """Every ``every``-th frame of the video file at ``path``, the first one first.

    Raises:
        InputError: no such file, or no frame of it can be decoded. BackendMissing: OpenCV is not here.
    """
    name = os.fspath(path)
    try:
        open_file(name).close()  # a pipe or device would hang; what is no file, OpenCV takes for an address
    except (OSError, ValueError) as e:
        raise InputError(f"{name}: cannot be read as a video ({reason(e)}); give a video file") from e
    cv2 = _opencv()
    capture = cv2.VideoCapture(name)
    expected, number = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0
    try:
        while capture.grab():
            if number % every == 0:
                time_s = max(0.0, capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000
                yield Sample(name, _decoded(cv2, capture, name, number), number, round(time_s, 3))
            number += 1
    finally:
        capture.release()
    if not number:
        raise InputError(f"{name}: cannot be decoded as a video; replace it, or convert it to H.264 in an .mp4 file")
    if number < expected:  # cut short, or a header that only estimates
        _log.warning("%s: gave %d of the %d frames that its header names", name, number, expected)


def read_camera(camera: str, every: int = 1) -> Iterator[Sample]:
    """Every ``every``-th frame of a camera, without an end but an error.

    ``camera``: its number, ``/dev/videoN``, an address (RTSP, HTTP) or a GStreamer pipeline.

    Raises:
        InputError: it is none of these, cannot be opened, or gives no more frames. BackendMissing: OpenCV is not here.
    """
    source = _camera(camera)
    cv2 = _opencv()
    pipeline = isinstance(source, str) and "!" in source
    capture = cv2.VideoCapture(source, cv2.CAP_GSTREAMER) if pipeline else cv2.VideoCapture(source)
    name, number, began = _named(camera), 0, time.monotonic()
    try:
        if not capture.isOpened():
            why = PIPELINE if pipeline else "is it connected, free, and may this user read it?"
            raise InputError(f"{name}: cannot be opened; {why}")
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # else a slow model sees what was in front of it some frames ago
        while capture.grab():
            if number % every == 0:
                now = round(time.monotonic() - began, 3)
                yield Sample(name, _decoded(cv2, capture, name, number), number, now)
            number += 1
    finally:
        capture.release()
    raise InputError(f"{name}: gives no more frames after {number}; is it still connected?")


def _named(camera: str) -> str:
    """What a camera is called in answers: an address without the password that may stand in it."""
    return f"camera {re.sub(r'//[^/]*@', '//', camera)}"


def _camera(camera: str) -> Union[int, str]:
    """``camera`` as OpenCV takes it."""
    if camera.isascii() and camera.isdigit() and len(camera) < 4:
        return int(camera)
    if camera.startswith("/dev/") or re.match(URL, camera, re.IGNORECASE) or " ! " in camera:
        return camera
    raise InputError(
        f"camera is {camera!r}; must be its number, /dev/videoN, an address (rtsp://…) or a GStreamer pipeline "
        "(… ! appsink); a video file is an input, without --camera"
    )


def _decoded(cv2: Foreign, capture: Foreign, name: str, number: int) -> Foreign:
    """The frame that was grabbed, as Pillow's image: it is framed as files are, also if its size is the network's."""
    done, frame = capture.retrieve()
    if not done or frame is None or frame.dtype != np.uint8 or frame.ndim not in (2, 3):
        raise InputError(f"{name}: frame {number} cannot be decoded; convert the video to H.264 in an .mp4 file")
    return pillow().fromarray(frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))


def _opencv() -> Foreign:
    # FFmpeg's own talk, with names from the file, would go to the terminal as it is; read when a video is first opened.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        import cv2
    except ImportError as e:
        raise BackendMissing(f"videos and cameras need OpenCV, which cannot be imported ({e}); {MISSING}") from e
    return cv2
