"""What flips between two graphs, and how it is shown."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image

from dlx_deploy.debugging.answers import Labelled
from dlx_deploy.debugging.debug import Debugged, debug_package
from dlx_deploy.debugging.flips import chance_note, confusions, flips_between
from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import load
from dlx_deploy.report import debug_files
from dlx_deploy.report.debug_facts import ConfusionCell, changed_cells
from dlx_deploy.report.debug_files import confusion_svg, flip_sheet
from dlx_deploy.report.debugging import DebugView
from dlx_deploy.runtime.tasks.classes import Classes
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.image_inputs import ImageInputs
from dlx_deploy.runtime.tasks.masks import Masks
from dlx_deploy.tasks.readings import png_of
from dlx_deploy.tasks.told import Told, all_told, told_classes, told_masks

from ..arrays import samples
from .conftest import Bench, scale_by, scale_of_input

NAMES = ("cat", "dog", "owl")


def told(answered: list[int], wanted: list[int], sure: float = 4.0) -> Told:
    logits = np.zeros((len(answered), 3), np.float32)
    logits[np.arange(len(answered)), answered] = sure
    return told_classes({"logits": logits}, {"label": np.array(wanted)}, Classes(NAMES))


def labelled(count: int, names: tuple[str, ...] = (), texts: tuple[str, ...] = ()) -> Labelled:
    return Labelled(samples(np.zeros((count, 2), np.int32), name="x"), {}, names, count, texts)


def test_flips_go_both_ways() -> None:
    wanted = [0, 0, 1, 2, 2]
    before, after = told([0, 0, 2, 0, 0], wanted), told([1, 0, 1, 1, 0], wanted, sure=2.0)
    found = flips_between(before, after, labelled(5, ("a.png", "b.png", "c.png", "d.png", "e.png")))
    assert [(flip.direction, flip.name, flip.wanted, flip.before, flip.after) for flip in found] == [
        ("lost", "a.png", "cat", "cat", "dog"),
        ("won", "c.png", "dog", "owl", "dog"),
        ("other", "d.png", "owl", "cat", "dog"),
    ]
    assert found[0].before_confidence == pytest.approx(np.exp(4) / (np.exp(4) + 2), abs=1e-4)
    assert found[0].after_confidence == pytest.approx(np.exp(2) / (np.exp(2) + 2), abs=1e-4)


def test_confusions_are_counted_and_those_that_changed_come_first() -> None:
    wanted = [0, 0, 0, 1, 1, 2]
    before, after = told([0, 0, 0, 1, 0, 2], wanted), told([1, 1, 0, 1, 1, 2], wanted)
    cells = confusions(before, after)
    assert sum(cell.before for cell in cells) == sum(cell.after for cell in cells) == 6
    assert changed_cells(cells) == [
        ConfusionCell(wanted="cat", answered="dog", before=0, after=2),
        ConfusionCell(wanted="dog", answered="cat", before=1, after=0),
    ]
    halves = all_told([told([0, 0, 0], wanted[:3]), told([1, 0, 2], wanted[3:])])
    assert (halves.confusion == before.confusion).all()
    assert halves.answers == before.answers


@pytest.mark.parametrize(
    ("lost", "won", "said"),
    [
        (8, 6, "p = 0.79"),
        (5, 0, "p = 0.06"),
        (6, 0, ""),
        (3, 3, ""),
        (0, 4, ""),
        (900, 700, ""),
        (510, 500, "p = 0.78"),
    ],
)
def test_few_flips_more_in_one_direction_may_be_chance(lost: int, won: int, said: str) -> None:
    before = told([0] * (lost + won), [0] * lost + [1] * won)
    after = told([1] * (lost + won), [0] * lost + [1] * won)
    note = chance_note(flips_between(before, after, labelled(lost + won)))
    assert said in note
    assert bool(note) == bool(said)


def test_a_mask_flips_where_a_tenth_of_its_pixels_do() -> None:
    masks = np.zeros((3, 4, 5), np.uint8)
    masks[:, 0] = 255
    logits = np.zeros((3, 2, 4, 5), np.float32)
    logits[:, 0] = 1
    device = Masks(("road", "sky"), Framing(4, 5, 3))
    before = told_masks({"logits": logits}, {"mask": masks}, device)
    assert before.right.tolist() == [1, 1, 1]
    assert before.confusion.tolist() == [[45, 0], [0, 0]], "pixels that are ignored are not counted"
    other = logits.copy()
    other[1, 1, 1, 0] = 3
    other[2, 1, 1, :3] = 3
    after = told_masks({"logits": other}, {"mask": masks}, device)
    (flip,) = flips_between(before, after, labelled(3))
    assert (flip.number, flip.direction, flip.after) == (2, "lost", "80.0% of pixels right")
    assert changed_cells(confusions(before, after)) == [ConfusionCell(wanted="road", answered="sky", before=0, after=4)]


@pytest.fixture(scope="module")
def lossy(bench: Bench) -> Path:
    scale = scale_of_input(load(bench.folder / "tensorrt.onnx"), "conv3/Conv")
    return bench.package("lossy", change=scale_by(0.05, scale))


def test_all_is_written_into_a_folder(bench: Bench, lossy: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    view = debug_package(Debugged(lossy, bench.folder / "store", layers=0, out=out))
    assert sorted(path.name for path in out.iterdir()) == ["confusion.svg", "debug.json", "debug.txt", "flips.html"]
    assert (out / "debug.txt").read_text().rstrip("\n") == view.text
    written = json.loads((out / "debug.json").read_text())
    assert len(written["flips"]) == len(view.flips) > 10
    assert {flip.direction for flip in view.flips} == {"lost"}, "in floating point all are right"
    assert sum(cell["after"] for cell in written["confusion"]) == 200
    assert f"flips: {len(view.flips)} lost, 0 won, 0 wrong in another way" in view.text
    page = (out / "flips.html").read_text()
    drawn = re.findall(r"data:image/png;base64,([^\"]+)", page)
    assert len(drawn) == min(len(view.flips), 120)
    image = Image.open(io.BytesIO(base64.b64decode(drawn[0])))
    assert image.size == (112, 112)
    pixels = np.load(bench.folder / "data" / "test.images.npy")[view.flips[0].number, :, :, 0]
    assert (np.asarray(image)[::14, ::14] == pixels).all(), "the very sample, enlarged"
    assert b"<svg" in (out / "confusion.svg").read_bytes()[:600]
    with pytest.raises(ConfigError, match=r"--out .*debug\.txt: cannot be made a folder \(File exists\); name another"):
        debug_package(Debugged(lossy, bench.folder / "store", out=out / "debug.txt"))


def shown(bench: Bench, lossy: Path) -> DebugView:
    return debug_package(Debugged(lossy, bench.folder / "store", layers=0, samples=60))


def test_names_of_others_are_escaped_and_texts_are_quoted(bench: Bench, lossy: Path) -> None:
    view = shown(bench, lossy)
    evil = replace(view.flips[0], name="<img src=x>\x1b", text="<b>so it goes</b>", wanted="<script>")
    page = flip_sheet(replace(view, flips=(evil,), name="<script>"), lambda number: None)
    assert "<script>" not in page
    assert "<img" not in page
    assert "\x1b" not in page
    assert "<blockquote>&lt;b&gt;so it goes&lt;/b&gt;</blockquote>" in page
    text = replace(view, flips=(evil,)).text
    assert "\x1b" not in text


def test_many_classes_become_the_most_confused(bench: Bench, lossy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug_files, "MOST_CLASSES", 4)
    cells = [ConfusionCell(wanted=f"c{i}", answered=f"c{i}", before=9, after=8) for i in range(300)]
    cells += [ConfusionCell(wanted="c250", answered="c7", before=0, after=5)]
    drawn = confusion_svg(replace(shown(bench, lossy), confusion=tuple(cells)))
    assert drawn is not None
    assert b"c250" in drawn
    assert b"c199" not in drawn


def test_a_network_that_reads_blue_first_is_shown_in_its_colours() -> None:
    pixels = np.zeros((1, 200, 100, 3), np.uint8)
    pixels[..., 0] = 255  # blue, as the network reads it
    inputs = ImageInputs(Framing(200, 100, 3, color_order="bgr"))
    image = Image.open(io.BytesIO(png_of(inputs, {"images": pixels}, 0)))
    assert image.size == (56, 112)
    assert image.getpixel((3, 3)) == (0, 0, 255)


def test_a_task_that_tells_nothing_is_compared_all_the_same(
    bench: Bench, lossy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dlx_deploy.tasks.classes import Classes as Answers

    monkeypatch.delattr(Answers, "told")
    view: Any = shown(bench, lossy)
    assert view.flips == view.confusion == ()
    assert "flips" not in view.text
