"""examples/gstreamer: with a stand-in for GStreamer's bindings, and on GStreamer itself where these are."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.bundles.packages import classes, written
from tests.modules import load_module
from tests.runtime.conftest import make_images

SCRIPT = Path(__file__).parents[2] / "examples" / "gstreamer" / "package_appsink.py"


class Sample:
    """A frame in a buffer whose rows end on multiples of 4 bytes, as GStreamer's."""

    def __init__(self, pixels: np.ndarray, number: int) -> None:
        height, width, _ = pixels.shape
        rows = np.pad(pixels.reshape(height, -1), ((0, 0), (0, -3 * width % 4)))
        self.size, self.data, self.pts, self.mapped = {"width": width, "height": height}, rows.tobytes(), number, 0

    def get_caps(self) -> Any:
        return SimpleNamespace(get_structure=lambda i: SimpleNamespace(get_value=self.size.get))

    def get_buffer(self) -> Sample:
        return self

    def map(self, flags: object) -> tuple[bool, Any]:
        self.mapped += 1
        return True, SimpleNamespace(data=self.data)

    def unmap(self, held: object) -> None:
        self.mapped -= 1


class Pipeline:
    """Gives its samples and then, as appsink, nothing; ``error``: what the bus says."""

    def __init__(self, samples: list[Sample], error: str = "", eos: bool = True) -> None:
        self.samples, self.error, self.eos, self.states = list(samples), error, eos, []
        self.bus = SimpleNamespace(timed_pop_filtered=self.message)

    def message(self, wait: int, kind: object) -> Any:
        return SimpleNamespace(parse_error=lambda: (self.error, "where")) if self.error else None

    def get_by_name(self, name: str) -> Pipeline:
        return self

    def get_bus(self) -> Any:
        return self.bus

    def set_state(self, state: str) -> None:
        self.states.append(state)

    def emit(self, signal: str, wait: int) -> Sample | None:
        return self.samples.pop(0) if self.samples else None

    def get_property(self, name: str) -> bool:
        return self.eos


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    launched: list[str] = []
    gst = SimpleNamespace(
        MapFlags=SimpleNamespace(READ=1),
        State=SimpleNamespace(PLAYING="playing", NULL="null"),
        MessageType=SimpleNamespace(ERROR=2),
        init=lambda arguments: None,
    )
    gi, repository = ModuleType("gi"), ModuleType("gi.repository")
    gi.require_version = lambda name, version: None  # type: ignore[attr-defined]
    repository.Gst = gst  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gi", gi)
    monkeypatch.setitem(sys.modules, "gi.repository", repository)
    module = load_module(SCRIPT)

    def plays(pipeline: Pipeline) -> None:
        gst.parse_launch = lambda text: launched.append(text) or pipeline

    return SimpleNamespace(module=module, plays=plays, launched=launched)


@pytest.fixture
def clean_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the example puts on the path, and imports from there, goes with the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "dlx_runtime"]:
        del sys.modules[name]


def test_a_line_for_each_frame(
    example: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], clean_path: None
) -> None:
    samples = [Sample(pixels, number * 10**9) for number, pixels in enumerate(make_images(3)[0])]
    pipeline = Pipeline(samples)
    example.plays(pipeline)
    example.module.main(str(written(tmp_path, classes())), "videotestsrc", live=True)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [max(one["answer"], key=one["answer"].get) for one in told] == ["cat", "dog", "owl"]
    assert [one["time_s"] for one in told] == [0, 1, 2]
    assert pipeline.states == ["playing", "null"]
    assert [sample.mapped for sample in samples] == [0, 0, 0]
    assert example.launched[0].startswith("videotestsrc ! videoconvert ! video/x-raw,format=RGB ! appsink name=frames")
    assert example.launched[0].endswith("drop=true")


def test_rows_that_are_padded_are_cut(example: Any) -> None:
    pixels = np.arange(5 * 3 * 3, dtype=np.uint8).reshape(5, 3, 3)
    assert example.module.pixels_of(Sample(pixels, 0)).tolist() == pixels.tolist()
    short = Sample(pixels, 0)
    short.size["width"] = 5
    with pytest.raises(ValueError, match=r"60 bytes are no 5 x 5 RGB pixels"):
        example.module.pixels_of(short)
    assert short.mapped == 0


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        (Pipeline([], error="no such device"), "the pipeline failed: no such device"),
        (Pipeline([], eos=False), "no frame came for 5 s"),
    ],
)
def test_a_pipeline_that_fails_says_so_and_stops(example: Any, pipeline: Pipeline, message: str) -> None:
    example.plays(pipeline)
    with pytest.raises(RuntimeError, match=message):
        list(example.module.frames("v4l2src"))
    assert pipeline.states == ["playing", "null"]


@pytest.mark.skipif(importlib.util.find_spec("gi") is None, reason="GStreamer's Python bindings (gi) are not here")
def test_on_gstreamer_itself() -> None:
    module = load_module(SCRIPT)
    taken = list(module.frames("videotestsrc num-buffers=3 pattern=red ! video/x-raw,width=33,height=21"))
    assert [pixels.shape for _, pixels in taken] == [(21, 33, 3)] * 3
    assert all((pixels == [255, 0, 0]).all() for _, pixels in taken)
    with pytest.raises(RuntimeError, match="no pipeline: "):
        list(module.frames("nosuchelement"))
