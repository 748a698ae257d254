"""What ``dlx-deploy data`` sees: counts, odd files, copies and near-copies across splits."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from dlx_deploy.config import Data, Gate
from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.kinds import has_training, kind_of
from dlx_deploy.nn.data.survey.findings import Finding, Survey, Surveyed
from dlx_deploy.nn.data.survey.sketches import Sketches, near_pairs, sketch
from dlx_deploy.progress import silent
from dlx_deploy.report.contact_sheet import contact_sheet
from dlx_deploy.report.datasets import SurveyView
from dlx_deploy.report.view import to_json
from dlx_deploy.tasks import survey

from ...conftest import Here


def scene(seed: int, side: int = 48) -> Image.Image:
    """A smooth picture, each of its own."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def folder(root: Path, counts: dict[str, int], first: int = 0) -> Path:
    seeds = iter(range(first, 10_000))
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            scene(next(seeds)).save(root / name / f"{i:03}.png")
    return root


def seen(root: Path, **keys: object) -> Surveyed:
    return survey(Data(kind=kind_of(root), path=str(root), **keys), 0)  # type: ignore[arg-type]


def kinds(result: Survey) -> dict[str, Finding]:
    return {finding.kind: finding for finding in result.findings}


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half the size": lambda p: p.resize((24, 24)),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.2),
    "grey": lambda p: p.convert("L"),
    "compressed": lambda p: Image.open(_jpeg(p)),
}


def _jpeg(picture: Image.Image) -> io.BytesIO:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=40)
    return io.BytesIO(out.getvalue())


@pytest.mark.parametrize("change", CHANGES)
def test_near_copies_are_found_among_others(change: str) -> None:
    others = Sketches.of([sketch(scene(i)) for i in range(300)])
    queries = Sketches.of(
        [sketch(CHANGES[change](scene(i))) for i in (7, 250)] + [sketch(scene(i)) for i in (901, 902)]
    )
    assert [(row, at) for row, at, _ in near_pairs(queries, others, silent)] == [(0, 7), (1, 250)]


def test_flat_pictures_are_no_copies_of_each_other() -> None:
    flat = Sketches.of([sketch(Image.new("RGB", (32, 32), (i, i, i))) for i in (0, 128, 255)])
    assert near_pairs(flat, flat, silent) == []
    assert near_pairs(Sketches.of([]), flat, silent) == []


