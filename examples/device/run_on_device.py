"""What a device does with a package: check that it computes the same here, time it, then classify images.

    python run_on_device.py cifar10-resnet20-0.1.0-jetson-orin-nano-8gb.dlx image.png …

Needs Python 3.8 or newer, numpy and onnxruntime, and Pillow to decode image files; nothing of dlx-deploy. The package
is a file that Python runs, so the same works from a shell:

    python X.dlx selftest
    python X.dlx bench --max-p90-ms 5
    python X.dlx predict --top 3 image.png

``dlx-deploy push X.dlx ssh://user@board`` brings a package there from the machine that built it and does the first two
steps by itself, before the package becomes ``~/dlx-deploy/NAME/current/package.dlx``.

Where dlx-deploy is installed (``pip install .`` in its repository, without its build extra) there is a Python API too,
which executes no code of the package: see ``classify_in_process``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def command(package: str, *arguments: str) -> dict[str, Any]:
    """What ``python package …`` answers, as JSON.

    Ends this program with the package's exit code if that is not 0: 2 unusable input or package, 3 a budget missed,
    4 a library missing, 5 the self-test failed, 6 undecided. The package has said why on stderr.
    """
    done = subprocess.run([sys.executable, package, *arguments, "--json"], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def classify_in_process(package: str, images: list[str]) -> list[str]:
    """The label of every image file, through the installed library: one session for a camera that never stops.

    Arrays do as well as files: ``predictor.predict(frames)`` with uint8[N, H, W, C], NHWC, 0..255.
    """
    from dlx_deploy.runtime import load

    predictor = load(package)
    labels: list[str] = predictor.predict(images).labels
    return labels


def main(package: str, *images: str) -> None:
    command(package, "selftest")  # an update that computes something else never goes into service
    latency = command(package, "bench", "--rounds", "100")
    print(f"p90 {latency['latency']['p90_ms']:.3f} ms on {latency['machine']['label']}")
    if images:
        for row in command(package, "predict", *images)["predictions"]:
            best = row["top"][0]
            print(f"{row['image']}: {best['label']} ({best['probability']:.0%})")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f"usage: python {sys.argv[0]} PACKAGE.dlx [IMAGE ...]")
    main(*sys.argv[1:])
