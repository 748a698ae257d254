"""Which networks people bring can be built: one line from a name to a package, for many families, at tiny sizes.

    python benchmarks/model_sweep.py [--only NAME …] [--out results/model-sweep.json]

Each network gets random weights, one epoch on made-up data, pruning, INT8 and a package for the Jetson; where
TensorRT-RTX is installed its builder compiles the graph. Where pruning is refused the reason is kept and the network is
built without. A row: built or the reason why not; the share of operations pruned; the share of layers with weights that
are INT8 in the plan and in the engine; parity of ONNX Runtime with PyTorch, relative to the largest output; CPU seconds
and peak memory of the build.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # for whoever loads this file by its path
from reports import publish, run_measured, versions, write_pictures

__all__ = ["BROUGHT", "Brought", "Row", "build_row", "write_data", "write_models"]

CLASSES = 4
PICTURES = {"train": 24, "validation": 6, "test": 12}
"""Of each class."""
SIDE = 40
SETTLING = 4
"""Samples in a step of a network whose random weights let activations grow until the statistics follow."""
TEXTS = 160
VOCABULARY = 300
SAID = (
    "red blue cat dog tree house run jump slow fast river mountain window garden yellow purple quickly bright silver "
    "stone bridge market winter summer kitchen candle mirror forest shadow thunder"
)
WORDS = tuple(SAID.split())
DISTRIBUTIONS = ("dlx-deploy", "onnx", "onnxruntime", "tensorrt-rtx", "timm", "torch", "torchvision", "transformers")


@dataclass(frozen=True)
class Brought:
    """A network to try. ``side``: of its images in px, 0: it reads texts. ``arguments``: TOML, of ``teacher``.

    ``batch``: samples in a step; few make many steps, and statistics of batch normalisation that fit its weights.
    """

    model: str
    side: int = 64
    arguments: str = "{}"
    batch: int = 64


@dataclass(frozen=True)
class Row:
    """What became of it.

    Shares are of 1; ``cpu_s``, ``peak_mib``: of the last build's main process; ``refused``: in the product's words.
    """

    model: str
    side: int
    built: bool
    refused: str = ""
    pruned: float | None = None
    int8_plan: float | None = None
    int8_engine: float | None = None
    parity: float | None = None
    cpu_s: float = 0.0
    peak_mib: int = 0
    failed_with: int = 0


TORCHVISION = (
    Brought("alexnet"),
    Brought("vgg11_bn", 32),
    Brought("resnet18"),
    Brought("resnext50_32x4d"),
    Brought("wide_resnet50_2", 32),
    Brought("densenet121"),
    Brought("googlenet"),
    Brought("inception_v3", 96),
    Brought("mobilenet_v2"),
    Brought("mobilenet_v3_small"),
    Brought("mnasnet0_5"),
    Brought("shufflenet_v2_x0_5"),
    Brought("squeezenet1_1"),
    Brought("efficientnet_b0"),
    Brought("efficientnet_v2_s", 32),
    Brought("convnext_tiny"),
    Brought("regnet_x_400mf"),
    Brought("regnet_y_400mf"),
    Brought("vit_b_16", arguments="{ width = 0.25 }"),
    Brought("swin_t"),
    Brought("swin_v2_t"),
    Brought("maxvit_t", 224, batch=8),
)
TIMM = tuple(
    Brought(f"timm:{name}", side, batch=SETTLING if name == "mobileone_s0" else 64)
    for name, side in {
        "convnext_atto": 64,
        "deit_tiny_patch16_224": 64,
        "edgenext_xx_small": 64,
        "fastvit_t8": 64,
        "ghostnet_100": 64,
        "hardcorenas_a": 64,
        "lcnet_050": 64,
        "levit_128s": 224,
        "mixnet_s": 64,
        "mobilenetv3_small_050": 64,
        "mobileone_s0": 64,
        "repvgg_a0": 64,
        "resnet10t": 64,
        "rexnet_100": 64,
        "tf_efficientnet_lite0": 64,
    }.items()
)
SMALL_ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
HF_TEXTS: dict[str, dict[str, Any]] = {
    "bert": SMALL_ENCODER,
    "roberta": SMALL_ENCODER | {"max_position_embeddings": 66},
    "electra": SMALL_ENCODER | {"embedding_size": 32},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 64},
    "albert": SMALL_ENCODER | {"embedding_size": 16},
}
SMALL_VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
HF_IMAGES: dict[str, dict[str, Any]] = {
    "vit": SMALL_VISION,
    "mobilenet_v2": {"image_size": 32, "depth_multiplier": 0.35},
    "resnet": {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"},
    "convnext": {"num_stages": 2, "hidden_sizes": [16, 32], "depths": [1, 1]},
    "swin": {
        "image_size": 32,
        "patch_size": 4,
        "embed_dim": 16,
        "depths": [1, 1],
        "num_heads": [2, 2],
        "window_size": 4,
    },
}
BROUGHT: tuple[Brought, ...] = (
    *TORCHVISION,
    *TIMM,
    *(Brought(f"hf:{kind}", 0) for kind in HF_TEXTS),
    *(Brought(f"hf:{kind}", 32) for kind in HF_IMAGES),
)


def write_data(folder: Path) -> None:
    """``pictures/SPLIT/CLASS`` and ``texts.csv``: a class is a brightness, and a word."""
    write_pictures(folder / "pictures", PICTURES, CLASSES, SIDE)
    draw = random.Random(0)
    starts = (" ".join(draw.choices(WORDS, k=draw.randint(3, 9))) for _ in range(TEXTS))
    texts = {f"{text} {('moon', 'sun')[i % 2]}": ("night", "day")[i % 2] for i, text in enumerate(starts)}
    rows = "".join(f"{text},{label}\n" for text, label in texts.items())
    (folder / "texts.csv").write_text("text,label\n" + rows, encoding="utf-8")


def write_models(folder: Path, names: Sequence[str]) -> None:
    """The Hugging Face networks of ``names`` as folders with a ``config.json``: a model is one of its ``hf:`` names."""
    from transformers import AutoConfig

    for name in names:
        kind = name.removeprefix("hf:")
        if kind in HF_TEXTS:
            config = AutoConfig.for_model(kind, vocab_size=VOCABULARY, pad_token_id=0, **HF_TEXTS[kind])
        else:
            config = AutoConfig.for_model(kind, **HF_IMAGES[kind])
        config.save_pretrained(folder / kind)


@dataclass(frozen=True)
class Try:
    """One ``dlx-deploy build``. ``steps``: stage → its metrics."""

    code: int
    error: str
    cpu_s: float
    peak_mib: int
    steps: dict[str, dict[str, float]] = field(default_factory=dict)


def options(brought: Brought, prune: bool) -> Iterator[str]:
    images = brought.side > 0
    yield f"data.kind={json.dumps('imagefolder' if images else 'text')}"
    yield f"data.path={'pictures' if images else 'texts.csv'}"
    yield f"data.height={brought.side}" if images else "data.max_length=64"
    if not images:
        yield f"data.vocabulary={VOCABULARY}"
    yield f"teacher.model={brought.model}"
    yield f"teacher.arguments={brought.arguments}"
    yield from ("teacher.epochs=1", "distill.enabled=false", f"prune.enabled={str(prune).lower()}", "prune.epochs=1")
    yield from (f"teacher.batch_size={brought.batch}", f"prune.batch_size={brought.batch}")
    yield from ("data.calibration_images=16", "gate.max_drop=0.99", "gate.allow_chance=true", "threads=1")


def attempt(brought: Brought, folder: Path, prune: bool) -> Try:
    """Build it in a process of its own."""
    asked = [part for option in options(brought, prune) for part in ("--set", option)]
    command = [sys.executable, "-m", "dlx_deploy.cli", "build", "--target", "jetson", "--json", "--jobs", "1", *asked]
    with tempfile.TemporaryFile() as said:
        code, cost = run_measured(command, folder, said.fileno())
        said.seek(0)
        errors = [line for line in said.read().decode("utf-8", "replace").splitlines() if line.startswith("error")]
    steps = {} if code else read_steps(folder)
    return Try(code, errors[-1] if errors else "", cost["cpu_s"], cost["peak_mib"], steps)


def read_steps(folder: Path) -> dict[str, dict[str, float]]:
    """The metrics of each stage of the newest build."""
    command = [sys.executable, "-m", "dlx_deploy.cli", "status", "--json"]
    report = json.loads(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout)
    (build,) = report.values()
    return {step["step"]: step["metrics"] for step in build["steps"]}


def build_row(brought: Brought, folder: Path) -> Row:
    """Build it in ``folder``, which holds the data and the models; without pruning where that is refused."""
    done = attempt(brought, folder, prune=True)
    refused = done.error
    if done.code and "prune" in done.error:
        done = attempt(brought, folder, prune=False)
    if done.code:
        return Row(brought.model, brought.side, False, done.error, cpu_s=done.cpu_s, failed_with=done.code)
    steps = done.steps
    plan = [steps["quantize"][f"{kind}_layers"] for kind in ("int8", "fp16", "fp32")]
    export = steps["export"] if "export" in steps else steps["export-teacher"]
    return Row(
        brought.model,
        brought.side,
        True,
        refused,
        steps["prune"]["macs_removed"] if "prune" in steps else None,
        round(plan[0] / sum(plan), 4),
        steps["compile"].get("engine_int8_share"),
        export["parity_relative"],
        done.cpu_s,
        done.peak_mib,
    )


def table(rows: Sequence[Row]) -> str:
    """As Markdown."""
    lines = [
        "| network | px | built | MACs pruned | INT8 planned | INT8 in the engine | parity | CPU s | MiB | refused |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = ("–" if share is None else f"{share:.0%}" for share in (row.pruned, row.int8_plan, row.int8_engine))
        parity = "–" if row.parity is None else f"{row.parity:.0e}"
        built = "yes" if row.built else f"no (exit {row.failed_with})"
        cost = (row.cpu_s, row.peak_mib or "–")
        cells = (row.model, row.side or "text", built, *shares, parity, *cost, row.refused or "–")
        lines.append(f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def sweep(chosen: Sequence[Brought], jobs: int) -> Iterator[Row]:
    """The rows, in order; each network in a folder of its own."""

    def one(brought: Brought) -> Row:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write_data(folder)
            write_models(folder, [brought.model] if brought.model.startswith("hf:") else [])
            row = build_row(brought, folder)
        sys.stderr.write(f"{row.model}: {'built' if row.built else row.refused} ({row.cpu_s} CPU s)\n")
        return row

    if any(brought.model.startswith("hf:") for brought in chosen):
        from transformers import AutoConfig  # noqa: F401  # which threads must not import at once
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(one, chosen)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="names, as in the table")
    parser.add_argument("--jobs", type=int, default=1, help="builds at a time")
    parser.add_argument("--out", type=Path, default=None, help="a JSON file; the table goes beside it as .md")
    asked = parser.parse_args()
    chosen = [brought for brought in BROUGHT if not asked.only or brought.model in asked.only]
    rows = list(sweep(chosen, asked.jobs))
    publish({"versions": versions(DISTRIBUTIONS), "rows": [asdict(row) for row in rows]}, asked.out, table(rows))
    if asked.out is not None:
        asked.out.with_suffix(".md").write_text(table(rows), encoding="utf-8")
    return 0 if all(row.built for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
