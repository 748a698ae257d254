"""What is run on both machines, by the Python and ONNX Runtime that are there: logits for images, as JSON.

    python there.py X.dlx IMAGES.npy [native]

By the package's own runtime, or with ``native`` by ONNX Runtime's own kernels for the model as it is.
"""

from __future__ import annotations

import json
import sys
import zipfile

import numpy as np


def main(package: str, images: str, native: bool) -> None:
    pixels = np.load(images)
    if native:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(zipfile.ZipFile(package).read("model.onnx"), options)
        logits = session.run(None, {"images": pixels})[0]
    else:
        sys.path.insert(0, package)
        from dlx_runtime import load  # type: ignore[import-not-found]  # of the package

        logits = load(package).predict(pixels).logits
    print(json.dumps(np.asarray(logits, np.float64).tolist()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:] == ["native"])
