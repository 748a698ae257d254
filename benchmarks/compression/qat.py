"""What quantization-aware training gives back of what rounding costs: ResNet-20 on CIFAR-10, paired, several seeds.

    python benchmarks/compression/qat.py cifar10 cifar10-resnet20-jpeg.safetensors \
        --json benchmarks/results/compression-qat.json

``cifar10`` holds train/CLASS and test/CLASS, the second file a trained ResNet-20 (option-A shortcuts) of those classes
in their order. It has seen the training images, so every fifth test image is the validation split instead, and none of
the test; training ends after its last epoch, whatever validation says. ``w4a8``: weights on the grid of INT4, rounded
to the nearest; ``w4a4``: activations have 16 levels too. The scales begin with those of PTQ, the teacher is the network
itself. Nothing is tuned. Style: TensorRT, in exact Q/DQ arithmetic. What the file has already is not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from reports import finish

from dlx_deploy.config import Data, Export, Qat
from dlx_deploy.graph.execution.evaluation import run_onnx
from dlx_deploy.graph.model import load, to_bytes
from dlx_deploy.graph.quantization.integers import setting_for
from dlx_deploy.graph.quantization.quantize import QuantizationRequest, quantize_model
from dlx_deploy.nn.data.dataset import Dataset, open_data
from dlx_deploy.nn.export.network import export_onnx
from dlx_deploy.nn.models.registry import build_model
from dlx_deploy.nn.qat.checks import check_float, check_written
from dlx_deploy.nn.qat.learned import Learning, learned_model, learned_plan
from dlx_deploy.nn.training.augment import seen_in
from dlx_deploy.nn.training.batches import TrainData
from dlx_deploy.nn.training.classes import TOP1, class_blend
from dlx_deploy.nn.training.compute import set_threads
from dlx_deploy.nn.training.distillation import Distillation
from dlx_deploy.nn.training.hooks import Hooks
from dlx_deploy.nn.training.inference import predict_logits
from dlx_deploy.nn.training.loop import RunContext, train
from dlx_deploy.nn.training.losses import distilled_from
from dlx_deploy.nn.training.views import Views
from dlx_deploy.nn.weights.checkpoint import load_into, read_checkpoint
from dlx_deploy.tasks import prepare, task_of

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What the checkpoint was trained with."""
VALIDATION_EVERY = 5
VIEWS = Views(shift_px=0, flip=True)
OPSET = 20

Right = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Grid:
    """Of how many bits weights are, and how they are trained."""

    weight_bits: Literal[4, 8]
    activation_bits: Literal[4, 8]
    training: Qat


