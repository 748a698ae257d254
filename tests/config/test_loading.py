"""From deploy.toml to a configuration: strict, with errors that name path, value, rule and the nearest valid name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dlx_deploy.config import Config, load_config
from dlx_deploy.config.loading import HEIRS
from dlx_deploy.config.training import TrainingDefaults
from dlx_deploy.errors import ConfigError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "deploy.toml"
    path.write_text(text)
    return path


def test_no_file_is_the_default() -> None:
    assert load_config(None) == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[distill]\nepoch = 3", r"unknown key 'distill\.epoch' \(3\); nearest valid name: 'epochs'"),
        ("[destill]\nepochs = 3", r"unknown key 'destill' \(.*\); nearest valid name: 'distill'"),
        ("xyzzy = 1", r"unknown key 'xyzzy' \(1\); valid names: compile, data, "),
        (
            "[distill]\nepochs = 'three'",
            r"distill\.epochs is 'three'; rule: Expected `int`, got `str`: a whole number, at least 0; "
            r"for instance: epochs = 30$",
        ),
        ("[distill]\nepochs = -1", r"distill\.epochs is -1; rule: Expected `int` >= 0"),
        ("[distill]\nalpha = 1.5", r"distill\.alpha is 1\.5; rule: Expected `float` <= 1\.0"),
        ("[gate]\nmax_drop = 1.0", r"gate\.max_drop is 1\.0; rule: Expected `float` < 1\.0"),
        (
            "[export]\nbatch = 'fixed'",
            r"export\.batch is 'fixed'; valid names: dynamic; or a whole number, at least 1$",
        ),
        ("[data]\nmean = ['a']", r"data\.mean\[0\] is 'a'; rule: Expected `float`, got `str`"),
        ("name = 'a b'", r"name is 'a b'; rule: Expected `str` matching regex"),
        ("targets = []", r"targets is \[\]; rule: Expected `array` of length >= 1"),
        ("distill = 3", r"distill is 3; rule: Expected `object`, got `int`"),
        ("[gate]\nconfidence = '1'", r"a number, at least 0\.5, less than 1; for instance: confidence = 0\.95$"),
        ("[quantize]\nexclude = 'x'", r"a list in brackets, of text in quotes each; for instance: exclude = \[\]$"),
        (
            "[quantize]\nprecision = 8",
            r"'auto', 'bf16', 'fp16', 'fp32', 'fp8', 'int4', 'int8'; for instance: precision = \"auto\"$",
        ),
        ("[distill]\nenabled = 1", r"got `int`: true or false; for instance: enabled = true$"),
        ("targets = 'jetson'", r"text in quotes each, 1 or more of them; for instance: targets = \[\"jetson\"\]$"),
        ("[teacher]\narguments = 3", r"rule: Expected `object`, got `int`: a table of KEY = VALUE$"),
        ("[distill", r"not valid TOML: "),
        ("[gate]\nmax_drop = 5", r"gate\.max_drop is 5; rule: Expected `float` < 1\.0"),
        ("[gate]\nconfidence = 0", r"gate\.confidence is 0; rule: Expected `float` >= 0\.5"),
        ("[gate]\nconfidence = 2", r"gate\.confidence is 2; rule: Expected `float` < 1\.0"),
        ("[gate]\nmax_latency_p90_ms = inf", r"gate\.max_latency_p90_ms is inf; rule: a finite number$"),
        ("[data]\nmean = [0.5, nan]", r"data\.mean\[1\] is nan; rule: a finite number$"),
        ("[teacher]\narguments = {width = inf}", r"teacher\.arguments\.width is inf; rule: a finite number$"),
        ("seed = 99999999999999999999", r"seed is 99999999999999999999; rule: .*9223372036854775807"),
        ("threads = 1000000", r"threads is 1000000; rule: Expected `int` <= 1024"),
        ("[verify]\nthreads = 1000000", r"verify\.threads is 1000000; rule: Expected `int` <= 1024"),
        ("seed = " + "9" * 5000, r"not valid TOML: "),
        ("name = " + "[" * 3000, r"not valid TOML: "),
        (f"name = '{'x' * 3000}'", r"name is '(x){199}…; rule: "),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(write(tmp_path, text))
    assert str(tmp_path / "deploy.toml") in str(caught.value)
    assert caught.value.exit_code == 2


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file; write one with: dlx-deploy init"):
        load_config(tmp_path / "none.toml")


@pytest.mark.parametrize(("kind", "what"), [("pipe", "a pipe"), ("zero", "a device"), ("folder", "Is a directory")])
def test_what_is_no_file_is_never_waited_for(tmp_path: Path, kind: str, what: str) -> None:
    path = tmp_path / "deploy.toml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(ConfigError, match=rf"deploy\.toml: cannot be read \({what}"):
        load_config(path)


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlx_deploy.config.strict.MAX_BYTES", 10)
    with pytest.raises(ConfigError, match=r"deploy\.toml: has 14 bytes; at most 10 are read"):
        load_config(write(tmp_path, "name = 'digit'"))


def test_overrides(tmp_path: Path) -> None:
    path = write(tmp_path, "[distill]\nepochs = 3\nbatch_size = 32")
    config = load_config(path, ["distill.epochs=5", "name=other", "data.mean=[0.5]", "prune.enabled=false"])
    assert (config.distill.epochs, config.distill.batch_size) == (5, 32)
    assert (config.name, config.data.mean, config.prune.enabled) == ("other", (0.5,), False)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "distill.epoch=5",
            r"--set distill\.epoch=5: unknown key 'distill\.epoch' \(5\); nearest valid name: 'epochs'",
        ),
        ("distill.epochs=many", r"--set distill\.epochs=many: distill\.epochs is 'many'; rule: Expected `int`"),
        ("distill.epochs", r"--set 'distill\.epochs' is not KEY=VALUE; for instance: --set distill\.epochs=5"),
        ("=5", r"--set '=5' is not KEY=VALUE"),
    ],
)
def test_bad_overrides(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, [override])


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'targets = ["jetson", "board.toml"]\n[data]\npath = "images"\nkind = "imagefolder"\n'
        '[teacher]\nmodel = "net.py:make"\ncheckpoint = "/abs/w.pt"\n[distill]\nmodel = "resnet8"',
    )
    config = load_config(path)
    assert config.data.path == str(tmp_path / "images")
    assert config.targets == ("jetson", str(tmp_path / "board.toml"))
    assert config.teacher.model == str(tmp_path / "net.py:make")
    assert config.teacher.checkpoint == "/abs/w.pt"
    assert config.distill.model == "resnet8"


def test_paths_in_overrides_are_relative_to_here(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, '[data]\npath = "images"'), ["data.path=other"])
    assert config.data.path == "other"


def test_the_default_arguments_are_the_default_models(tmp_path: Path) -> None:
    assert load_config(None).teacher.arguments == {"width": 2.0}
    config = load_config(write(tmp_path, "[teacher]\nmodel = 'resnet18'\n"), ["distill.model=vit"])
    assert (config.teacher.arguments, config.distill.arguments) == ({}, {})
    assert load_config(None, ["teacher.arguments={width=0.5}"]).teacher.arguments == {"width": 0.5}


def test_what_training_says_is_inherited_and_what_a_section_says_of_itself_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path, "[training]\noptimizer = 'adamw'\nlearning_rate = 2e-3\n[distill]\nlearning_rate = 3e-3")
    config = load_config(path, ["training.batch_size=32", "teacher.batch_size=128"])
    sections = [config.teacher, config.distill, config.prune]
    assert [s.optimizer for s in sections] == ["adamw"] * 3
    assert [s.learning_rate for s in sections] == [2e-3, 3e-3, 2e-3]
    assert [s.batch_size for s in sections] == [128, 32, 32]
    assert [s.epochs for s in sections] == [25, 30, 25]
    assert (config.training.batch_size, config.training.momentum) == (32, 0.9)
    assert load_config(None).prune.learning_rate == 0.05  # its own default, where nothing is said


@pytest.mark.parametrize("key", TrainingDefaults.__struct_fields__)
def test_a_file_that_says_it_three_times_means_the_same(tmp_path: Path, key: str) -> None:
    other = {
        "loss": "'cross-entropy'",
        "optimizer": "'adamw'",
        "schedule": "'one-cycle'",
        "precision": "'bf16'",
        "weigh_by": "'tokens'",
        "flip": "true",
    }.get(key, "0.5" if isinstance(getattr(TrainingDefaults(), key), float) else "3")
    thrice = load_config(write(tmp_path, "".join(f"[{section}]\n{key} = {other}\n" for section in HEIRS)))
    once = load_config(write(tmp_path, f"[training]\n{key} = {other}\n"))
    assert (thrice.teacher, thrice.distill, thrice.prune) == (once.teacher, once.distill, once.prune)
    assert getattr(once.prune, key) == getattr(once.training, key) != getattr(Config().training, key)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = 3", r"training\.epochs is 3; rule: .* their own: set teacher\.epochs and distill\.epochs and prune"),
        ("model = 'vit'", r"training\.model is 'vit'; rule: .*: set teacher\.model and distill\.model$"),
        ("batchsize = 3", r"unknown key 'training\.batchsize' \(3\); nearest valid name: 'batch_size'"),
        ("momentum = 1.0", r"training\.momentum is 1\.0; rule: Expected `float` < 1\.0"),
    ],
)
def test_what_training_cannot_say(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, f"[training]\n{text}"))
    with pytest.raises(ConfigError, match="--set training"):
        load_config(None, [f"training.{text}"])
