"""data: images decoded and resized, or texts tokenized, once, split into train, calibration, validation and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from dlx_deploy.config import Config, Data, Gate, Training
from dlx_deploy.errors import ConfigError, DataError
from dlx_deploy.pipeline.stage import Bound, Job, Metrics, Offers, Output, Setup, Source, Stage, Step, Tree
from dlx_deploy.stages.support.gates import fewest_samples_for
from dlx_deploy.targets import Profile

__all__ = ["STAGE"]

_SIDE = 8  # pixels of a scanned digit
_OWN_DATA = {"digits": "scikit-learn's digits", "docstrings": "docstrings of installed packages"}
_FOLDERS = {"imagefolder": "that holds train/CLASS/*.jpg", "text": "that holds train.csv or train.jsonl"}
_FLIPS = 0.02
"""The share of answers that a good student changes, for better and worse alike; on the digits it is 2 to 4 %."""


def run(job: Job[Data]) -> Metrics:
    """Write the data artifact. ``images``, ``texts`` and ``tokenizer`` are bound where the user names files."""
    from dlx_deploy.nn.data.prepare import prepare

    files = {"images": "path", "texts": "path", "tokenizer": "tokenizer"}
    given = {key: str(job.inputs[name]) for name, key in files.items() if name in job.inputs}
    return prepare(replace(job.params, **given), job.out / "data", job.seed, job.progress)


def bind(config: Config, profile: Profile, upstream: Offers) -> Sequence[Bound]:
    """One step, whose parameters are the section without what is bound as a file."""
    given = config.data.tokenizer.endswith(".json")
    params = replace(config.data, path="", tokenizer="given.json" if given else config.data.tokenizer)
    step = Step(
        name="data",
        stage=STAGE,
        params=params,
        inputs=_files(config.data),
        seed=config.seed,
        gates=partial(refuse_large_batches, config),
        notes=partial(notes, config),
    )
    return [Bound(step, Offers(outputs={"data": Output("data", "data")}))]


def _files(data: Data) -> dict[str, Source]:
    """The user's images or texts, and a tokenizer if one is given."""
    files: dict[str, Source] = {}
    if data.is_text and data.tokenizer.endswith(".json"):
        files["tokenizer"] = Path(data.tokenizer)
    if data.kind in _OWN_DATA:
        return files
    if not data.path:
        raise ConfigError(f"data.path is ''; data.kind {data.kind!r} needs the folder {_FOLDERS[data.kind]}")
    from dlx_deploy.nn.data.listing import image_names, text_names

    path = Path(data.path)
    if data.kind == "imagefolder":
        return {"images": Tree(path, image_names)}
    return {**files, "texts": path if path.is_file() else Tree(path, text_names)}


def check(setup: Setup[Data]) -> None:
    """The ``[data]`` table: keys that belong to another kind, sizes that are missing."""
    data = setup.config.data
    if data.kind in _OWN_DATA and data.path:
        raise ConfigError(
            f"data.path is {data.path!r}, and data.kind {data.kind!r} takes none: it is {_OWN_DATA[data.kind]}; set "
            "data.kind to 'imagefolder' or 'text', or leave the path out"
        )
    _check_texts(data) if data.is_text else _check_images(data)


def _check_texts(data: Data) -> None:
    given = {"height": data.height, "width": data.width, "channels": data.channels, "mean": data.mean, "std": data.std}
    for key, value in given.items():
        if value:
            shown = list(value) if isinstance(value, tuple) else value
            raise ConfigError(f"data.{key} is {shown}, and data.kind {data.kind!r} has texts, not images; leave it out")


