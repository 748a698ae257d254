from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from dlx_deploy.runtime.errors import InputError, PackageError
from dlx_deploy.runtime.package.archive import to_json, write_archive
from dlx_deploy.runtime.predictor import Predictor, load
from dlx_deploy.runtime.tasks.predictions import Predictions


def test_predictions_of_arrays(dlx: Path, data: Any, helpers: Any) -> None:
    images, labels = data
    predictions = load(dlx, threads=1).predict(images)
    assert len(predictions) == 300
    np.testing.assert_allclose(predictions.logits, helpers.expected_logits(images), rtol=1e-5)
    assert predictions.logits.dtype == np.float32
    np.testing.assert_array_equal(predictions.classes, labels)
    assert predictions.classes.dtype == np.int64
    assert predictions.labels[:4] == ["cat", "dog", "owl", "cat"]
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1, rtol=1e-6)
    assert repr(predictions).startswith("Predictions(300: cat, dog, owl, cat")


def test_one_image_gets_a_batch_axis(predictor: Predictor, data: Any) -> None:
    one, many = predictor.predict(data[0][0]), predictor.predict(data[0][:1])
    np.testing.assert_array_equal(one.logits, many.logits)
    assert one.logits.shape == (1, 3)


def test_probabilities_do_not_overflow() -> None:
    predictions = Predictions(np.array([[1000.0, 999.0, -1000.0]], np.float32), ("a", "b", "c"))
    np.testing.assert_allclose(predictions.probabilities, [[0.7310586, 0.2689414, 0]], rtol=1e-6)


def test_top() -> None:
    predictions = Predictions(np.log(np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]], np.float32)), ("a", "b", "c"))
    assert [[label for label, _ in row] for row in predictions.top(2)] == [["b", "c"], ["a", "c"]]
    assert predictions.top(2)[0][0][1] == pytest.approx(0.5)
    assert len(predictions.top(9)[0]) == 3
    with pytest.raises(InputError, match="top is 0; must be 1 or more"):
        predictions.top(0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_no_answer(value: float) -> None:
    """The largest of NaN and others is NaN's class, without a word."""
    predictions = Predictions(np.array([[1.0, 2.0], [0.0, value]], np.float32), ("a", "b"))
    for ask in (lambda: predictions.classes, lambda: predictions.labels, lambda: predictions.top(1)):
        with pytest.raises(PackageError, match="the model gives NaN or infinite logits for input 1; run its self-test"):
            ask()
    assert repr(predictions) == "Predictions(2: b, no answer)"


def test_predictions_have_no_room_for_more() -> None:
    with pytest.raises(AttributeError):
        Predictions(np.zeros((1, 2), np.float32), ("a", "b")).other = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "view",
    [
        lambda x: np.asfortranarray(x),
        lambda x: x[::-1][::-1],
        lambda x: np.repeat(x, 2, axis=0)[::2],
        lambda x: x.transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3),
        lambda x: x.tobytes() and np.frombuffer(x.tobytes(), np.uint8).reshape(x.shape),
        lambda x: np.kron(x, np.ones((1, 1, 1, 2), np.uint8))[..., ::2],
        lambda x: x.view(type("Sub", (np.ndarray,), {})),
        lambda x: x.tolist() and [np.array(i) for i in x],
    ],
    ids=["fortran", "reversed", "strided", "transposed", "read-only", "channels strided", "subclass", "list of images"],
)
@pytest.mark.parametrize("count", [1, 10])
def test_every_memory_layout_gives_the_same(predictor: Predictor, data: Any, view: Any, count: int) -> None:
    images = data[0][:count]
    np.testing.assert_array_equal(predictor.predict(view(images)).logits, predictor.predict(images).logits)


