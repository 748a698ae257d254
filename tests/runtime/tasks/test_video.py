from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlx_deploy.runtime.errors import BackendMissing, InputError
from dlx_deploy.runtime.tasks.video import read_camera, read_video

from ..fake_cv2 import fake_opencv  # type: ignore[import-not-found]

RED = np.zeros((6, 4, 3), np.uint8)
RED[..., 2] = 200  # in OpenCV's order


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"of a fake OpenCV")
    return path


def opencv(monkeypatch: pytest.MonkeyPatch, frames: list[Any], **options: Any) -> Any:
    module = fake_opencv(frames, **options)
    monkeypatch.setitem(sys.modules, "cv2", module)
    return module


def test_frames_are_rgb_numbered_and_timed(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = opencv(monkeypatch, [RED, RED // 2, RED[..., 0], RED, RED])
    samples = list(read_video(clip, every=2))
    assert [(sample.name, sample.frame, sample.time_s) for sample in samples] == [
        (str(clip), 0, 0.0),
        (str(clip), 2, 0.2),
        (str(clip), 4, 0.4),
    ]
    np.testing.assert_array_equal(np.asarray(samples[0].given), RED[..., ::-1])
    assert samples[1].given.mode == "L"
    assert samples[2].file_name == "clip-000004.png"
    assert (module.captures[0].decoded, module.captures[0].released) == (3, True)


def test_a_video_that_is_left_is_closed(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = opencv(monkeypatch, [RED] * 5)
    frames = read_video(clip)
    next(frames)
    assert not module.captures[0].released
    frames.close()
    assert module.captures[0].released


def test_a_video_that_ends_early_is_said(
    clip: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opencv(monkeypatch, [RED] * 3, expected=9)
    assert len(list(read_video(clip))) == 3
    assert f"{clip}: gave 3 of the 9 frames that its header names" in caplog.text


def test_what_is_no_video(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opencv(monkeypatch, [])
    with pytest.raises(InputError, match=r"clip\.mp4: cannot be decoded as a video"):
        list(read_video(clip))
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(InputError, match=r"pipe\.mp4: cannot be read as a video \(a pipe; must be a plain file\)"):
        list(read_video(tmp_path / "pipe.mp4"))
    with pytest.raises(InputError, match=r"cannot be read as a video \(No such file or directory\)"):
        list(read_video("rtsp://localhost/clip.mp4"))
    for broken in (None, RED.astype(np.uint16), RED[0, 0]):
        opencv(monkeypatch, [RED, broken])
        with pytest.raises(InputError, match=r"clip\.mp4: frame 1 cannot be decoded"):
            list(read_video(clip))


def test_without_opencv(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    for frames in (read_video(clip), read_camera("0")):
        with pytest.raises(BackendMissing, match=r"need OpenCV, which cannot be imported.*pip install opencv-python"):
            next(frames)


@pytest.mark.parametrize(
    ("camera", "source", "api", "name"),
    [
        ("0", 0, 0, "camera 0"),
        ("/dev/video2", "/dev/video2", 0, "camera /dev/video2"),
        ("rtsp://me:se/cret@host/a", "rtsp://me:se/cret@host/a", 0, "camera rtsp://me:se/cret@host/a"),
        ("rtsp://me:s@cret@host/a", "rtsp://me:s@cret@host/a", 0, "camera rtsp://host/a"),
        ("nvarguscamerasrc ! appsink", "nvarguscamerasrc ! appsink", 1800, "camera nvarguscamerasrc ! appsink"),
    ],
)
def test_cameras(camera: str, source: Any, api: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = opencv(monkeypatch, [RED] * 4)
    frames = read_camera(camera, every=3)
    samples = [next(frames), next(frames)]
    assert [(sample.name, sample.frame) for sample in samples] == [(name, 0), (name, 3)]
    assert samples[0].time_s == pytest.approx(0, abs=5)
    (capture,) = module.captures
    assert (capture.source, capture.api, capture.settings) == (source, api, {38: 1})
    with pytest.raises(InputError, match="gives no more frames after 4"):
        next(frames)
    assert capture.released


@pytest.mark.parametrize("camera", ["", "-1", "clip.mp4", "file:///etc/passwd", "٣", "12345", "/etc/passwd"])
def test_what_is_no_camera(camera: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opencv(monkeypatch, [RED])
    with pytest.raises(InputError, match=r"camera is .*; must be its number, /dev/videoN, an address"):
        next(read_camera(camera))


def test_a_camera_that_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    module = opencv(monkeypatch, [], opens=False)
    with pytest.raises(InputError, match="camera 7: cannot be opened; is it connected"):
        next(read_camera("7"))
    assert module.captures[0].released
    with pytest.raises(InputError, match=r"cannot be opened; does this OpenCV have GStreamer \(the system's python3-"):
        next(read_camera("nvarguscamerasrc ! appsink"))


def test_a_real_video(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5.0, (64, 48))
    for i in range(5):
        writer.write(np.full((48, 64, 3), (0, 0, 50 * i), np.uint8))
    writer.release()
    samples = list(read_video(path, every=2))
    assert [(sample.frame, sample.time_s) for sample in samples] == [(0, 0.0), (2, 0.4), (4, 0.8)]
    for sample, red in zip(samples, (0, 100, 200), strict=True):
        assert sample.given.size == (64, 48)
        np.testing.assert_allclose(np.asarray(sample.given).mean(axis=(0, 1)), (red, 0, 0), atol=3)  # JPEG
