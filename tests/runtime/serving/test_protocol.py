"""The protocol over a real connection, by requests written out and by a public client of it."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.serving.server import Server

INFER = "/v2/models/tiny/infer"


def tensor(images: np.ndarray, **changes: Any) -> dict[str, Any]:
    data = {"name": "images", "datatype": "UINT8", "shape": list(images.shape), "data": images.ravel().tolist()}
    return {key: value for key, value in {**data, **changes}.items() if value is not None}


def encoded(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "png")
    return file.getvalue()


def test_the_endpoints_say_what_is_served(ask: Any) -> None:
    status, headers, body = ask("GET", "/v2")
    assert (status, headers["content-type"], json.loads(body)["name"]) == (200, "application/json", "dlx-deploy")
    assert "binary_tensor_data" in json.loads(body)["extensions"]
    assert json.loads(ask("GET", "/v2/health/live")[2]) == {"live": True}
    assert json.loads(ask("GET", "/v2/health/ready")[2]) == {"ready": True}
    assert json.loads(ask("GET", "/v2/models/tiny/versions/1.2.3/ready")[2]) == {"name": "tiny", "ready": True}
    assert json.loads(ask("POST", "/v2/repository/index")[2]) == [
        {"name": "tiny", "version": "1.2.3", "state": "READY"}
    ]
    about = json.loads(ask("GET", "/v2/models/tiny")[2])
    assert about["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 6, 4, 3]}]
    assert about["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}]
    assert (about["versions"], about["parameters"]["media"]) == (["1.2.3"], "image/*")
    assert ask("HEAD", "/v2")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v3", 404, "there is nothing at"),
        ("GET", "/v2/models/tiny/../../etc", 404, "there is nothing at"),
        ("GET", "/v2/models/huge", 404, "model 'huge' is not served here"),
        ("GET", "/v2/models/tiny/versions/9", 404, "not served in version '9'; there are 1.2.3"),
        ("GET", INFER, 405, "not for this path"),
        ("DELETE", "/v2", 405, "not for this path"),
        ("POST", INFER, 400, "the body is no JSON"),
    ],
)
def test_what_there_is_not_is_said_as_the_protocol_says_it(
    ask: Any, method: str, path: str, status: int, message: str
) -> None:
    seen, _, body = ask(method, path)
    assert seen == status
    assert message in json.loads(body)["error"]


def test_an_inference_in_json_gives_what_the_predictor_gives(ask: Any, data: Any, predictor: Predictor) -> None:
    images = data[0][:3]
    answer = json.loads(ask("POST", INFER, {"id": "7", "inputs": [tensor(images)], "outputs": [{"name": "logits"}]})[2])
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("tiny", "1.2.3", "7")
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("logits", "FP32", [3, 3])
    wanted = predictor.run({"images": images})["logits"]
    np.testing.assert_array_equal(np.float32(output["data"]).reshape(3, 3), wanted)
    nested = json.loads(ask("POST", INFER, {"inputs": [tensor(images, data=images.tolist())]})[2])
    assert nested["outputs"] == answer["outputs"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [3, 6, 4, -3]}, "must be a list of 1 or more sizes, each over 0"),
        ({"shape": [2**62, 2**62]}, "must be a list of 1 or more sizes"),
        ({"shape": [1, 6, 4, 3]}, "has 216 numbers; shape [1, 6, 4, 3] has 72"),
        ({"shape": [3, 4, 6, 3]}, "must be UINT8[N, 6, 4, 3], or BYTES[N] of images"),
        ({"datatype": "FP32"}, "is FP32[3, 6, 4, 3]; must be UINT8[N, 6, 4, 3]"),
        ({"datatype": "INT3"}, "is of datatype 'INT3'; must be one of BOOL, UINT8"),
        ({"data": [256] * 216}, "from 256 to 256, too large for UINT8"),
        ({"data": [0.5] * 216}, "its data is not; nothing is converted"),
        ({"data": ["1"] * 216}, "its data is not; nothing is converted"),
        ({"data": [2**70] * 216}, "its data is not; nothing is converted"),
        ({"data": [[1, 2], [3]]}, "not nested as its shape [3, 6, 4, 3]; or give it flat"),
        ({"data": [[1, 2], 3]}, "not nested as its shape"),
        ({"data": [[0] * 72] * 3}, "not nested as its shape"),
        ({"data": np.zeros((3, 4, 6, 3), int).tolist()}, "not nested as its shape"),
        ({"data": [[0] * 216]}, "not nested as its shape"),
        ({"data": np.zeros((3, 6, 4, 3, 1), int).tolist()}, "not nested as its shape"),
        ({"data": [True, *[0] * 215]}, "is of datatype UINT8 and holds true or false; nothing is converted"),
        ({"data": [[[[0, 0, False]] * 4] * 6] * 3}, "holds true or false"),
        ({"data": None}, "either data, or the parameter binary_data_size"),
        ({"name": "pictures"}, "input 'pictures' is none of the model's; it has images"),
        ({"parameters": {"shared_memory_region": "x"}}, "an input takes these: binary_data_size, content_type"),
        ({"parameters": {"binary_data_size": 9}, "data": None}, "0 bytes are left for it"),
    ],
)
def test_a_tensor_that_is_not_the_models_is_refused(ask: Any, data: Any, changes: Any, message: str) -> None:
    status, _, body = ask("POST", INFER, {"inputs": [tensor(data[0][:3], **changes)]})
    assert (status, message in json.loads(body)["error"]) == (400, True), body


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[" * 100_000, "nested too deep"),
        (b'{"inputs": [NaN]}', "NaN is no number of JSON"),
        (b'{"inputs": 1%s}' % (b"0" * 500), "a number of 400 digits or more"),
        (b'{"id": "\\ud800", "inputs": []}', "must be a list of 1 or more tensors"),
        (b'{"inputs": [], "inputs": []}', "a name is there twice"),
        (b"[]", "must be a table with inputs"),
        (b'{"inputs": [%s[]]}' % (b"[]," * 500_000), "more than 500000 lists; give data flat"),
        (b"\xff", "no JSON"),
        (b'{"parameters": {"classification": 3}, "inputs": []}', "'classification' is not known here"),
        (b'{"parameters": {"timeout": -1}, "inputs": []}', "must be a whole number of microseconds"),
    ],
)
def test_hostile_json_is_refused(ask: Any, body: bytes, message: str) -> None:
    status, _, answer = ask("POST", INFER, body)
    assert (status, message in json.loads(answer)["error"]) == (400, True), answer


def test_an_unreadable_image_among_many(ask: Any, data: Any, predictor: Predictor) -> None:
    """Fails the request that does not ask for it; with the parameter it is told, and the others answered."""
    import base64

    files = [encoded(data[0][0]), b"no image", encoded(data[0][1])]
    texts = [base64.b64encode(one).decode() for one in files]
    given = tensor(data[0][:3], datatype="BYTES", shape=[3], data=texts, parameters={"content_type": "base64"})
    status, _, body = ask("POST", INFER, {"inputs": [given]})
    assert status == 400
    assert json.loads(body)["error"].startswith("image 1: cannot be decoded as an image")
    reported = {"inputs": [given], "parameters": {"unreadable": "report"}}
    logits, unreadable = json.loads(ask("POST", INFER, reported)[2])["outputs"]
    assert logits["shape"] == [2, 3]
    np.testing.assert_array_equal(
        np.float32(logits["data"]).reshape(2, 3), predictor.run({"images": data[0][:2]})["logits"]
    )
    assert (unreadable["name"], unreadable["datatype"], unreadable["shape"]) == ("unreadable", "BYTES", [3])
    assert [bool(one) for one in unreadable["data"]] == [False, True, False]
    answers = json.loads(ask("POST", "/v2/models/tiny/predict", reported)[2])["predictions"]
    assert answers[0]["top"][0]["label"] == "cat"
    assert answers[1]["error"].startswith("image 1: cannot be decoded")
    assert answers[2]["top"][0]["label"] == "dog"
    alone = {"inputs": [{**given, "shape": [1], "data": texts[1:2]}], "parameters": {"unreadable": "report"}}
    assert [one["shape"] for one in json.loads(ask("POST", INFER, alone)[2])["outputs"]] == [[0, 3], [1]]
    nested = {**reported, "inputs": [{**given, "shape": [3, 1], "data": [[one] for one in texts]}]}
    assert json.loads(ask("POST", INFER, nested)[2])["outputs"][0] == logits


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [1, 1, 1]}, "must be [N] or [N, 1]"),
        ({"data": ["x", "y"]}, "must have 1 strings as its data"),
        ({"data": ["x", 1], "shape": [2]}, "must have 2 strings as its data"),
        ({"data": [["x", "y"]], "shape": [2]}, "not nested as its shape [2]; or give it flat"),
        ({"data": [["x", "y"]], "shape": [2, 1]}, "not nested as its shape [2, 1]; or give it flat"),
        ({"data": ["?"], "parameters": {"content_type": "base64"}}, "is no base64"),
        ({"parameters": {"content_type": "gzip"}}, "must be base64, or left out for text"),
        ({"shape": [5000], "data": ["x"] * 5000}, "holds 5000 samples; at most 4096"),
    ],
)
def test_encoded_samples_that_are_none_are_refused(ask: Any, changes: Any, message: str) -> None:
    given = {"name": "images", "datatype": "BYTES", "shape": [1], "data": ["x"], **changes}
    status, _, body = ask("POST", INFER, {"inputs": [given]})
    assert (status, message in json.loads(body)["error"]) == (400, True), body


def test_a_compressed_body_and_bytes_that_are_left_over_are_refused(ask: Any, data: Any) -> None:
    body = json.dumps({"inputs": [tensor(data[0][:1])]}).encode()
    assert ask("POST", INFER, body, Content_Encoding="gzip")[0] == 415
    status, _, answer = ask("POST", INFER, body + b"12", Inference_Header_Content_Length=str(len(body)))
    assert (status, "2 bytes are left behind" in str(answer)) == (400, True)
    status, _, answer = ask("POST", INFER, body, Inference_Header_Content_Length="9999")
    assert (status, "bytes are JSON" in str(answer)) == (400, True)


def test_an_image_file_as_the_body_is_answered_in_words(ask: Any, data: Any) -> None:
    path = "/v2/models/tiny/predict?top=2"
    status, _, body = ask("POST", path, encoded(data[0][1]), Content_Type="image/png")
    (answer,) = json.loads(body)["predictions"]
    assert (status, answer["top"][0]["label"], len(answer["top"])) == (200, "dog", 2)
    status, _, body = ask("POST", path, b"dog", Content_Type="text/plain")
    assert (status, "the model takes image/*" in json.loads(body)["error"]) == (415, True)
    assert ask("POST", path.replace("2", "0"), encoded(data[0][1]), Content_Type="image/png")[0] in (400, 404)


def test_the_public_client_infers_json_and_binary(server: Server, data: Any, predictor: Predictor) -> None:
    http = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed; the test extra has it")
    images = data[0][:4]
    wanted = predictor.run({"images": images})["logits"]
    with http.InferenceServerClient(f"127.0.0.1:{server.address[1]}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny", "1.2.3")
        assert client.get_model_metadata("tiny")["platform"].startswith("dlx-deploy")
        for binary in (True, False):
            given = http.InferInput("images", list(images.shape), "UINT8")
            given.set_data_from_numpy(images, binary_data=binary)
            outputs = [http.InferRequestedOutput("logits", binary_data=binary)]
            np.testing.assert_array_equal(client.infer("tiny", [given], outputs=outputs).as_numpy("logits"), wanted)
            np.testing.assert_array_equal(client.infer("tiny", [given]).as_numpy("logits"), wanted)
        files = http.InferInput("images", [2], "BYTES")
        files.set_data_from_numpy(np.array([encoded(images[0]), b"no image"], dtype=np.object_))
        told = client.infer("tiny", [files], parameters={"unreadable": "report"})
        assert told.as_numpy("logits").shape == (1, 3)
        assert told.as_numpy("unreadable")[1].startswith(b"image 1: cannot be decoded")
        with pytest.raises(Exception, match="none of the model's"):
            client.infer("tiny", [given], outputs=[http.InferRequestedOutput("boxes")])
        with pytest.raises(Exception, match="not served here"):
            client.infer("other", [given])
