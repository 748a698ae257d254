"""Slices and groups of a list on a device: judged as a build does, and never passed over in silence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlx_deploy.runtime.commands.main import main
from dlx_deploy.runtime.errors import PackageError
from dlx_deploy.runtime.package.archive import INDEX, write_archive
from dlx_deploy.runtime.package.contents import assemble, parse_package
from dlx_deploy.runtime.tasks.grouped import numbered_groups, together
from dlx_deploy.runtime.tasks.judging import Judging
from dlx_deploy.runtime.tasks.judging import judged as judged_by
from dlx_deploy.runtime.tasks.labelled import columns_of_images, columns_of_texts
from dlx_deploy.runtime.tasks.labelled_arrays import write_arrays
from dlx_deploy.runtime.tasks.slices import SliceBudgets, asked_slices, slice_fields
from dlx_deploy.tasks.paired import Paired

LABELS = ["cat", "dog", "owl"]
CAMERAS = [f"{i % 2}" for i in range(300)]
"""Two cameras, 150 images each."""


def budgets(named: dict[str, float], others: float = 0.0, columns: Sequence[str] = ("camera",)) -> dict[str, object]:
    own = {"max_drop": 0.2, "confidence": 0.95, "max_latency_p90_ms": 0}
    return {**own, **slice_fields(SliceBudgets(tuple(columns), others, named))}


def packed(path: Path, helpers: Any, data: Any, **changes: Any) -> str:
    write_archive(path, assemble(helpers.tiny_contents(*data, **changes)))
    return str(path)


def table(path: Path, data: Any, **columns: Sequence[str]) -> Path:
    """A list of ``data``, each an image beside it, with other ``columns``."""
    images, labels = data
    rows = [",".join(["path", "label", *columns])]
    for i, (image, k) in enumerate(zip(images, labels, strict=True)):
        if not (path.parent / f"{i:03}.png").exists():
            Image.fromarray(image).save(path.parent / f"{i:03}.png")
        rows.append(",".join([f"{i:03}.png", LABELS[k], *(values[i] for values in columns.values())]))
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, data: Any) -> Path:
    """A folder of the images, with a list of them that has cameras."""
    return table(tmp_path_factory.mktemp("given") / "list.csv", data, Camera=CAMERAS)


@pytest.fixture(scope="module")
def wrong_at_night(helpers: Any, data: Any) -> dict[str, Any]:
    """A package whose teacher is right, and which itself is wrong on 20 of the 150 images of camera 1."""
    images, labels = (array.copy() for array in data)
    for i in range(1, 41, 2):
        images[i] = np.roll(images[i], 2, axis=0)  # it says the next class
    return {"images": images, "reference": helpers.tiny_reference(images, labels, labels)}


@pytest.fixture(scope="module")
def sinking(tmp_path_factory: pytest.TempPathFactory, helpers: Any, data: Any, wrong_at_night: Any) -> tuple[str, Path]:
    """That package, and a list of what it is judged by."""
    folder = tmp_path_factory.mktemp("sinking")
    asked = helpers.metadata(budgets=budgets({"camera=0": 0.05, "camera=1": 0.05}))
    shown = wrong_at_night["images"], data[1]
    package = packed(folder / "x.dlx", helpers, data, metadata=asked, reference=wrong_at_night["reference"])
    return package, table(folder / "list.csv", shown, camera=CAMERAS)


def test_a_slice_that_sank_is_a_miss_where_the_whole_passes(
    sinking: tuple[str, Path], data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    package, listed = sinking
    assert main(["verify", f"--data={listed}", "--json"], package) == 3
    seen = capsys.readouterr()
    assert "error: 1 of 2 slices drop too far at 0.95 confidence (Holm, over 2): 'camera=1' 13.33 points" in seen.err
    found = json.loads(seen.out)
    assert found["verdict"]["verdict"] == "pass"
    assert [(one["name"], one["samples"], one["lost"]) for one in found["slices"]["groups"]] == [
        ("camera=1", 150, 20),
        ("camera=0", 150, 0),
    ]
    assert ("max_slice_drop", "fail") in [(one["metric"], one["verdict"]) for one in found["judged"]]
    teacher, package_right = np.ones(300, np.bool_), np.ones(300, np.bool_)
    package_right[1:41:2] = False
    paired = Paired("top1", "top-1", "label")
    built = paired.by_slice({"right": teacher}, {"right": package_right}, {"camera": CAMERAS})  # as a build counts
    assert {(g.name, g.lost) for g in built} == {("camera=1", 20), ("camera=0", 0)}
    assert main(["verify", f"--data={listed}", "--max-slice-drop=0"], package) == 0
    assert "slices that drop: 'camera=1' 13.33 points (20 lost, 0 gained of 150)" in capsys.readouterr().out


def test_a_slice_that_sank_by_another_metric_is_a_miss_too(
    sinking: tuple[str, Path],
    tmp_path: Path,
    helpers: Any,
    data: Any,
    wrong_at_night: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = helpers.metadata(budgets=budgets({"camera=0": 0.05, "camera=1": 0.05}))
    how = {"task": judged_by(helpers.tiny_task(), Judging("macro_f1")), "reference": wrong_at_night["reference"]}
    package, listed = packed(tmp_path / "x.dlx", helpers, data, metadata=asked, **how), sinking[1]
    assert main(["verify", f"--data={listed}", "--json"], package) == 3
    seen = capsys.readouterr()
    assert "error: 1 of 2 slices drop too far at 0.95 confidence (Holm, over 2): 'camera=1' 13." in seen.err
    assert "(macro-F1 100.00 % to 86." in seen.err
    found = json.loads(seen.out)
    assert found["verdict"]["verdict"] == "pass"
    assert [(one["name"], one["samples"], one["teacher"]) for one in found["slices"]["groups"]] == [
        ("camera=1", 150, 1.0),
        ("camera=0", 150, 1.0),
    ]
    assert ("max_slice_drop", "fail") in [(one["metric"], one["verdict"]) for one in found["judged"]]
    old = packed(tmp_path / "old.dlx", helpers, data, **how)
    beside = ["verify", f"--data={listed}", f"--baseline={old}", "--json"]
    assert main(beside, package) == 3  # beside the old one, which answers the same, no slice drops
    base = json.loads(capsys.readouterr().out)["baseline"]["slices"]
    assert (base["budget"]["verdict"], base["groups"][0]["metric"]) == ("pass", "macro-F1")


def test_columns_that_are_asked_for_leave_out_no_budget_of_the_package(
    sinking: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    package, listed = sinking
    for columns in ("Camera", "label"):
        assert main(["verify", f"--data={listed}", f"--slices={columns}"], package) == 3
        assert (
            "error: 1 of 2 slices drop too far at 0.95 confidence (Holm, over 2): 'camera=1'" in capsys.readouterr().err
        )


@pytest.mark.parametrize("listed", [True, False])
def test_slices_whose_column_is_not_there_are_undecided(
    tmp_path: Path, given: Path, helpers: Any, data: Any, capsys: pytest.CaptureFixture[str], listed: bool
) -> None:
    asked = budgets({"camera=0": 0.05, "light=day": 0.05}, columns=("camera", "light"))
    package = packed(tmp_path / "x.dlx", helpers, data, metadata=helpers.metadata(budgets=asked))
    path = given if listed else tmp_path / "folders"
    if not listed:
        for i, (image, k) in enumerate(zip(*data, strict=True)):
            (path / LABELS[k]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path / LABELS[k] / f"{i}.png")
    assert main(["verify", f"--data={path}", "--json"], package) == 6
    seen = capsys.readouterr()
    lacking = "'light' are undecided" if listed else "'camera', 'light' are undecided"
    assert f"error: slices of {lacking}: the samples that were given do not come with " in seen.err
    assert "or judge without: --max-slice-drop 0" in seen.err
    judged = [(one["metric"], one["verdict"]) for one in json.loads(seen.out)["judged"]]
    assert judged.count(("max_slice_drop", "undecided")) == 1
    assert (("max_slice_drop", "pass") in judged) is listed
    assert main(["verify", f"--data={path}", "--max-slice-drop=0"], package) == 0


def test_a_slice_of_the_build_that_no_sample_is_of_is_undecided(
    tmp_path: Path, given: Path, helpers: Any, data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = budgets({"camera=0": 0.05, "camera=7": 0.05, "camera=9": 0.0})
    package = packed(tmp_path / "x.dlx", helpers, data, metadata=helpers.metadata(budgets=asked))
    assert main(["verify", f"--data={given}"], package) == 6
    seen = capsys.readouterr().err
    assert (
        "error: 1 of 2 slices are undecided at 0.95 confidence: 'camera=7' 0.00 points (0 lost, 0 gained of 0)" in seen
    )
    assert "about 59 more would decide" in seen


def test_slices_may_be_asked_of_any_package(
    dlx: Path, given: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, data: Any
) -> None:
    asked = ["verify", f"--data={given}", "--max-slice-drop=0.05"]
    assert main([*asked, "--slices=camera"], str(dlx)) == 0
    assert "all 2 slices keep to their budgets" in capsys.readouterr().out
    assert main([*asked, "--slices=camera", "--confidence=0.99999"], str(dlx)) == 6
    for more, said in (
        ([], "error: the budget of each slice is 0.05, and the package has none; name columns: --slices"),
        (["--slices=camera,light"], "error: --slices names 'light', and the samples that were given do not come with"),
        (["--slices=camera", "--max-slice-drop=1.5"], "error: the budget of each slice is 1.5; must be at least 0"),
    ):
        assert main([*asked, *more], str(dlx)) == 2
        assert said in capsys.readouterr().err
    gaps = table(tmp_path / "gaps.csv", (data[0][:4], data[1][:4]), camera=["0", "", "1", "1"])
    assert main(["verify", f"--data={gaps}", "--slices=camera"], str(dlx)) == 2
    assert (
        "gaps.csv, line 3: the column 'camera' is empty; a sample that may be judged is of" in capsys.readouterr().err
    )


def test_a_release_is_held_by_slices_too(
    sinking: tuple[str, Path], tmp_path: Path, helpers: Any, data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The teacher is as bad as the new package, so beside it no slice drops; the last release answers otherwise."""
    listed = sinking[1]
    images = np.stack([np.asarray(Image.open(listed.parent / f"{i:03}.png")) for i in range(300)])
    answers = helpers.expected_logits(images).argmax(axis=1)
    asked = helpers.metadata(budgets=budgets({"camera=0": 0.05, "camera=1": 0.05}))
    table_ = helpers.tiny_reference(images, data[1], answers)
    new = packed(tmp_path / "new.dlx", helpers, data, metadata=asked, reference=table_)
    assert main(["verify", f"--data={listed}"], new) == 0
    capsys.readouterr()
    other = {"model": helpers.tiny_model(shift=1), "golden": np.roll(helpers.expected_logits(data[0][:4]), 1, axis=1)}
    old = packed(tmp_path / "old.dlx", helpers, data, **other)
    shifted = np.where(
        np.arange(300) % 2, (data[1] + 1) % 3, data[1]
    )  # as the old one has camera 1 right, camera 0 not
    again = table(listed.parent / "again.csv", (images, shifted), camera=CAMERAS)
    assert main(["verify", f"--data={again}", f"--baseline={old}", "--max-drop=0.9", "--json"], new) == 3
    seen = capsys.readouterr()
    base = json.loads(seen.out)["baseline"]["slices"]
    assert base["budget"]["verdict"] == "fail"
    assert base["groups"][0]["name"] == "camera=1"
    assert "error: against the baseline tiny 1.2.3: 1 of 2 slices drop too far" in seen.err


