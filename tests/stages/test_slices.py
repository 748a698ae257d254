"""Slices of the test split: from a column of a list to counts, a table and budgets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from dlx_deploy.config import Config, Data, Gate
from dlx_deploy.errors import ConfigError, DataError
from dlx_deploy.nn.data.slices import SLICES, read_slices
from dlx_deploy.pipeline.gate import GateResult
from dlx_deploy.pipeline.key import key_document
from dlx_deploy.pipeline.stage import Offers
from dlx_deploy.progress import silent
from dlx_deploy.report.contact_sheet import contact_sheet
from dlx_deploy.report.datasets import SurveyView
from dlx_deploy.report.page.judged import models_of
from dlx_deploy.report.results import read_results
from dlx_deploy.runtime.statistics.groups import Group
from dlx_deploy.stages import verify
from dlx_deploy.stages.data import STAGE, bind, notes, refuse_data
from dlx_deploy.stages.support.regression import baseline_of, judge_regression
from dlx_deploy.targets import load_target
from dlx_deploy.tasks import prepare, survey
from dlx_deploy.tasks.means import MeanScores
from dlx_deploy.tasks.paired import Paired
from dlx_deploy.tasks.verification import Accuracy, Row

from ..nn.data.layouts import picture, prepared, table
from .support.planning import planned
from .support.verifications import outputs

DAY, NIGHT = Group("light=day", 600, 590, 590, 0, 0), Group("light=night", 400, 390, 350, 40, 0)
SLICES_SEEN = (DAY, NIGHT, Group("camera=3", 1000, 980, 940, 40, 0))


def listed(folder: Path, **more: Sequence[str]) -> Path:
    """A list of 24 pictures of two classes, 8 of them to judge by, with other columns."""
    names = [picture(folder / f"{i}.png").name for i in range(24)]
    rows: list[dict[str, str]] = [
        {"path": name, "label": "ab"[i % 2], "split": "train" if i < 16 else "test"} for i, name in enumerate(names)
    ]
    for column, values in more.items():
        rows = [{**row, column: value} for row, value in zip(rows, values, strict=True)]
    return table(folder / "list.csv", rows)


def judge(budgets: Gate, folder: Path, **given: Any) -> Sequence[GateResult]:
    return verify.judge(Config(gate=budgets), outputs(folder, **given), {})


@pytest.mark.parametrize("given_test", [True, False])
def test_texts_keep_their_slices(tmp_path: Path, given_test: bool) -> None:
    """Copies that are left out shift no row; where there is no test file, that of ``train`` is asked."""
    rows = [{"text": f"t{i % 30} of it", "label": "ab"[i % 2], "Source": f"s{i % 30}"} for i in range(32)]
    (tmp_path / "given").mkdir()
    if given_test:
        table(tmp_path / "given" / "test.csv", [*rows[:1], *rows[30:], *rows[1:10]])
    plain = [{key: row[key] for key in ("text", "label")} for row in rows[10:30]]
    table(tmp_path / "given" / "train.csv", plain if given_test else rows)
    data = Data(kind="text", path=str(tmp_path / "given"), slices=("source",), allow_missing_classes=True)
    (tmp_path / "out").mkdir()
    prepare(data, tmp_path / "out" / "data", 0)
    texts = json.loads((tmp_path / "out" / "data" / "test.texts.json").read_text())
    assert [f"t{of[1:]} of it" for of in read_slices(tmp_path / "out" / SLICES)["source"]] == texts
    assert len(texts) >= 9
    with pytest.raises(DataError, match=r"has no column 'colour'"):
        prepare(replace(data, slices=("colour",)), tmp_path / "out" / "other", 0)


def test_each_test_sample_keeps_its_slices(tmp_path: Path) -> None:
    """Rows that are not judged need none; a column is found in any case, and may be the label too."""
    night = [""] * 16 + ["night", "day"] * 4
    given = listed(tmp_path, Light=night, camera=[str(i) for i in range(24)])
    data, _ = prepared(tmp_path / "out", given, slices=("light", "camera", "label"))
    columns = read_slices(tmp_path / SLICES)
    images = data.samples("test").arrays["images"]
    of = {pixels_of(tmp_path / f"{i}.png"): i for i in range(24)}
    numbers = [of[image.tobytes()] for image in images]
    assert sorted(numbers) == list(range(16, 24))
    assert list(columns) == ["light", "camera", "label"]
    assert columns["camera"] == [str(i) for i in numbers]
    assert columns["light"] == [night[i] for i in numbers]
    assert columns["label"] == [data.classes[k] for k in data.targets("test")]


def pixels_of(path: Path) -> bytes:
    from dlx_deploy.runtime.tasks.framing import Framing
    from dlx_deploy.runtime.tasks.images import load_image

    return load_image(path, Framing(4, 4, 3)).tobytes()


@pytest.mark.parametrize(
    ("light", "asked", "message"),
    [
        ("", "light", r"line 18: the column 'light' is empty; a sample that may be judged is of a slice"),
        ("nan", "light", r"line 18: the column 'light' is 'nan', which stands for a missing one"),
        ("a\x07", "light", r"line 18: the column 'light' is 'a\\x07', which holds a control character"),
        ("day", "ligth", r"line 18: has no column 'ligth'; nearest: 'light'"),
    ],
)
def test_samples_that_are_of_no_slice_are_refused(tmp_path: Path, light: str, asked: str, message: str) -> None:
    given = listed(tmp_path, light=["day"] * 16 + [light] * 8)
    with pytest.raises(DataError, match=message):
        prepared(tmp_path / "out", given, slices=(asked,))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_test_split_that_is_drawn_has_no_gaps(tmp_path: Path, split: str) -> None:
    rows = [
        {
            "path": picture(tmp_path / f"{i}.png").name,
            "label": "ab"[i % 2],
            "split": split,
            "camera": "1" * (i % 3 > 0),
        }
        for i in range(24)
    ]
    given = table(tmp_path / "list.csv", rows)
    message = f"line 2: there is nothing in the column 'camera', and without rows of the split 'test' that .* '{split}'"
    with pytest.raises(DataError, match=message):
        prepared(tmp_path / "out", given, slices=("camera",))


def test_rows_of_json_that_are_not_judged_need_no_key_of_a_slice(tmp_path: Path) -> None:
    """Each has keys of its own; a slice that none has is refused all the same, and a number is no gap."""
    rows: list[dict[str, object]] = [
        {"path": picture(tmp_path / f"{i}.png").name, "label": "ab"[i % 2], "split": "train" if i < 16 else "test"}
        for i in range(24)
    ]
    given = tmp_path / "list.jsonl"

    def write(rows: Sequence[dict[str, object]]) -> None:
        given.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    write([*rows[:16], *({**row, "camera": 0} for row in rows[16:])])
    prepared(tmp_path / "one" / "out", given, slices=("camera",))
    assert read_slices(tmp_path / "one" / SLICES)["camera"] == ["0"] * 8
    write([{**row, "split": "train", "camera": 0} for row in rows])
    prepared(tmp_path / "two" / "out", given, slices=("camera",))
    assert set(read_slices(tmp_path / "two" / SLICES)["camera"]) == {"0"}
    write([{**row, "split": "train", "Camera": 1} for row in rows])
    with pytest.raises(DataError, match=r"list\.jsonl: has no column 'kamera'; nearest: 'camera'"):
        prepared(tmp_path / "three" / "out", given, slices=("kamera",))
    write([*({**row, "camera": 0} for row in rows[:23]), rows[23]])
    with pytest.raises(DataError, match=r"line 24: has no column 'camera'"):
        prepared(tmp_path / "four" / "out", given, slices=("camera",))


def test_keys_and_data_stay_what_they_are_where_no_slices_are_asked_for(tmp_path: Path) -> None:
    def key(data: Data) -> dict[str, object]:
        return key_document(STAGE, data, {}, None, 0, {}).params

    assert "slices" not in key(Data())
    assert key(Data(slices=("light",))) == {**key(Data()), "slices": ["light"]}
    assert "group_by" in key(Data())
    given = listed(tmp_path, light=["day"] * 24)
    for name, slices in (("plain", ()), ("sliced", ("light",))):
        prepared(tmp_path / name / "out", given, slices=slices)
    plain, sliced = ({p.name: p.read_bytes() for p in (tmp_path / n / "out").iterdir()} for n in ("plain", "sliced"))
    assert plain == sliced
    assert (tmp_path / "sliced" / SLICES).exists() > (tmp_path / "plain" / SLICES).exists()


def test_the_table_is_an_output_of_its_own() -> None:
    profile = load_target("jetson").profile
    for slices, made in (((), ("data",)), (("light",), ("data", SLICES))):
        (bound,) = bind(Config(data=Data(kind="imagelist", path="x.csv", height=4, slices=slices)), profile, Offers())
        assert bound.step.stage.outputs == made


def test_counts_by_slice() -> None:
    paired = Paired("top1", "top-1", "label")
    teacher, model = np.array([1, 1, 1, 0, 0], bool), np.array([1, 0, 0, 1, 0], bool)
    columns = {"light": ["day", "day", "night", "night", "dusk"]}
    found = paired.by_slice({"right": teacher}, {"right": model}, columns)
    assert found == (
        Group("light=day", 2, 2, 1, 1, 0),
        Group("light=dusk", 1, 0, 0, 0, 0),
        Group("light=night", 2, 1, 1, 1, 1),
    )


@pytest.mark.parametrize(
    ("budgets", "verdict", "limit", "text"),
    [
        (Gate(max_slice_drop=0.2), "pass", 0.2, "all 3 slices keep to their budgets"),
        (Gate(max_slice_drop=0.05), "fail", 0.05, "1 of 3 slices drop too far at 0.95 confidence (Holm, over 3)"),
        (Gate(slices={"light=day": 0.05}), "pass", 0.05, "all 1 slices keep to their budgets"),
        (Gate(max_slice_drop=0.05, slices={"light=night": 0.2}), "undecided", 0.05, "'camera=3' 4.00 points"),
        (Gate(max_slice_drop=0.06, slices={"light=night": 0.0}), "pass", 0.06, "all 2 slices keep"),
    ],
)
def test_slices_have_budgets_of_their_own(tmp_path: Path, budgets: Gate, verdict: str, limit: float, text: str) -> None:
    results = judge(budgets, tmp_path, slices=SLICES_SEEN)
    result = next(r for r in results if r.gate == "slice_drop")
    assert (result.metric, result.verdict, result.limit) == ("slice_top1_drop", verdict, limit)
    assert text in result.text
    assert ("more samples of these slices, compress less, or raise their" in result.text) is (verdict != "pass")


def test_slices_that_nobody_counted_are_undecided(tmp_path: Path) -> None:
    _, result = judge(Gate(max_slice_drop=0.5), tmp_path)
    assert (result.verdict, result.value) == ("undecided", None)
    assert "answers are not judged by slice" in result.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["gate.max_slice_drop=0.1"], r"gate\.max_slice_drop is 0\.1, and data\.slices is \[\]; name the columns"),
        (["gate.slices={night = 0.1}"], r"gate\.slices has 'night'; rule: COLUMN=VALUE"),
        (
            ['gate.slices={"a=1" = 0.1}'],
            r"gate\.slices has 'a=1', and data\.slices no column 'a'; data\.slices is \[\]",
        ),
        (
            ["data.slices=['a']"],
            r"data\.slices is \['a'\], and data\.kind is 'digits'; only 'imagelist', 'text', 'webdataset', 'hugg",
        ),
        (["data.slices=['a', 'A ']"], r"slices is \['a', 'A '\]; rule: names of columns, none twice, none with '='"),
    ],
)
def test_what_a_plan_refuses(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, *overrides)


def test_a_budget_of_a_slice_that_is_not_there_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / SLICES).write_text('{"light": ["day", "night"]}')
    config = Config(data=Data(slices=("light",)), gate=Gate(slices={"light=nigth": 0.1}))
    with pytest.raises(ConfigError, match=r"gate\.slices has 'light=nigth', .* nearest valid name: 'light=night'"):
        refuse_data(config, {SLICES: tmp_path / SLICES}, {})
    (tmp_path / SLICES).write_text("[]")
    with pytest.raises(DataError, match=r"slices\.json: not a table of slices"):
        refuse_data(config, {SLICES: tmp_path / SLICES}, {})


def test_bounds_of_a_metric_are_made_where_slices_have_budgets(tmp_path: Path) -> None:
    """Another budget makes none of them again; the first one does, and of right and wrong answers there are none."""
    given = ["data.kind=imagelist", f"data.path={listed(tmp_path, light=['x'] * 24)}", "data.height=4"]
    given += ["data.slices=['light']"]
    budgets: list[list[str]] = [
        [],
        ["gate.max_slice_drop=0.1"],
        ["gate.max_slice_drop=0.2", 'gate.slices={"light=x" = 0.3}'],
    ]

    def made(*asked: str) -> list[object]:
        steps = [planned(tmp_path, *given, *asked, *budget) for budget in budgets]
        return [next(step.params for step in plan.steps if step.name == "verify") for plan in steps]

    first, second, third = made("gate.metric=macro_f1")
    assert (getattr(first, "bounds_slices"), getattr(second, "bounds_slices")) == (False, True)  # noqa: B009
    assert second == third
    assert len(set(map(repr, made()))) == 1


def test_answers_with_a_score_each_have_no_slices() -> None:
    scores = MeanScores("iou", "IoU", "boxes", lambda targets: 0.0)
    for budgets, said in (
        (Gate(slices={"light=x": 0.1}), r"gate\.slices has 'light=x'; rule: with answers that are one class each"),
        (Gate(max_slice_drop=0.1), r"gate\.max_slice_drop is 0\.1; rule: with answers that are one class each"),
    ):
        with pytest.raises(ConfigError, match=said):
            scores.check(budgets)


def test_slices_are_a_table_without_a_budget(tmp_path: Path) -> None:
    many = tuple(Group(f"camera={i}", 50, 50, 50, 0, 0) for i in range(20))
    files = outputs(tmp_path, slices=(*SLICES_SEEN, *many))
    results = read_results("jetson", files, Config())
    assert results.slices[:3] == SLICES_SEEN
    lines = results.text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("slice "))
    assert lines[start + 2].split()[:3] == ["light=night", "400", "97.50"]
    assert lines[-1] == "11 more slices, none of which drops further, are in --json."
    assert models_of(Config(), files).slices[1][0] == "light=night"
    assert "slice " not in read_results("jetson", outputs(tmp_path), Config()).text


def regression(budgets: Gate, columns: dict[str, list[str]], tmp_path: Path) -> list[GateResult]:
    """Of a model that is as wrong as its teacher on 40 of 100 samples at night, which the last release had right."""
    right, night = np.ones(1000, np.bool_), np.ones(1000, np.bool_)
    night[:40] = False
    for name, text in ((SLICES, json.dumps(columns)), ("baseline.json", json.dumps(RELEASED))):
        (tmp_path / name).write_text(text)
    paired, released = Paired("top1", "top-1", "label"), {"released": {"right": right}}
    inputs = {"slices": tmp_path / SLICES, "baseline": tmp_path / "baseline.json"}
    base = baseline_of(paired, inputs, released, {"right": night}, judged=True)
    seen = Accuracy(
        metric="top1",
        title="top-1",
        judge="native",
        n=1000,
        shipped="student",
        rows=tuple(
            Row(model=name, score=0.96, evidence={"b": 0, "c": 0}, size_bytes=1, macs=1, parameters=1)
            for name in ("teacher", "student")
        ),
        baseline=base,
    )
    kept = msgspec.json.decode(msgspec.json.encode(seen), type=Accuracy)  # as a warm build reads it
    return judge_regression(paired, budgets, kept)


RELEASED = {"name": "x", "version": "1", "target": "cpu", "digest": "0", "schema": 1}


def test_the_last_release_is_held_by_slices_too(tmp_path: Path) -> None:
    columns = {"light": ["night"] * 100 + ["day"] * 900}
    whole, slices = regression(Gate(max_drop=0.06, max_slice_drop=0.05), columns, tmp_path)
    assert (whole.verdict, slices.gate, slices.metric) == ("pass", "slice_regression", "slice_top1_regression")
    assert (slices.verdict, slices.value, slices.limit) == ("fail", 0.4, 0.05)
    assert slices.text.startswith("student against the last release: 1 of 2 slices drop too far")
    assert len(regression(Gate(max_drop=0.06), columns, tmp_path)) == 1


@pytest.mark.parametrize(
    ("budgets", "small"),
    [
        (Gate(max_slice_drop=0.4), "'light=dusk' 1 of 6, 'camera=1' 2 of 6, 'camera=2' 2 of 6, and 3 more"),
        (Gate(slices={"light=night": 0.4, "camera=0": 0.99}), "'light=night' 3 of 6"),
        (Gate(max_slice_drop=0.99), ""),
    ],
)
def test_sizes_of_slices_are_seen_before_anything_is_built(tmp_path: Path, budgets: Gate, small: str) -> None:
    light = ["night"] * 16 + ["day"] * 4 + ["night"] * 3 + ["dusk"]
    given = listed(tmp_path, light=light, camera=["0"] * 20 + ["1", "1", "2", "2"])
    config = Data(kind="imagelist", path=str(given), height=4, slices=("camera", "light"))
    surveyed = survey(config, 0, budgets=budgets)
    sizes = {"camera=0": 4, "camera=1": 2, "camera=2": 2, "light=day": 4, "light=night": 3, "light=dusk": 1}
    assert surveyed.survey.slices == sizes
    said = [finding.text for finding in surveyed.survey.findings if "slices have too few" in finding.text]
    assert [small in text for text in said] == [True] * bool(small)
    text = SurveyView(surveyed.survey).text
    assert "slice        test images\n" in text
    assert "light=night            3" in text
    assert "<h2>Slices</h2>" in contact_sheet(surveyed, silent)
    (tmp_path / "out").mkdir()
    metrics = prepare(config, tmp_path / "out" / "data", 0)
    noted = notes(Config(data=config, gate=budgets), {SLICES: tmp_path / "out" / SLICES}, metrics)
    assert [text for text in noted if "slices have too few" in text] == said


def test_a_budget_of_no_slice_is_refused_by_the_survey(tmp_path: Path) -> None:
    given = listed(tmp_path, light=["night"] * 24)
    config = Data(kind="imagelist", path=str(given), height=4, slices=("light",))
    surveyed = survey(config, 0, budgets=Gate(slices={"light=nigth": 0.1}))
    assert [f.kind for f in surveyed.survey.refusals] == ["gate"]
    assert "nearest valid name: 'light=night'" in surveyed.survey.refusals[0].text
    unknown = survey(replace(config, path=str(text_table(tmp_path)), kind="text"), 0, budgets=Gate())
    assert "has no column 'light'" in unknown.survey.refusals[0].text


def text_table(folder: Path) -> Path:
    rows = [{"text": f"text {i} here", "label": "ab"[i % 2], "source": f"s{i % 2}"} for i in range(40)]
    return table(folder / "texts.csv", rows)


def test_texts_show_their_slices_too(tmp_path: Path) -> None:
    config = Data(kind="text", path=str(text_table(tmp_path)), slices=("source",), test_fraction=0.5)
    assert sum(survey(config, 0, budgets=Gate()).survey.slices.values()) == 20
