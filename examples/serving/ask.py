"""Asks a served package, with nothing but the standard library, and numpy for tensors.

python X.dlx serve &
python examples/serving/ask.py http://127.0.0.1:8000 photos cat.jpg         # an image file: answers in words
python examples/serving/ask.py http://127.0.0.1:8000 reviews "a good film"  # a text
"""

from __future__ import annotations

import json
import mimetypes
import os
import sys
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote

HEADER = "Inference-Header-Content-Length"


def predict(server: str, model: str, data: bytes, media: str, top: int = 3, token: str = "") -> Any:
    """The answer to one sample, as ``predict --json`` would print it."""
    answer = _send(f"{server}/v2/models/{quote(model)}/predict?top={top}", data, {"Content-Type": media}, token)[0]
    return json.loads(answer)["predictions"][0]


def infer(server: str, model: str, name: str, array: Any, token: str = "") -> dict[str, Any]:
    """The outputs for one input ``array``, little-endian, by name: bytes both ways, nothing becomes text."""
    import numpy as np

    types = {"uint8": "UINT8", "int32": "INT32"}
    tensor = {"name": name, "shape": list(array.shape), "datatype": types[array.dtype.name]}
    tensor["parameters"] = {"binary_data_size": array.nbytes}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    fields = {HEADER: str(len(head)), "Content-Type": "application/octet-stream"}
    answer, headers = _send(f"{server}/v2/models/{quote(model)}/infer", head + array.tobytes(), fields, token)
    start = int(headers[HEADER])
    outputs = {}
    for one in json.loads(answer[:start])["outputs"]:
        end = start + one["parameters"]["binary_data_size"]
        kind = {"FP32": "<f4", "INT64": "<i8", "UINT8": "u1"}[one["datatype"]]
        outputs[one["name"]] = np.frombuffer(answer[start:end], kind).reshape(one["shape"])
        start = end
    return outputs


def _send(url: str, data: bytes, headers: dict[str, str], token: str) -> tuple[bytes, Any]:
    if token:
        headers = {**headers, "Authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
            return answer.read(), answer.headers
    except urllib.error.HTTPError as e:
        raise SystemExit(f"{e.code}: {json.load(e).get('error')}") from e


if __name__ == "__main__":
    where, called, given = sys.argv[1:4]
    if os.path.isfile(given):
        with open(given, "rb") as file:
            sample, kind = file.read(), mimetypes.guess_type(given)[0] or "image/jpeg"
    else:
        sample, kind = given.encode(), "text/plain"
    print(json.dumps(predict(where, called, sample, kind, token=os.environ.get("TOKEN", "")), indent=1))