def _check_images(data: Data) -> None:
    if data.tokenizer != Data().tokenizer:
        raise ConfigError(
            f"data.tokenizer is {data.tokenizer!r}, and data.kind {data.kind!r} has images, not texts; leave it out"
        )
    if data.kind == "imagefolder" and not data.height:
        raise ConfigError(
            "data.height is 0; data.kind 'imagefolder' needs the height in pixels to resize to, e.g. data.height = 32"
        )
    if data.kind == "digits":
        for key, value in (("height", data.height), ("width", data.width)):
            if value not in (0, _SIDE):
                raise ConfigError(f"data.{key} is {value}; the digits are {_SIDE} x {_SIDE}: leave it out")
    channels = data.channels or (1 if data.kind == "digits" else 3)
    for key, values in (("mean", data.mean), ("std", data.std)):
        if len(values) not in (0, channels):
            raise ConfigError(
                f"data.{key} has {len(values)} values {list(values)}; the images have {channels} channels: give one "
                "value for each, or none to measure them"
            )


def refuse_large_batches(config: Config, outputs: Mapping[str, Path], metrics: Metrics) -> tuple[()]:
    """Nothing, once the data are there, if each network that will be trained on images finds a batch of them.

    Raises:
        DataError: a batch is larger than the training split; the section is named.
    """
    images = metrics.get("train_images")
    trained: list[tuple[str, Training]] = [("teacher", config.teacher)]
    trained += [("distill", config.distill)] if config.distill.enabled else []
    trained += [("prune", config.prune)] if config.prune.enabled else []
    for name, section in trained:
        if images is not None and section.epochs and section.batch_size > images:
            raise DataError(
                f"data: the training split has {images:.0f} images and batch_size is {section.batch_size} ({name}); "
                "a batch must not be larger than the split: add images or lower batch_size"
            )
    return ()


def notes(config: Config, outputs: Mapping[str, Path], metrics: Metrics) -> Sequence[str]:
    """Each budget that the test split is too small for, whatever is built from it."""
    from dlx_deploy.runtime.statistics.floors import fewest_samples

    budgets = config.gate
    n = int(metrics.get("test_images", metrics.get("test_texts", 0)))
    said = _drop_notes(budgets, n)
    level = f"at gate.confidence {budgets.confidence:g}"
    if budgets.min_accuracy:
        least = fewest_samples(budgets.min_accuracy, budgets.confidence)
        if n < least:
            said.append(
                f"the test split has {n} samples; gate.min_accuracy {budgets.min_accuracy:g} {level} takes at least "
                f"{least}, all of them right: add test samples or lower the floor"
            )
    elif not budgets.allow_chance:
        classes = max(int(metrics.get("classes", 2)), 2)
        least = fewest_samples(1 / classes, budgets.confidence)
        if n < least:
            said.append(
                f"the test split has {n} samples of {classes} classes; that a teacher is better than always answering "
                f"the largest class takes at least {least} {level}: add test samples, or set gate.allow_chance = true"
            )
    return said


def _drop_notes(budgets: Gate, n: int) -> list[str]:
    least, usual = fewest_samples_for(budgets, 0), fewest_samples_for(budgets, _FLIPS)
    rule = f"gate.max_drop {budgets.max_drop:g} at gate.confidence {budgets.confidence:g}"
    if least is None:
        return [f"{rule} can only be shown of a network that is clearly better than its teacher; allow a drop"]
    if n >= (usual or least):
        return []
    flips = f"{usual} if {100 * _FLIPS:g} % of the answers change"
    if n < least:
        return [
            f"the test split has {n} samples, too few to decide: {rule} takes at least {least} if not one answer "
            f"differs from the teacher's, and {flips}; add test samples, or raise the budget"
        ]
    return [
        f"the test split has {n} samples, which may be too few to decide: {rule} takes {least} if not one answer "
        f"differs from the teacher's, and {flips}"
    ]


STAGE = Stage(
    name="data",
    version=3,
    params=Data,
    inputs=("images", "texts", "tokenizer"),
    outputs=("data",),
    run=run,
    check=check,
    bind=bind,
    tools=("numpy", "pillow", "scikit-learn", "tokenizers", "torch"),
)
