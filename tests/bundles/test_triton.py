"""Packages as models of Triton's repository, read back by Triton's own schema of a configuration."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from dlx_deploy.bundles.bundle import BundleView, export_bundle
from dlx_deploy.bundles.pbtxt import Enum, pbtxt
from dlx_deploy.errors import ConfigError
from dlx_deploy.runtime.errors import PackageError
from dlx_deploy.runtime.package.contents import PackageContents
from tests.bundles.packages import classes, masks, texts, written
from tests.conftest import Here


def schema() -> Any:
    """Triton's ``model_config_pb2``; the module beside it would ask for all of gRPC's client."""
    there = importlib.util.find_spec("tritonclient")
    if there is None or there.origin is None:
        pytest.skip("tritonclient, with Triton's schema of config.pbtxt, is not installed: pip install -e '.[test]'")
    spec = importlib.util.spec_from_file_location(
        "model_config_pb2", Path(there.origin).parent / "grpc" / "model_config_pb2.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pb() -> Any:
    return schema()


def exported(tmp_path: Path, contents: PackageContents, name: str = "") -> BundleView:
    return export_bundle(written(tmp_path, contents), "triton", tmp_path / "repository", name)


def config(pb: Any, view: BundleView) -> Any:
    from google.protobuf import text_format

    return text_format.Parse((view.folder / "config.pbtxt").read_text("ascii"), pb.ModelConfig())


def test_a_classifier_of_a_cpu(tmp_path: Path, pb: Any) -> None:
    view = exported(tmp_path, classes())
    assert view.folder == tmp_path / "repository" / "tiny"
    read = config(pb, view)
    assert (read.name, read.backend, read.default_model_filename) == ("tiny", "onnxruntime", "model.onnx")
    (images,), (logits,) = read.input, read.output
    assert (images.name, images.data_type, list(images.dims)) == ("images", pb.TYPE_UINT8, [6, 4, 3])
    assert (logits.name, logits.data_type, list(logits.dims)) == ("logits", pb.TYPE_FP32, [3])
    assert (view.folder / logits.label_filename).read_text().splitlines() == ["cat", "dog", "owl"]
    assert [group.kind for group in read.instance_group] == [pb.ModelInstanceGroup.KIND_CPU]
    assert read.max_batch_size == 16
    assert read.HasField("dynamic_batching")
    assert read.dynamic_batching.max_queue_delay_microseconds == 0, "no budget allows to wait"


def test_the_request_to_warm_up_with_is_the_first_golden_one(tmp_path: Path, pb: Any) -> None:
    contents = classes()
    view = exported(tmp_path, contents)
    (warmup,) = config(pb, view).model_warmup
    asked = warmup.inputs["images"]
    pixels = np.fromfile(view.folder / "warmup" / asked.input_data_file, np.uint8).reshape(1, *asked.dims)
    assert (warmup.batch_size, asked.data_type) == (1, pb.TYPE_UINT8)
    session = ort.InferenceSession(view.folder / "1" / "model.onnx")
    np.testing.assert_allclose(
        session.run(None, {"images": pixels})[0], contents.golden_outputs["logits"][:1], rtol=1e-5
    )


def test_budgets_say_how_long_a_request_may_wait_and_for_how_many(tmp_path: Path, pb: Any) -> None:
    budgets = {"max_drop": 0.02, "confidence": 0.95, "max_latency_p90_ms": 8.0, "throughput_batch": 4}
    read = config(pb, exported(tmp_path, classes(budgets={**budgets, "min_throughput": 1.0})))
    assert read.dynamic_batching.max_queue_delay_microseconds == 800
    assert list(read.dynamic_batching.preferred_batch_size) == [4]


def test_a_fixed_batch_is_one_of_the_dimensions(tmp_path: Path, pb: Any) -> None:
    from tests.runtime.conftest import tiny_model

    view = exported(tmp_path, classes(model=tiny_model(batch=5), batch=5))
    read = config(pb, view)
    assert read.max_batch_size == 0
    assert not read.HasField("dynamic_batching")
    assert list(read.input[0].dims) == [5, 6, 4, 3]
    assert list(read.output[0].dims) == [5, 3]
    assert (view.folder / "warmup" / "golden_images").stat().st_size == 5 * 6 * 4 * 3, "filled up: 4 are golden"
    assert "the model's batch is 5" in view.text


def with_engine(settings: dict[str, object]) -> PackageContents:
    recipe = {"backends": ["tensorrt", "onnxruntime-cpu"], "engine": settings}
    return classes(recipe=recipe, engine=b"plan", engine_sidecar=b"{}")


def test_an_engine_that_triton_does_not_read_is_left_in_the_package(tmp_path: Path, pb: Any) -> None:
    view = exported(tmp_path, with_engine({"flavour": "tensorrt-rtx", "precision": "fp16", "batch": [1, 2, 6]}))
    assert config(pb, view).backend == "onnxruntime"
    assert "1/model.plan" not in view.files
    with pytest.raises(PackageError, match=r"tiny: recipe\.engine: flavour, precision missing; a recipe of an engine"):
        exported(tmp_path, with_engine({"batch": []}), "other")


def test_an_engine_is_what_runs_where_the_package_holds_one(tmp_path: Path, pb: Any) -> None:
    view = exported(tmp_path, with_engine({"flavour": "tensorrt", "precision": "fp16", "batch": [1, 2, 6]}))
    read = config(pb, view)
    assert (read.backend, read.default_model_filename, read.max_batch_size) == ("tensorrt", "model.plan", 6)
    assert (view.folder / "1" / "model.plan").read_bytes() == b"plan"
    assert [group.kind for group in read.instance_group] == [pb.ModelInstanceGroup.KIND_GPU]
    assert any("the TensorRT that it was built with alone" in note for note in view.notes)


def test_exact_arithmetic_is_not_what_a_server_computes(tmp_path: Path) -> None:
    view = exported(tmp_path, classes(execution={"exact_qdq": True}))
    assert any("which may saturate: keep the instance on a GPU" in note for note in view.notes)


def test_full_range_weights_are_told(tmp_path: Path) -> None:
    view = exported(tmp_path, classes(execution={"exact_qdq": False, "dot_product": True}))
    assert any("without a dot product (VNNI)" in note for note in view.notes)


def test_texts_come_as_tokens_of_any_length(tmp_path: Path, pb: Any) -> None:
    view = exported(tmp_path, texts(), "of-texts")
    read = config(pb, view)
    assert read.name == view.folder.name == "of-texts"
    assert (read.input[0].data_type, list(read.input[0].dims)) == (pb.TYPE_INT32, [-1])
    assert (view.folder / "tokenizer.json").is_file(), "for the client"
    assert "golden/texts.json" not in view.files


def test_a_mask_has_no_best_label(tmp_path: Path, pb: Any) -> None:
    read = config(pb, exported(tmp_path, masks()))
    assert list(read.output[0].dims) == [3, 4, 6]
    assert read.output[0].label_filename == ""


def test_strings_are_escaped_by_their_bytes(pb: Any) -> None:
    from google.protobuf import text_format

    told = 'a "b"\\ \n\t\x1b ä€'
    text = pbtxt({"name": told, "version_policy": {"all": {}}, "instance_group": [{"kind": Enum("KIND_CPU")}] * 2})
    read = text_format.Parse(text, pb.ModelConfig())
    assert text.isascii()
    assert read.name == told
    assert len(read.instance_group) == 2


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a b", "x" * 101, "-o"])
def test_a_name_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"the model's name is .*; must be letters, .*: give another with --name"):
        exported(tmp_path, classes(name=name or " "))
    assert not (tmp_path / "repository").exists()
    assert exported(tmp_path, classes(name=name or " "), "good").folder.name == "good"


def test_a_label_that_would_be_two_lines_is_refused(tmp_path: Path) -> None:
    from tests.runtime.conftest import tiny_task

    with pytest.raises(ConfigError, match=r"the class 'a\\nb' holds '\\n'; .*: rename the class"):
        exported(tmp_path, classes(task=tiny_task(["a\nb", "c", "d"])))


def test_the_command(here: Here, tmp_path: Path) -> None:
    path = written(tmp_path, classes())
    done = here("export-bundle", path, "--format", "triton", "--out", "r", "--json")
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    assert told["folder"] == "r/tiny"
    assert set(told["files"]) == {"1/model.onnx", "README.md", "config.pbtxt", "labels.txt", "warmup/golden_images"}
    done = here("export-bundle", path, "--format", "tflite", "--out", "r")
    assert (done.code, done.err) == (2, "error: --format is 'tflite'; must be one of triton, deepstream\n")
