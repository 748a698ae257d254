"""examples/serving/ask.py, against a server."""

from __future__ import annotations

import io
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlx_deploy.runtime.predictor import Predictor
from dlx_deploy.runtime.serving.server import Server

EXAMPLE = Path(__file__).parents[3] / "examples" / "serving" / "ask.py"


def test_the_example_asks_for_words_and_tensors(server: Server, predictor: Predictor, data: Any) -> None:
    example, where = runpy.run_path(str(EXAMPLE)), f"http://127.0.0.1:{server.address[1]}"
    file = io.BytesIO()
    Image.fromarray(data[0][1]).save(file, "png")
    assert example["predict"](where, "tiny", file.getvalue(), "image/png")["top"][0]["label"] == "dog"
    outputs = example["infer"](where, "tiny", "images", data[0][:3])
    np.testing.assert_array_equal(outputs["logits"], predictor.run({"images": data[0][:3]})["logits"])
    with pytest.raises(SystemExit, match="404: model 'big' is not served here"):
        example["infer"](where, "big", "images", data[0][:3])