def test_input_is_only_read_and_output_is_owned(predictor: Predictor, data: Any) -> None:
    images = data[0][:2].copy()
    first = predictor.predict(images)
    before = first.logits.copy()
    images[:] = 0
    predictor.predict(images)
    np.testing.assert_array_equal(first.logits, before)
    assert first.logits.flags.writeable


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            np.zeros((1, 6, 4, 3), np.float32),
            r"images are float32\[1, 6, 4, 3\]; must be uint8\[N, 6, 4, 3\].*in the graph",
        ),
        (np.zeros((1, 6, 4, 3), np.int64), r"images are int64.*for instance images\.astype"),
        (np.zeros((1, 3, 6, 4), np.uint8), r"images are uint8\[1, 3, 6, 4\].*these look like NCHW"),
        (np.zeros((3, 6, 4), np.uint8), "these look like NCHW"),
        (np.zeros((1, 3, 8, 8), np.uint8), r"images are uint8\[1, 3, 8, 8\]; must be .*these look like NCHW"),
        (np.zeros((5, 8, 8), np.uint8), r"images are uint8\[5, 8, 8\]; must be .*several as a list of them"),
        (np.zeros((8, 8, 2), np.uint8), r"images are uint8\[8, 8, 2\]; must be .* or pictures of other sizes"),
        (np.zeros((0, 8, 3), np.uint8), r"images are uint8\[0, 8, 3\]; must be"),
        (np.zeros((0, 6, 4, 3), np.uint8), r"images are uint8\[0, 6, 4, 3\]; must be .* N at least 1"),
        (np.zeros((), np.uint8), r"images are uint8\[\]; must be"),
        ([], r"images are float64\[0\]"),
        (None, r"images are object\[\]"),
        (np.zeros((1, 1, 6, 4, 3), np.uint8), r"images are uint8\[1, 1, 6, 4, 3\]"),
        ([[1, 2], [3]], "images (cannot be made one array|are object)"),
        ([np.zeros((6, 4, 3), np.uint8), np.zeros((3, 9, 5), np.uint8)], r"images are uint8\[3, 9, 5\]; must be"),
        ([np.zeros((6, 4, 3), np.uint8), np.zeros((6, 5, 3))], r"images are float64\[6, 5, 3\]; .*in the graph"),
        (["a.png", 7], "image 1 is a int among pictures; must be a path, Pillow's image, or a numpy array of pixels"),
        ([np.zeros((6, 4, 3), np.uint8), "a.png"], r"a\.png: no such image file"),
        ({"a": 1}, r"images are object\[\]"),
        (b"bytes", r"images are \|S5\[\]"),
        ("half\ud800.png", "no such image file|cannot be decoded"),
        (10**400, r"images are object\[\]"),
    ],
)
def test_arrays_that_do_not_fit(predictor: Predictor, images: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as e:
        predictor.predict(images)
    assert e.value.exit_code == 2


def test_files(predictor: Predictor, data: Any, tmp_path: Path) -> None:
    images = data[0][:3]
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    expected = predictor.predict(images).logits
    np.testing.assert_array_equal(predictor.predict(paths).logits, expected)
    np.testing.assert_array_equal(predictor.predict(str(paths[1])).logits, expected[1:2])
    with pytest.raises(InputError, match=r"none\.png: no such image file"):
        predictor.predict([paths[0], tmp_path / "none.png"])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_fixed_batch_runs_in_blocks(make_predictor: Any, predictor: Predictor, helpers: Any, data: Any, n: int) -> None:
    fixed = make_predictor(model=helpers.tiny_model(batch=3), batch=3)
    images = data[0][:n]
    np.testing.assert_allclose(fixed.predict(images).logits, predictor.predict(images).logits, rtol=1e-6)


def test_threads_share_a_predictor(predictor: Predictor, data: Any) -> None:
    images = data[0]
    expected = predictor.predict(images).logits
    with ThreadPoolExecutor(8) as pool:
        predictions = list(pool.map(lambda i: predictor.predict(images[i]).logits[0], list(range(300)) * 3))
    np.testing.assert_array_equal(predictions, np.concatenate([expected] * 3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": TensorProto.FLOAT}, r"the model has images: tensor\(float\).*; must have images: tensor\(uint8\)"),
        ({"classes": 5}, r"the model has logits: tensor\(float\)\['batch', 5\]; must have logits: .*3\]"),
        ({"batch": 4}, "the model's batch size is 4, the package says any"),
    ],
)
def test_model_that_is_not_the_package_s(make_predictor: Any, helpers: Any, changes: Any, message: str) -> None:
    with pytest.raises(PackageError, match=message):
        make_predictor(model=helpers.tiny_model(**changes))


def network(*nodes: onnx.NodeProto, **constants: np.ndarray) -> bytes:
    """images uint8[N, 6, 4, 3] → logits float32[N, 3], by any nodes."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 6, 4, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )


def test_a_model_that_fails_when_it_runs(make_predictor: Any, data: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Our error, and nothing of ONNX Runtime's own talk: it prints the names of nodes as they are."""
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["float", "shape"], ["logits"], name="\x1b]0;pwned\x07"),
    ]
    failing = make_predictor(model=network(*nodes, shape=np.array([5, 3], np.int64)))
    with pytest.raises(
        PackageError, match=r"onnxruntime-cpu cannot run the model on 2 images: .*if memory is short, giv"
    ):
        failing.predict(data[0][:2])
    assert capfd.readouterr() == ("", "")