def test_arrays_for_a_board_carry_slices_and_groups(
    tmp_path: Path, helpers: Any, data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = budgets({"camera=0": 0.05, "camera=1": 0.05})
    package = packed(tmp_path / "x.dlx", helpers, data, metadata=helpers.metadata(budgets=asked))
    images, labels = data
    path = tmp_path / "test.npz"

    def written(**columns: Any) -> str:
        write_arrays(path, {"images": images}, {"label": labels}, (), columns)
        return f"--data={path}"

    assert main(["verify", written(camera=CAMERAS)], package) == 0
    groups = [str(i // 2) for i in range(300)]
    assert main(["verify", written(camera=CAMERAS, group=groups), "--max-slice-drop=0.0195"], package) == 6
    assert "on 150 groups" in capsys.readouterr().out
    assert main(["verify", written()], package) == 6
    capsys.readouterr()
    np.savez(path, **{"input.images": images, "target.label": labels, "column.camera": np.arange(300)})
    assert main(["verify", f"--data={path}"], package) == 2
    assert "column.camera is int64[300]; must be strings [N], or left out" in capsys.readouterr().err


def test_a_list_that_splits_a_group_of_the_build_makes_nothing_surer(
    tmp_path: Path, helpers: Any, data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The build knows 60 groups; the list calls each image its own, or joins two groups through one image of both."""
    images, labels = data
    groups = np.arange(300) // 5
    task = judged_by(helpers.tiny_task(), Judging(grouped=True))
    known = {**helpers.tiny_reference(images, labels, labels), "group": groups}
    package = packed(tmp_path / "x.dlx", helpers, data, task=task, reference=known)
    for column, count in (
        ([str(i) for i in range(300)], 60),
        ([str(i // 10) for i in range(300)], 30),
        (["all"] * 300, 1),
    ):
        listed = table(tmp_path / "list.csv", data, group=column)
        assert main(["verify", f"--data={listed}"], package) == 6
        assert f"on {count} groups" in capsys.readouterr().out


def test_unknown_samples_are_of_the_groups_that_a_list_says(
    tmp_path: Path, helpers: Any, data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    images, labels = data
    task = judged_by(helpers.tiny_task(), Judging(grouped=True))
    half = {**helpers.tiny_reference(images[:150], labels[:150], labels[:150]), "group": np.arange(150) // 2}
    package = packed(tmp_path / "x.dlx", helpers, data, task=task, reference=half)
    (tmp_path / "teacher.onnx").write_bytes(helpers.tiny_model())
    asked = ["verify", f"--teacher={tmp_path / 'teacher.onnx'}", "--json"]
    plain = table(tmp_path / "plain.csv", data)
    assert main([*asked, f"--data={plain}"], package) == 0
    assert json.loads(capsys.readouterr().out)["of_no_known_group"] == 150
    listed = table(tmp_path / "list.csv", data, group=[str(i // 4) for i in range(300)])
    assert main([*asked, f"--data={listed}"], package) == 6
    seen = json.loads(capsys.readouterr().out)
    assert ("of_no_known_group" not in seen, seen["verdict"]["units"]) == (True, 75)


@pytest.mark.parametrize(
    ("one", "other", "joined"),
    [
        ([0, 0, 1, 1], [0, 1, 2, 3], [[0, 1], [2, 3]]),
        ([0, 1, 2, 3], [7, 7, 7, 8], [[0, 1, 2], [3]]),
        ([0, 0, 1, 2], [0, 1, 1, 2], [[0, 1, 2], [3]]),
    ],
)
def test_samples_are_together_where_either_says_so(one: list[int], other: list[int], joined: list[list[int]]) -> None:
    found = together(np.array(one), np.array(other)).tolist()
    assert [[i for i, g in enumerate(found) if g == group] for group in dict.fromkeys(found)] == joined


@pytest.mark.parametrize(("one", "other"), [("7", "7.0"), ("A", "a")])
def test_groups_that_differ_in_their_writing_only_are_refused_as_in_a_build(
    tmp_path: Path, dlx: Path, data: Any, capsys: pytest.CaptureFixture[str], one: str, other: str
) -> None:
    listed = table(tmp_path / "list.csv", data, group=[one, other] * 150)
    assert main(["verify", f"--data={listed}"], str(dlx)) == 2
    said = f"error: the groups {one!r} and {other!r} differ in their writing only; make them one"
    assert said in capsys.readouterr().err


def lines(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_the_first_row_of_json_lines_lacks_is_not_passed_over(
    tmp_path: Path, dlx: Path, data: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its group may be none, as in a build; a first row that is not judged hides no column of the others."""
    table(tmp_path / "list.csv", data)
    rows: list[dict[str, object]] = [
        {"path": f"{i:03}.png", "label": LABELS[k], "camera": CAMERAS[i], "group": f"g{i // 2}"}
        for i, k in enumerate(data[1])
    ]
    del rows[0]["group"]
    (tmp_path / "more.png").write_bytes((tmp_path / "000.png").read_bytes())
    first: dict[str, object] = {"path": "more.png", "split": "calibration", "camera": ""}
    judged = [{**row, "split": "test"} for row in rows]
    listed = lines(tmp_path / "list.jsonl", [first, *judged])
    found = columns_of_images(listed, ["camera", "light", "group"])
    assert found == {"camera": CAMERAS, "group": ["", *(f"g{i // 2}" for i in range(1, 300))]}
    assert main(["verify", f"--data={listed}"], str(dlx)) == 0
    assert "on 151 groups" in capsys.readouterr().out
    assert main(["verify", f"--data={listed}", "--slices=group"], str(dlx)) == 2
    assert "nothing in the column 'group', and slices are judged by it; fill it in" in capsys.readouterr().err
    del judged[7]["camera"]
    assert main(["verify", f"--data={lines(listed, [first, *judged])}", "--slices=camera"], str(dlx)) == 2
    assert "list.jsonl, line 9: has no column 'camera'" in capsys.readouterr().err


def test_texts_are_of_the_groups_that_their_own_rows_say(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": "x", **({"group": f"g{i // 2}"} if i else {})} for i in range(4)]
    file = lines(tmp_path / "test.jsonl", rows)
    assert columns_of_texts(file, ["source", "group"]) == {"group": ["", "g0", "g1", "g1"]}
    assert numbered_groups(["", "b", "", "a", "b"]).tolist() == [5, 2, 6, 1, 2]


def test_columns_of_texts_and_data_folders(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("text,label,Source,group\na b,x,web,1\nc,y,book,2\na  b,x,mail,3\n")
    assert columns_of_texts(tmp_path / "test.csv", ["source", "colour", "group"]) == {
        "source": ["web", "book"],
        "group": ["1", "2"],
    }
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.json").write_text("{}")
    assert columns_of_images(tmp_path / "data", ["camera"]) == {}
    beside = tmp_path / "slices.json"
    beside.write_text('{"camera": ["1", "2"], "light": ["day", "day"]}')
    assert columns_of_images(tmp_path / "data", ["camera", "x"]) == {"camera": ["1", "2"]}
    assert columns_of_texts(tmp_path / "data", ["light"]) == {"light": ["day", "day"]}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"columns": []}, r"budgets\.slices\.columns is \[\]; must be names of columns"),
        ({"columns": ["a=b"]}, r"must be names of columns, at least one, none with '='"),
        ({"named": {"light=day": 0.1}}, r"budgets\.slices\.named is 'light=day'; must name slices, COLUMN=VALUE"),
        ({"named": {"camera": 0.1}}, r"budgets\.slices\.named is 'camera'; must name slices"),
        ({"named": {"camera=1": 2}}, r"budgets\.slices\.named is 2; must be at least 0 and under 1"),
        ({"max_drop": 1.0}, r"budgets\.slices\.max_drop is 1\.0; must be at least 0 and under 1"),
    ],
)
def test_budgets_of_slices_that_a_package_cannot_have(
    helpers: Any, data: Any, wrong: dict[str, object], said: str
) -> None:
    held = budgets({"camera=1": 0.1})
    contents = helpers.tiny_contents(*data, metadata=helpers.metadata(budgets=held))
    assert parse_package(assemble(contents), "x").meta["schema"] == 4
    slices = held["slices"]
    assert isinstance(slices, dict)
    asked = helpers.metadata(budgets={**held, "slices": {**slices, **wrong}})
    with pytest.raises(PackageError, match=said):
        assemble(replace(contents, metadata=asked))
    assert json.loads(assemble(helpers.tiny_contents(*data))[INDEX])["schema"] == 2


def test_given_budgets_take_the_place_of_the_packages() -> None:
    own = SliceBudgets(("camera", "light"), 0.1, {"camera=1": 0.03, "light=day": 0.0})
    assert asked_slices(own, None, None) == own
    assert asked_slices(own, None, 0.2) == SliceBudgets(own.columns, 0.2, {"camera=1": 0.2, "light=day": 0.2})
    everything = SliceBudgets(("light", "camera"), 0.1, own.named)
    assert asked_slices(own, ("light",), None) == everything  # the package's own budgets are judged all the same
    assert asked_slices(own, ("LIGHT",), None) == everything
    assert asked_slices(own, ("light", "site"), 0.0) == SliceBudgets(("light", "site"), 0.0, {"light=day": 0.0})
    assert asked_slices(replace(own, others=0.0), ("site",), None).columns == ("site", "camera")
    assert (own.of("camera=1"), own.of("camera=2"), own.of("light=day")) == (0.03, 0.1, 0.0)
    assert [SliceBudgets(("a", "b"), 0, {"a=1": 0.1}).asks(name) for name in ("a", "b")] == [True, False]
