"""A finished network that came as ONNX is the teacher: nothing trains, and what is shipped answers as it did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from dlx_deploy.building import BuildOptions, build_for, build_packages, load_work
from dlx_deploy.config import load_config
from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.package.archive import read_archive
from dlx_deploy.stages.order import steps_for
from dlx_deploy.targets import load_target

from ..foreign_models import foreign_net, saved
from ..onnx_fixtures import digits
from .support.planning import planned, rehearsed

NORMALISED = ["data.mean=[0.5]", "data.std=[0.25]"]


@pytest.fixture
def net(tmp_path: Path) -> str:
    return f"teacher.model={saved(tmp_path / 'net.onnx', foreign_net(11, batch=1, tail='Softmax'))}"


def linear(path: Path) -> Path:
    """A ridge regression on normalised pixels, which knows the digits, at opset 11 with a fixed batch."""
    pictures, labels, _, _ = digits()
    x = (pictures.reshape(len(pictures), -1) / 255.0 - 0.5) / 0.25
    x1 = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    solved = np.linalg.solve(x1.T @ x1 + np.eye(65), x1.T @ np.eye(10)[labels])
    weights = {"w": solved[:-1], "b": solved[-1]}
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w", "b"], ["y"], name="head"),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    return saved(path, model)  # type: ignore[no-any-return]


def test_a_build_ships_what_answers_as_the_original(tmp_path: Path) -> None:
    path = linear(tmp_path / "linear.onnx")
    given = ["threads=1", f"teacher.model={path}", *NORMALISED]
    work = load_work(None, ["rpi5"], given, tmp_path / ".dlx")
    assert work.notes == (
        "linear.onnx is a finished network and used as it is: nothing is trained, distill and prune are off",
    )
    assert [step.name for step in work.builds[0].steps][:4] == ["data", "teacher", "quantize", "compile"]
    (built,) = build_packages(work, tmp_path / "dist", BuildOptions(quiet=True))
    assert built.failure is None
    (package,) = (tmp_path / "dist").glob("*.dlx")
    shipped = onnxruntime.InferenceSession(read_archive(package)["model.onnx"])
    original = onnxruntime.InferenceSession(path.read_bytes())
    _, _, pictures, _ = digits()
    answers = shipped.run(["logits"], {"images": pictures[:50]})[0]
    planes = ((pictures[:50] / 255.0 - 0.5) / 0.25).transpose(0, 3, 1, 2).astype(np.float32)
    expected = np.concatenate([original.run(None, {"x": one[None]})[0] for one in planes])
    assert np.abs(answers - expected).max() < 0.1 * np.abs(expected).max()
    assert (answers.argmax(1) == expected.argmax(1)).mean() > 0.95


def test_what_a_target_computes_wrong_is_said_first(tmp_path: Path) -> None:
    model = foreign_net(11)
    names = [("Pow", ["logits_", "two"], "squares"), ("ReduceMean", ["squares"], "mean"), ("Sqrt", ["mean"], "y")]
    model.graph.node.extend(helper.make_node(kind, inputs, [output]) for kind, inputs, output in names)
    model.graph.initializer.append(numpy_helper.from_array(np.array(2, np.float32), "two"))
    path = saved(tmp_path / "norm.onnx", model)
    given = [f"teacher.model={path}", *NORMALISED]
    notes = load_work(None, ["jetson", "rpi5"], given, tmp_path / ".dlx").notes
    assert [note for note in notes if "as it came" in note and "jetson-orin-nano-8gb, tensorrt 8.5.2" in note]
    assert not [note for note in notes if "as it came, on raspberry" in note]


def test_nothing_trains_unless_it_is_asked_for(net: str) -> None:
    config = load_config(None, [net])
    assert (config.teacher.epochs, config.distill.enabled, config.prune.enabled) == (0, False, False)
    assert load_config(None, [net, "prune.enabled=true"]).prune.enabled


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["prune.enabled=true"],
            r"teacher\.model is .*, a finished graph, and prune\.enabled is true; no student",
        ),
        (["distill.enabled=true"], r"a finished graph, and distill\.enabled is true"),
        (["teacher.epochs=3"], r"a finished graph, and teacher\.epochs is 3; it is used as it is: leave that out"),
        (["teacher.new_head=true"], r"and teacher\.new_head is True; it is used as it is"),
        (["teacher.arguments.width=2"], r"and teacher\.arguments is {'width': 2}"),
        (["data.mean=[]"], r"data\.mean is \[\], and net\.onnx is used as it is.*; set data\.mean and data\.std to it"),
        (["data.std=[]"], r"data\.std is \[\], .*ImageNet's are data\.mean = \[0\.485, 0\.456, 0\.406\]"),
        (
            ["data.kind=docstrings", "data.mean=[]", "data.std=[]"],
            r"reads x .*; the data are texts, so rule: token ids int64",
        ),
    ],
)
def test_what_a_plan_refuses(tmp_path: Path, net: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planned(tmp_path, net, *NORMALISED, *overrides)


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.onnx: cannot be read \(No such file or directory\)"):
        planned(tmp_path, "teacher.model=gone.onnx", *NORMALISED)


def test_an_output_belongs_to_a_finished_graph() -> None:
    with pytest.raises(ConfigError, match=r"output is 'y' and model 'resnet20'; rule: with an \.onnx or \.pt2 file"):
        load_config(None, ["teacher.output=y"])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (foreign_net(classes=7), r"teacher: .*gives logits_ float32\[N, 7\], and the data ask for float32\[N, 10\]"),
        (foreign_net(extra=True, classes=16), r"teacher: .*gives features .*, and the data ask for"),
    ],
)
def test_what_a_build_refuses_before_the_data_are_read(tmp_path: Path, model: onnx.ModelProto, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rehearsed(tmp_path, f"teacher.model={saved(tmp_path / 'net.onnx', model)}", *NORMALISED)


def test_an_operator_that_the_target_does_not_read_is_refused_before_the_data_are_read(tmp_path: Path) -> None:
    model = foreign_net()
    model.graph.node[1].CopyFrom(helper.make_node("Compress", ["conv", "keep"], ["relu"], axis=1))
    model.graph.initializer.append(numpy_helper.from_array(np.ones(4, bool), "keep"))
    given = [f"teacher.model={saved(tmp_path / 'net.onnx', model)}", *NORMALISED]
    note = "net.onnx as it came, on jetson-orin-nano-8gb, tensorrt 10.3.0: not supported: Compress (1, no TensorRT"
    assert any(one.startswith(note) for one in load_work(None, ["jetson"], given, tmp_path / ".dlx").notes)
    message = (
        r"teacher: net\.onnx: jetson-orin-nano-8gb runs it by tensorrt 10\.3\.0, whose parser does not read Compress"
    )
    with pytest.raises(ConfigError, match=message):
        rehearsed(tmp_path, *given)


def test_the_parser_that_is_installed_is_asked(tmp_path: Path, net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Parser:
        def refused(self, model: bytes) -> str:
            return f"it cannot parse {len(onnx.load_from_string(model).graph.node)} nodes"

    monkeypatch.setattr("dlx_deploy.stages.support.operators.builder_for", lambda *_: "tensorrt-rtx 9")
    monkeypatch.setattr("dlx_deploy.runtime.engine.api.load_api", lambda _: Parser())
    message = r"net\.onnx: it cannot parse \d+ nodes; it stands in for the TensorRT of jetson-.*compile\.engine = 'off'"
    with pytest.raises(ConfigError, match=message):
        rehearsed(tmp_path, net, *NORMALISED)


def test_a_rehearsal_of_what_is_right_says_nothing(tmp_path: Path, net: str) -> None:
    rehearsed(tmp_path, net, *NORMALISED)


def test_a_path_in_a_file_is_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "deploy.toml").write_text('[teacher]\nmodel = "net.onnx"\n')
    assert load_config(tmp_path / "deploy.toml").teacher.model == str(tmp_path / "net.onnx")


def test_weights_beside_the_model_are_in_its_key(tmp_path: Path) -> None:
    onnx.save(foreign_net(), tmp_path / "net.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "classes.txt").write_text("a\n")
    config = load_config(None, [f"teacher.model={tmp_path / 'net.onnx'}", *NORMALISED])
    step = next(step for step in steps_for(config, load_target("rpi5").profile) if step.name == "teacher")
    assert set(step.inputs) == {"model", "data", "weights", "names"}
    assert build_for(config, load_target("rpi5").profile).steps