def test_onnx_runtime_prints_nothing_when_it_fails(
    make_predictor: Any, helpers: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    """It says "EP Error", with the model's own bytes, on stdout, in the middle of our JSON."""
    for old, new in ((b"Gemm", b"Gem\xd1"), (b"images", b"im\xffges")):
        with pytest.raises(PackageError, match="codec can't decode"):
            make_predictor(model=helpers.tiny_model().replace(old, new))
    assert capfd.readouterr() == ("", "")


def test_a_model_that_gives_other_logits_than_it_says(make_predictor: Any, data: Any) -> None:
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["float", "shape"], ["logits"]),
    ]
    lying = make_predictor(model=network(*nodes, shape=np.array([-1, 3], np.int64)))
    with pytest.raises(PackageError, match=r"the model gives float32\[48, 3\] for 2 images; must give \[2, 3\]"):
        lying.predict(data[0][:2])
    with pytest.raises(PackageError, match=r"the model gives float32\[24, 3\] for 1 images"):
        lying.predict(data[0][:1])


def test_model_that_is_no_model(make_predictor: Any) -> None:
    with pytest.raises(PackageError, match="cannot load the model: it is no ONNX model"):
        make_predictor(model=b"nothing")
    with pytest.raises(PackageError, match="cannot load the model"):
        make_predictor(model=b"")


def test_a_predictor_holds_no_second_copy_of_the_model(dlx: Path, tmp_path: Path, contents: Any, files: Any) -> None:
    path = tmp_path / "own.dlx"
    path.write_bytes(dlx.read_bytes())
    predictor = load(path, threads=1)
    assert "model" not in vars(predictor.package)
    assert getattr(predictor.backend.session, "_model_bytes", None) is None
    assert predictor.package.model == contents.model  # read again
    with pytest.raises(AttributeError, match="'Package' object has no attribute 'modle'"):
        _ = predictor.package.modle  # type: ignore[attr-defined]
    meta = json.loads(files["package.json"])
    write_archive(path, {**files, "package.json": to_json({**meta, "version": "9"})})
    with pytest.raises(PackageError, match=r"own\.dlx: has become another package since it was opened; open it again"):
        _ = predictor.package.model
    path.unlink()
    with pytest.raises(PackageError, match=r"own\.dlx: no such file"):
        _ = predictor.package.model


def test_a_package_that_is_no_file_keeps_its_model(package: Any, predictor: Any) -> None:
    assert package.without_model() is package
    assert "model" in vars(predictor.package)