def test_counts_sizes_and_drawn_splits(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", {"train/a": 40, "train/b": 20, "test/a": 6, "test/b": 5})
    result = seen(root).survey
    splits = {split.name: (split.count, split.origin, split.per_class) for split in result.splits}
    assert splits == {
        "train": (54, "", (36, 18)),
        "calibration": (54, "train", ()),
        "validation": (6, "train", (4, 2)),
        "test": (11, "", (6, 5)),
    }
    assert [(s.name, s.least, s.median, s.most) for s in result.spreads[:2]] == [
        ("width", 48, 48, 48),
        ("height", 48, 48, 48),
    ]
    assert result.tallies["format"] == {"PNG": 71}
    assert set(kinds(result)) == {"few_in_train", "few_in_test"}
    text = SurveyView(result).text
    assert re.search(r"validation\s+6\s+2 to 4\s+drawn from train", text)
    assert text.endswith("A build would take these data.")
    assert SurveyView(result).failure is None


def test_odd_files_and_what_a_build_does_with_them(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", {"train/a": 12, "train/b": 12, "test/a": 4, "test/b": 4})
    (root / "train/a/cut.png").write_bytes((root / "train/a/000.png").read_bytes()[:300])
    (root / "train/a/notes.txt").write_text("x")
    scene(90).convert("CMYK").save(root / "train/a/print.jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 2**16, (30, 30)).astype(np.uint16)).save(
        root / "train/b/deep.png"
    )
    turned = Image.Exif()
    turned[0x112] = 6
    scene(91).save(root / "train/b/turned.jpg", exif=turned)
    scene(92).save(root / "train/b/lies.png", format="JPEG")
    scene(93).convert("RGBA").save(root / "train/b/alpha.png")
    scene(94).resize((100, 20)).save(root / "train/b/long.png")
    found = kinds(seen(root, height=40, width=60).survey)
    files = {kind: finding.files for kind, finding in found.items()}
    assert files["cmyk"] == ("train/a/print.jpg",)
    assert files["deep"] == ("train/b/deep.png",)
    assert files["turned"] == ("train/b/turned.jpg",)
    assert files["suffix"] == ("train/b/lies.png",)
    assert files["alpha"] == ("train/b/alpha.png",)
    assert files["long"] == ("train/b/long.png",)
    assert files["small"] == ("train/b/deep.png",)
    assert files["left_out"] == ("train/a/notes.txt",)
    assert found["mixed_modes"].count == 1
    assert found["unreadable"].severity == "refused"
    assert files["unreadable"][0].startswith("train/a/cut.png: cannot be decoded as an image (")
    spared = kinds(seen(root, max_bad_fraction=0.2).survey)["unreadable"]
    assert (spared.severity, "they are left out" in spared.text) == ("warning", True)


def test_copies_across_splits_are_paired(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", {"train/a": 12, "train/b": 12, "test/a": 4, "test/b": 4})
    (root / "test/b/leak.png").write_bytes((root / "train/a/003.png").read_bytes())
    scene(4).resize((30, 30)).save(root / "test/a/near.jpg", quality=70)
    scene(5).resize((30, 30)).save(root / "test/b/other.jpg", quality=70)
    result = seen(root).survey
    assert [(p.first, p.second, p.exact) for p in result.copies] == [("train/a/003.png", "test/b/leak.png", True)]
    assert {(p.first, p.second) for p in result.near} == {
        ("train/a/004.png", "test/a/near.jpg"),
        ("train/a/005.png", "test/b/other.jpg"),
    }
    found = kinds(result)
    assert (found["leaked"].severity, found["contradictory"].count, found["near_contradictory"].count) == (
        "refused",
        2,
        1,
    )
    view = SurveyView(result)
    assert "test/b/leak.png (test) is train/a/003.png (train)" in view.text
    assert "test/a/near.jpg (test) looks like train/a/004.png (train)" in view.text
    assert str(view.failure).startswith(
        "a build would stop: 1 of 35 images are in several of the splits that are given"
    )
    assert kinds(seen(root, allow_leakage=True).survey)["allowed_leak"].severity == "warning"
    undivided = folder(tmp_path / "pool", {"a": 12, "b": 12}, first=500)
    (undivided / "a/again.png").write_bytes((undivided / "a/003.png").read_bytes())
    assert kinds(seen(undivided).survey).keys() & {"copies", "repeated"}
    assert not seen(undivided).survey.refusals


def test_what_a_build_would_refuse_is_the_first_thing_said(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", {"train/a": 3, "train/b": 3, "test/a": 3})
    result = seen(root).survey
    assert result.findings[0].kind == "layout"
    with pytest.raises(DataError, match=r"a build would stop: .*test: nothing of class 'b' \(1 such\)"):
        raise SurveyView(result).failure or AssertionError
    assert {split.name for split in result.splits} >= {"train", "test"}
    folder(tmp_path / "alone", {"calibration": 2})
    alone = survey(Data(kind="imagefolder", path=str(tmp_path / "alone")), 0).survey
    assert ([split.count for split in alone.splits], alone.findings[0].severity) == ([2], "refused")


def test_the_contact_sheet_is_whole_and_harmless(tmp_path: Path) -> None:
    root = folder(
        tmp_path / "set", {"train/<script>alert(1)<": 5, "train/b": 5, "test/<script>alert(1)<": 2, "test/b": 2}
    )
    scene(0).resize((40, 40)).save(root / 'test/b/"onerror=x\n.png')
    steps: list[tuple[float, float]] = []
    surveyed = seen(root)
    page = contact_sheet(surveyed, lambda done, total, text="": steps.append((done, total)))
    assert "<script" not in page
    assert "onerror=x" not in page.replace("&quot;onerror=x\\n", "")
    assert re.findall(r'src="(?!data:image/jpeg;base64,)', page) == []
    assert "default-src 'none'; img-src data:" in page
    assert page.count("<img ") == len(surveyed.survey.examples) + 2 == 17
    assert steps[-1][0] <= steps[-1][1]
    assert "nearly the same (" in page


def test_texts_and_masks_have_surveys_too(tmp_path: Path) -> None:
    rows = "".join(f"text {i % 18} of kind,{'ab'[i % 2]}\n" for i in range(40)) + "text  3 of kind,a\n"
    (tmp_path / "t.csv").write_text("text,label\n" + rows)
    found = kinds(seen(tmp_path / "t.csv").survey)
    assert (found["repeated"].count, found["contradictory"].count) == (23, 1)
    assert "length" in SurveyView(seen(tmp_path / "t.csv").survey).text
    assert "<blockquote>" in contact_sheet(seen(tmp_path / "t.csv"), silent)
    for split, count in (("train", 6), ("test", 3)):
        for part in ("images", "masks"):
            (tmp_path / "seg" / split / part).mkdir(parents=True)
        for i in range(count):
            scene(i + 50 * count).save(tmp_path / "seg" / split / "images" / f"{i}.jpg")
            mask = np.zeros((48, 48), np.uint8)
            mask[:, :12] = 1
            Image.fromarray(mask).save(tmp_path / "seg" / split / "masks" / f"{i}.png")
    (tmp_path / "seg/classes.txt").write_text("ground\ndog\ncat\n")
    masks = seen(tmp_path / "seg")
    assert masks.survey.shares["test"] == (0.75, 0.25, 0.0)
    assert (kinds(masks.survey)["unseen"].severity, kinds(masks.survey)["unseen"].files) == ("refused", ("cat",))
    assert contact_sheet(masks, silent).count("<img ") == len(masks.survey.examples)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "seg/test/masks/0.png")
    broken = kinds(seen(tmp_path / "seg").survey)["unreadable_masks"]
    assert "is 9 x 9 pixels, and its image 0.jpg 48 x 48" in broken.files[0]


def test_samples_that_are_no_files_are_counted() -> None:
    scenes = SurveyView(survey(Data(kind="scenes"), 0).survey)
    assert re.search(r"test +\d+ +- +drawn from train", scenes.text)
    digits = survey(Data(), 0)
    assert [split.count for split in digits.survey.splits] == [1078, 256, 120, 599]
    assert "1,797 images of 10 classes" in SurveyView(digits.survey).text
    assert "<img" not in contact_sheet(digits, silent)


def test_kinds_are_told_by_what_lies_there(tmp_path: Path) -> None:
    assert kind_of(folder(tmp_path / "all", {"a": 1, "b": 1})) == "imagefolder"
    tested = folder(tmp_path / "tested", {"test/a": 1, "test/b": 1})
    assert (kind_of(tested), has_training(Data(kind="imagefolder", path=str(tested)))) == ("imagefolder", False)
    (tmp_path / "list.csv").write_text("path,label\nall/a/000.png,x\n")
    (tmp_path / "text.jsonl").write_text('{"text": "a", "label": "x"}\n')
    assert [kind_of(tmp_path / name) for name in ("list.csv", "text.jsonl")] == ["imagelist", "text"]
    (tmp_path / "empty.csv").write_text("path,label\n")
    with pytest.raises(DataError, match=r"empty\.csv: holds no rows; give texts, or paths of images"):
        kind_of(tmp_path / "empty.csv")
    (tmp_path / "x.zip").write_text("")
    with pytest.raises(DataError, match=r"x\.zip: is a \.zip file; data are a folder, or texts or a list"):
        kind_of(tmp_path / "x.zip")


def test_groups_and_the_gate_are_spoken_of(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", {"a": 30, "b": 30})
    result = survey(Data(kind="imagefolder", path=str(root), group_by=r"\d\d(\d)"), 0, silent, Gate()).survey
    assert set(result.tallies["groups"]) == {"train", "validation", "test"}
    assert sum(result.tallies["groups"].values()) == 10
    assert "the test split has" in kinds(result)["gate"].text
    assert "gate" not in kinds(survey(Data(), 0, silent, Gate()).survey), "599 digits are enough"


def test_the_command(here: Here, tmp_path: Path) -> None:
    root = folder(tmp_path / "set", {"test/a": 12, "test/b": 12})
    ran = here("data", "--data", root, "--html", "sheet.html", "--json")
    assert ran.code == 0, ran.err
    said = json.loads(ran.out)
    assert [(s["name"], s["count"]) for s in said["splits"]] == [
        ("train", 0), ("calibration", 6), ("validation", 2), ("test", 16),
    ]  # fmt: skip
    assert "examples" not in said or said["examples"] == []
    assert "nothing to train on, so it is looked at as what a finished network is judged by" in ran.err
    assert (tmp_path / "sheet.html").read_text().startswith("<!doctype html>")
    (tmp_path / "deploy.toml").write_text(f'[data]\nkind = "imagefolder"\npath = "{root}"\nheight = 8\n')
    trains = here("data", "-c", "deploy.toml")
    assert (trains.code, "has no train folder" in trains.err) == (2, True)
    assert (here("data", "--html", "photos.jpg").code, os.path.exists(tmp_path / "photos.jpg")) == (2, False)
    assert "the test split has 16 samples" in ran.out
    lost = here("data", "--data", "nowhere")
    assert (lost.code, "nowhere: no such folder or file" in lost.err) == (2, True)
    assert to_json(Data())
