"""What of a configuration is wrong at first sight: no heavy library is loaded, and nothing is read but a user's file.

Each check is one stage's ``check`` or a part of it. What needs torch is in ``stages/support/rehearsal``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dlx_deploy.config import Config, Data, Distill, Export, Prune, Teacher, Training
from dlx_deploy.errors import ConfigError, DataError
from dlx_deploy.pipeline.stage import Metrics, Setup
from dlx_deploy.strict import nearest

__all__ = ["check_batches", "check_data", "check_distill", "check_export", "check_prune", "check_teacher"]

OLDEST_OPSET = 13
"""Per-channel DequantizeLinear, which INT8 weights need; a test holds it against ``graph.passes.opset``."""
_SIDE = 8  # pixels of a scanned digit
_OWN_DATA = {"digits": "scikit-learn's digits", "docstrings": "docstrings of installed packages"}


def check_data(setup: Setup[Data]) -> None:
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


def check_teacher(setup: Setup[Teacher]) -> None:
    """The ``[teacher]`` table: its network, and where its weights come from."""
    section = setup.config.teacher
    _check_model("teacher", section.model, setup)
    _check_training("teacher", section, setup.config.data.is_text)
    if section.pretrained:
        _check_pretrained(section)


def check_distill(setup: Setup[Distill]) -> None:
    """The ``[distill]`` table: its network."""
    _check_model("distill", setup.config.distill.model, setup)
    _check_training("distill", setup.config.distill, setup.config.data.is_text)


def check_prune(setup: Setup[Prune]) -> None:
    """The ``[prune]`` table: its fine-tuning."""
    _check_training("prune", setup.params, setup.config.data.is_text)


def check_batches(config: Config, outputs: Mapping[str, Path], metrics: Metrics) -> tuple[()]:
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


def check_export(setup: Setup[Export]) -> None:
    """The ``[export]`` table: an opset that can be written and that the target's parser reads."""
    opset, newest = setup.params.opset, setup.target.opset
    if opset and not OLDEST_OPSET <= opset <= newest:
        raise ConfigError(
            f"export.opset is {opset}; rule: {OLDEST_OPSET} to {newest}, the newest that {setup.target.name} reads; "
            "set 0 for that one, or opset in a board.toml of your own if its parser reads more"
        )
    if setup.params.length != "auto" and not setup.config.data.is_text and setup.config.export.length != "auto":
        raise ConfigError(
            f"export.length is {setup.config.export.length!r}, and data.kind {setup.config.data.kind!r} has images; "
            "leave it out"
        )


def _check_model(section: str, model: str, setup: Setup[Teacher] | Setup[Distill]) -> None:
    from dlx_deploy.nn.models import names

    texts = setup.config.data.is_text
    if names.USER in model:
        _check_user(section, model, setup.inputs["source"])
        return
    if model.startswith(names.HF) and "source" not in setup.inputs:
        _check_folder(section, model.removeprefix(names.HF))
    if names.for_texts(model) is texts and model.startswith((names.HF, names.TIMM)):
        return
    if names.for_texts(model) and not texts:
        raise ConfigError(
            f"model {model!r} is for texts, and the data are images; set {section}.model for instance to 'resnet20', "
            "'mobilenet_v3_small', 'timm:NAME' or 'FILE.py:FUNCTION'"
        )
    if not texts and model in (*names.CIFAR, names.VIT):
        return  # without reading torchvision's source
    known = names.text_models() if texts else names.image_models()
    if known and model not in known:
        unknown = "no network for texts" if texts else "unknown"
        others = "'hf:NAME_OR_PATH'" if texts else "'timm:NAME'"
        raise ConfigError(
            f"{section}.model is {model!r}, {unknown}; {nearest(model, known)}; it is one of these, {others} or "
            "'FILE.py:FUNCTION'"
        )


def _check_user(section: str, model: str, path: Path) -> None:
    from dlx_deploy.nn.models.names import nearest_function

    function = model.rpartition(":")[2]
    try:
        others = nearest_function(path, function)
    except (SyntaxError, ValueError) as e:
        raise ConfigError(f"{section}.model is {model!r}, and {path} is no Python: {e}; correct it") from e
    except OSError as e:
        raise ConfigError(f"{section}.model is {model!r}, and {path} cannot be read ({e.strerror})") from e
    if others is not None:
        hint = nearest(function, others) if others else "the file defines no function"
        raise ConfigError(f"{section}.model is {model!r}: {path} has no function {function!r}; {hint}")


def _check_folder(section: str, name: str) -> None:
    """A name on the hub is NAME or OWNER/NAME; whatever else looks like a path is one, and is not here."""
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name:
        raise ConfigError(
            f"{section}.model is 'hf:{name}', and there is no such folder; give one with config.json, or a name on the "
            "hub"
        )


def _check_training(name: str, section: Training, is_text: bool) -> None:
    if not section.epochs:
        return
    if section.batch_size < 2 and not is_text:
        raise ConfigError(
            f"{name}.batch_size is {section.batch_size}; batch normalisation needs at least 2 images in a batch"
        )
    first = section.restart_epochs
    if section.schedule == "cosine-restarts" and not 1 <= first <= section.epochs:
        raise ConfigError(
            f"{name}.restart_epochs is {first} and {name}.epochs is {section.epochs}; with schedule = "
            "'cosine-restarts' the first cycle must be 1 epoch or more and not longer than training"
        )


def _check_pretrained(section: Teacher) -> None:
    from dlx_deploy.nn.models import names

    own = (*names.CIFAR, names.VIT, *names.text_models())
    if section.model in own or names.USER in section.model:
        raise ConfigError(
            f"teacher.pretrained is {section.pretrained!r}; {section.model!r} has no weights of that kind; give a file "
            "as teacher.checkpoint"
        )
    if section.model.startswith((names.HF, names.TIMM)) and section.pretrained != "DEFAULT":
        raise ConfigError(f"teacher.pretrained is {section.pretrained!r}; for {section.model!r} it must be 'DEFAULT'")