GRIDS = {
    "w8a8": Grid(8, 8, Qat(epochs=1, learning_rate=0.0003, batch_size=64, shift_px=0, flip=True)),
    "w4a8": Grid(4, 8, Qat(epochs=2, learning_rate=0.0025, batch_size=64, shift_px=0, flip=True)),
    "w4a4": Grid(4, 4, Qat(epochs=2, learning_rate=0.0025, batch_size=64, shift_px=0, flip=True)),
}


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def split(source: Path, folder: Path, train: int) -> Path:
    """``train`` evenly spread training images; of the test images every fifth for validation, the others to test."""
    for path in sorted((source / "train").iterdir()):
        images = sorted(path.iterdir())
        _link(images[:: max(len(images) * 10 // train, 1)][: train // 10], folder / "train" / path.name)
    for path in sorted((source / "test").iterdir()):
        images = sorted(path.iterdir())
        _link(images[::VALIDATION_EVERY], folder / "validation" / path.name)
        _link([x for i, x in enumerate(images) if i % VALIDATION_EVERY], folder / "test" / path.name)
    return folder


def _link(images: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for image in images:
        shutil.copyfile(image, folder / image.name)


class Bench:
    """The data, the network as ONNX, its answers to what it teaches, and how a graph does on the test split."""

    def __init__(self, data: Dataset, checkpoint: Path, folder: Path) -> None:
        self.data, self.folder, self.source = data, folder, folder / "fp32.onnx"
        inputs = task_of(data).inputs
        network = build_model("resnet20", {"shortcut": "A"}, len(data.classes), inputs.spec(data))
        load_into(network, read_checkpoint(checkpoint), checkpoint)
        spec = inputs.spec(data)
        outputs = task_of(data).answers.outputs(spec, len(data.classes))
        asked = inputs.export_spec(spec, Export(), OPSET, data, outputs)
        export_onnx(network.eval(), self.source, asked)
        images, self.feed = data.split("train")[0], inputs.feed(data)
        self.answers = np.concatenate(
            [predict_logits(network, images, seen_in(self.feed, VIEWS, i)) for i in range(VIEWS.count)]
        )
        self.truth = np.asarray(data.split("test")[1])

    def right(self, graph: bytes) -> Right:
        """bool[test images], in exact arithmetic."""
        (answers,) = run_onnx(graph, self.data.samples("test"), exact_qdq=True).values()
        return np.asarray(answers.argmax(axis=1) == self.truth)

    def begun(self, grid: Grid) -> tuple[Learning, bytes]:
        """What learns on that grid, and the graph that it begins with: PTQ by the largest magnitudes."""
        samples, out = self.data.samples("calibration"), self.folder / "ptq.onnx"
        request = QuantizationRequest("tensorrt", weight_bits=grid.weight_bits, activation_bits=grid.activation_bits)
        plan = quantize_model(self.source, out, samples, request).plan
        model = load(self.source)
        return Learning(model, setting_for(model, samples, request), plan), out.read_bytes()

    def trained(self, learning: Learning, training: Qat, seed: int) -> tuple[bytes, float]:
        """The graph that was learned, and its SQNR in dB against the network that was trained."""
        samples = self.data.samples("validation")[:256]
        check_float(learning, samples, 0)
        network = learning.network()
        learned = TrainData.of(self.data, self.feed)
        loss = distilled_from(self.answers, class_blend(Distillation(4.0, 0.9)), len(learned.inputs))
        hooks = Hooks(TOP1, after_update=learning.projected(network))
        train(network, learned, training, loss, RunContext(seed=seed), hooks)
        written = learning.written(learned_model(learning.model, network), learned_plan(learning, network))
        return to_bytes(written), check_written(written, network, samples, exact=True)[1]


def drop(before: Right, after: Right) -> dict[str, float]:
    """Points that ``after`` is right less often than ``before``, and the paired standard error over images."""
    lost = 100 * (before.astype(float) - after)
    return {"drop": round(float(lost.mean()), 2), "se": round(float(lost.std(ddof=1)) / math.sqrt(len(lost)), 2)}


def run(arguments: argparse.Namespace, folder: Path, report: dict[str, Any]) -> None:
    """Fill ``report``, which is written whenever a part of it is there."""
    images = split(arguments.data, folder / "images", arguments.train)
    prepare(Data(kind="imagefolder", path=str(images), height=32, mean=MEAN, std=STD), folder / "data", 0)
    bench = Bench(open_data(folder / "data"), arguments.checkpoint, folder)
    fp32 = bench.right(bench.source.read_bytes())
    report |= {"test_images": len(fp32), "train_images": len(bench.data.split("train")[1])}
    report["fp32_top1"] = round(float(fp32.mean()), 4)
    rows = report.setdefault("rows", {})
    for name in arguments.only or GRIDS:
        learning, graph = bench.begun(GRIDS[name])
        ptq = bench.right(graph)
        row = rows.setdefault(name, {"seeds": {}})
        training = GRIDS[name].training
        row["recipe"] = {"epochs": training.epochs, "learning_rate": training.learning_rate}
        row["ptq"] = {"top1": round(float(ptq.mean()), 4), **drop(fp32, ptq)}
        say(f"{name} PTQ: {row['ptq']}")
        for seed in range(arguments.seeds):
            if str(seed) in row["seeds"]:
                continue
            began = time.process_time()
            graph, sqnr_db = bench.trained(learning, training, seed)
            right = bench.right(graph)
            row["seeds"][str(seed)] = {
                "top1": round(float(right.mean()), 4),
                **drop(fp32, right),
                "over_ptq": {"points": -drop(ptq, right)["drop"], "se": drop(ptq, right)["se"]},
                "written_sqnr_db": round(sqnr_db, 1),
                "cpu_s": round(time.process_time() - began),
            }
            say(f"{name} seed {seed}: {row['seeds'][str(seed)]}")
            row["qat"] = _summary(row)
            finish(report, arguments.json)


def _summary(row: Mapping[str, Any]) -> dict[str, float]:
    """Over the seeds: the mean drop, its standard error over them, and the share of PTQ's loss that came back."""
    drops = [seed["drop"] for seed in row["seeds"].values()]
    spread = float(np.std(drops, ddof=1)) / math.sqrt(len(drops)) if len(drops) > 1 else 0.0
    lost = row["ptq"]["drop"]
    back = {"recovered": round(1 - float(np.mean(drops)) / lost, 2)} if lost > 0 else {}
    return {"drop": round(float(np.mean(drops)), 2), "se_seeds": round(spread, 2), **back}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("checkpoint", type=Path, help="a ResNet-20 of those classes")
    parser.add_argument("--only", choices=sorted(GRIDS), action="append")
    parser.add_argument("--train", type=int, default=6000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    there = json.loads(arguments.json.read_bytes()) if arguments.json and arguments.json.exists() else {}
    report = {key: there[key] for key in ("rows",) if key in there}
    with tempfile.TemporaryDirectory(dir=arguments.json.parent if arguments.json else None) as folder:
        run(arguments, Path(folder), report)


if __name__ == "__main__":
    main()
