"""What debug says of packages whose fault is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto

from dlx_deploy.config import load_config
from dlx_deploy.debugging import debug
from dlx_deploy.debugging.debug import Debugged, debug_package
from dlx_deploy.debugging.sources import open_made
from dlx_deploy.errors import ConfigError
from dlx_deploy.graph.model import Index, load
from dlx_deploy.graph.quantization.quantize import QuantizationRequest
from dlx_deploy.report.debugging import DebugView

from ..arrays import quantize_model
from ..conftest import Here
from ..onnx_fixtures import images, node
from .conftest import Bench, scale_by, scale_of_input, split

LAYER = "conv3/Conv"
"""Which alone reads what it reads."""
LAST = "logits/Gemm"
DARK = 3
"""By so much is what ranges are found on darker than what is looked at."""


def debugged(bench: Bench, package: Path, **asked: Any) -> DebugView:
    return debug_package(Debugged(package, bench.folder / "store", **{"layers": 3, **asked}))


def damaged(bench: Bench, style: str, factor: float) -> Path:
    scale = scale_of_input(load(bench.folder / f"{style}.onnx"), LAYER)
    return bench.package(f"damaged-{style}-{factor}", style, scale_by(factor, scale))


@pytest.mark.parametrize("factor", [0.02, 200.0], ids=["clips", "too coarse"])
def test_a_layer_whose_scale_is_destroyed_comes_first(bench: Bench, factor: float) -> None:
    view = debugged(bench, damaged(bench, "tensorrt", factor))
    assert view.reference_score - view.score > 0.05
    first = view.layers[0]
    assert first.layers == (LAYER,)
    assert first.own_sqnr_db == min(row.own_sqnr_db for row in view.layers if row.own_sqnr_db is not None)
    assert first.won is not None
    assert first.won > 0.8 * (view.reference_score - view.score)
    assert view.remedy is not None
    assert view.remedy.layers[0] == LAYER
    assert view.text.index(LAYER) < view.text.index("conv2/Conv")
    if factor < 1:
        assert view.ranges[0].clipped > 0.1
        assert view.ranges[0].node in view.text
        assert view.range_remedy is not None
        assert view.range_remedy.tensors == ("relu2",)
        assert view.range_remedy.won > 0.8 * (view.reference_score - view.score)
        assert "with relu2 wide enough for all of these images: +" in view.text


def test_a_range_that_several_layers_read_is_found_by_restoring_them_together(bench: Bench) -> None:
    scale = scale_of_input(load(bench.folder / "tensorrt.onnx"), "conv2/Conv")
    view = debugged(bench, bench.package("shared", change=scale_by(0.02, scale)), layers=2)
    first, *others = view.layers
    assert set(first.layers) == {"conv2/Conv", "short/Conv"}
    assert first.won is not None
    assert first.won > 0.8 * (view.reference_score - view.score)
    assert all(row.won is None or row.won < first.won / 2 for row in others)


def test_weights_that_are_destroyed_are_found_in_a_graph_for_a_cpu(bench: Bench) -> None:
    model = load(bench.folder / "cpu.onnx")
    index = Index(model)
    weights = index.producer[node(model, LAYER).input[1]]
    view = debugged(bench, bench.package("weights", "cpu", scale_by(6.0, weights.input[1])), layers=2)
    assert view.layers[0].layers == (LAYER,)
    assert view.remedy is not None
    assert view.remedy.layers == (LAYER,)


def test_the_line_that_is_given_does_it(bench: Bench, tmp_path: Path) -> None:
    view = debugged(bench, damaged(bench, "tensorrt", 0.02))
    assert view.remedy is not None
    (tmp_path / "deploy.toml").write_text("\n".join(view.remedy.lines))
    exclude = load_config(tmp_path / "deploy.toml").quantize.exclude
    request = QuantizationRequest("tensorrt", exclude=tuple(exclude))
    report = quantize_model(bench.folder / "plain.onnx", tmp_path / "out.onnx", images(64), request)
    assert [name for name, kind in report.layers.items() if kind == "fp32"] == sorted(view.remedy.layers)


def test_a_graph_that_is_written_with_the_lines_wins_what_was_said(bench: Bench, tmp_path: Path) -> None:
    """Of a loss that comes again: calibrated on pictures that are too dark, so that ranges clip what others have."""
    dark = QuantizationRequest("tensorrt")

    def written(name: str, request: QuantizationRequest) -> Path:
        out = tmp_path / f"{name}.onnx"
        quantize_model(bench.folder / "plain.onnx", out, images(128, seed=2) // DARK, request)
        return bench.package(name, change=lambda model: model.CopyFrom(load(out)))

    before = debugged(bench, written("dark", dark), layers=5)
    assert before.remedy is not None
    assert before.remedy.won > 0.02
    (tmp_path / "deploy.toml").write_text("\n".join(before.remedy.lines))
    exclude = tuple(load_config(tmp_path / "deploy.toml").quantize.exclude)
    after = debugged(bench, written("restored", replace(dark, exclude=exclude)), layers=0)
    kinds = {name: row.precision for row in after.layers for name in row.layers}
    assert not kinds.keys() & set(before.remedy.layers), "they are in floating point, so no row of integers is theirs"
    assert len(kinds) == sum(len(row.layers) for row in after.layers) > 0
    assert after.score == pytest.approx(before.remedy.score, abs=0.02)


def test_what_was_excluded_before_stays_so_and_a_plan_gets_a_line(bench: Bench) -> None:
    scale = scale_of_input(load(bench.folder / "tensorrt.onnx"), LAYER)
    view = debugged(bench, bench.package("again", change=scale_by(0.02, scale), exclude=["conv1*"]), layers=1)
    assert view.remedy is not None
    assert view.remedy.lines == ("[quantize]", f'exclude = ["conv1*", "{LAYER}"]')
    view = debugged(bench, bench.package("planned", change=scale_by(0.02, scale), plan="plan.json"), layers=1)
    assert view.remedy is not None
    (line,) = view.remedy.lines
    assert line.endswith(f'"{LAYER}": {{"precision": "fp32"}}')


@pytest.mark.parametrize("exclude", [3, [{"a": 1}], "conv1"])
def test_what_a_package_says_of_its_making_is_not_believed(bench: Bench, exclude: Any) -> None:
    scale = scale_of_input(load(bench.folder / "tensorrt.onnx"), LAYER)
    view = debugged(bench, bench.package("odd", change=scale_by(0.02, scale), exclude=exclude), layers=1)
    assert view.remedy is not None
    assert view.remedy.lines == ("[quantize]", f'exclude = ["{LAYER}"]')


def test_only_digests_are_looked_up_in_a_store(bench: Bench) -> None:
    made = open_made(bench.package("plain"))
    steps = {"verify": {"inputs": {"data": 5, "shipped": "../../x", "teacher": "a" * 64}}}
    assert replace(made, steps=steps).inputs("verify") == {"teacher": "a" * 64}


def test_a_package_whose_answers_are_no_numbers_is_looked_into(bench: Bench) -> None:
    model = load(bench.folder / "tensorrt.onnx")
    weights = Index(model).producer[node(model, LAST).input[1]].input[1]
    view = debugged(bench, bench.package("nan", change=scale_by(float("nan"), weights)), layers=1)
    assert view.score == 0
    assert "the package gives no numbers, and counts as wrong everywhere (the model gives NaN or infinite" in view.text
    assert view.layers[0].layers == (LAST,)
    assert view.layers[0].own_sqnr_db == -200
    assert view.layers[0].won is not None
    assert view.layers[0].won > 0.9


def test_more_calibration_is_asked_for_in_lines_that_load(bench: Bench, tmp_path: Path) -> None:
    scale = scale_of_input(load(bench.folder / "cpu.onnx"), LAYER)
    package = bench.package("narrow", "cpu", scale_by(0.1, scale), calibration="percentile")
    remedy = debugged(bench, package, layers=0).range_remedy
    assert remedy is not None
    assert remedy.won > 0
    (tmp_path / "deploy.toml").write_text("\n".join(remedy.lines))
    config = load_config(tmp_path / "deploy.toml")
    assert (config.data.calibration_images, config.quantize.calibration) == (512, "minmax")
    assert debugged(bench, bench.package("wide"), layers=0).range_remedy is None


def test_nothing_is_lost_where_nothing_is_wrong(bench: Bench) -> None:
    view = debugged(bench, bench.package("whole"), layers=1, samples=100)
    assert abs(view.score - view.reference_score) < 0.02
    assert view.remedy is None
    assert (view.samples, view.given) == (100, 200)
    assert "on 100 of 200 images" in view.text
    assert view.answers_db is not None
    assert view.answers_db > 10


def test_what_is_not_in_the_store_is_asked_for(bench: Bench, tmp_path: Path) -> None:
    package = bench.package("lost")
    with pytest.raises(ConfigError, match=r"made of \(SHA-256 \w{12}…\) is not in the store .*none; .*--reference mod"):
        debug_package(Debugged(package, tmp_path / "none"))
    plain = bench.folder / "plain.onnx"
    with pytest.raises(ConfigError, match=r"judged on \(SHA-256 \w{12}…\) are not in the store .*none; .*--data DIR"):
        debug_package(Debugged(package, tmp_path / "none", reference=plain))
    data = str(bench.folder / "data")
    given = debug_package(Debugged(package, tmp_path / "none", data, plain, layers=0, samples=50))
    assert (given.reference, given.data_path) == (str(plain), data)


def test_the_command_prints_text_and_json(bench: Bench, here: Here) -> None:
    package, store = bench.package("said"), bench.folder / "store"
    done = here("debug", package, "--store", store, "--layers", "0", "--samples", "40")
    assert done.code == 0, done.err
    assert "step 'export-pruned' in" in done.out
    assert "in the build: teacher 99.00 % → quantized 98.00 %" in done.out
    view = json.loads(here("debug", package, "--store", store, "--layers=1", "--samples=40", "--json").out)
    assert len(view["layers"]) == 5
    assert [row["won"] is not None for row in view["layers"]] == [True] + 4 * [False]
    assert here("debug", package, "--store", "nowhere").code == 2


def test_an_interrupt_leaves_nothing_behind(
    bench: Bench, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(debug, "look_at_layers", interrupted)
    package = bench.package("stopped")
    done = here("debug", package, "--store", bench.folder / "store", "--samples", "40", "--out", tmp_path / "out")
    assert done.code == 130
    assert done.out == ""
    assert list((tmp_path / "out").iterdir()) == []


def test_another_network_is_refused(bench: Bench, tmp_path: Path) -> None:
    other = load(bench.folder / "plain.onnx")
    other.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 9
    (tmp_path / "other.onnx").write_bytes(other.SerializeToString())
    with pytest.raises(ConfigError, match=r"images uint8\[N, 9, 8, 1\].* and the package images uint8\[N, 8, 8, 1\].*"):
        debugged(bench, bench.package("refused"), reference=tmp_path / "other.onnx")


def test_what_is_no_model_is_refused_as_a_reference(bench: Bench, tmp_path: Path) -> None:
    package = bench.package("no-model")
    (tmp_path / "text.onnx").write_text("no model at all")
    outside = load(bench.folder / "plain.onnx")
    tensor = outside.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    (tmp_path / "outside.onnx").write_bytes(outside.SerializeToString())
    for name, said in (
        ("none.onnx", r"none\.onnx: cannot be read \(No such file or directory\); give an \.onnx file"),
        ("", r"--reference .*: cannot be read"),
        ("text.onnx", r"--reference .*text\.onnx"),
        ("outside.onnx", r"--reference .*outside\.onnx: .*external"),
    ):
        with pytest.raises(ConfigError, match=said):
            debugged(bench, package, reference=tmp_path / name)


METRIC = """def cost(labels, logits, weights):
    right = logits.argmax(axis=1) == labels
    return float((weights * right * (labels > 4)).sum() / weights.sum())
"""
"""What counts the upper half of the classes alone."""


@pytest.mark.parametrize("metric", ["macro_f1", "auroc"])
def test_scores_and_what_layers_win_are_of_the_gates_metric(bench: Bench, metric: str) -> None:
    scale = scale_of_input(load(bench.folder / "tensorrt.onnx"), LAYER)
    view = debugged(bench, bench.package(f"by-{metric}", change=scale_by(0.02, scale), metric=metric), layers=1)
    top1 = debugged(bench, damaged(bench, "tensorrt", 0.02), layers=1)
    assert (view.metric, top1.metric) == (metric, "top1")
    assert view.title in view.text
    assert view.reference_score > 0.9
    assert view.score != pytest.approx(top1.score, abs=1e-4)
    assert view.remedy is not None
    assert view.remedy.won == pytest.approx(view.remedy.score - view.score)
    assert view.remedy.won > 0.8 * (view.reference_score - view.score)


def test_a_metric_of_the_users_is_asked_for_and_then_used(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(METRIC)
    scale = scale_of_input(load(bench.folder / "tensorrt.onnx"), LAYER)
    package = bench.package("by-own", change=scale_by(0.02, scale), metric="own.py:cost")
    without = debugged(bench, package, layers=0)
    assert (without.metric, without.reference_score) == ("top1", 1.0)
    assert without.notes[0] == (
        "its gate judged by own.py:cost, which packages do not carry: everything here is by top-1 instead; give the "
        "function: --metric FILE.py:FUNCTION"
    )
    view = debugged(bench, package, layers=1, metric=f"{tmp_path}/own.py:cost")
    _, classes = split()
    assert view.reference_score == pytest.approx(float((classes > 4).mean()))
    assert "which packages do not carry" not in view.text
    with pytest.raises(ConfigError, match=r"--metric is .*other.py:cost', and the package was judged by 'own.py:cost'"):
        debugged(bench, package, layers=0, metric=f"{tmp_path}/other.py:cost")
    with pytest.raises(ConfigError, match=r"and the package was judged by its task's own metric; leave it out"):
        debugged(bench, bench.package("by-top1"), layers=0, metric="auroc")
