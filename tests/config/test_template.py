"""The commented deploy.toml."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from dlx_deploy.config import Config, load_config
from dlx_deploy.config.loading import HEIRS
from dlx_deploy.config.template import render, toml_value
from dlx_deploy.config.training import TrainingDefaults
from dlx_deploy.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

INHERITED = set(TrainingDefaults.__struct_fields__)


def test_the_template_shows_every_key_once_at_its_default(tmp_path: Path) -> None:
    """What ``[training]`` holds is shown again only where a section has another default."""
    path = tmp_path / "deploy.toml"
    path.write_text(render())
    assert load_config(path) == Config()
    raw = tomllib.loads(render())
    for field in msgspec.structs.fields(Config):
        default = getattr(Config(), field.name)
        wanted = set(default.__struct_fields__) if isinstance(default, msgspec.Struct) else {field.name}
        if field.name in HEIRS:
            own = {key for key in INHERITED if getattr(default, key) != getattr(Config().training, key)}
            wanted = wanted - INHERITED | own
        if field.name == "stages":
            assert raw["stages"] == {}
            continue
        shown = set(raw[field.name]) if isinstance(default, msgspec.Struct) else {field.name}
        assert shown == wanted, field.name


def test_values_replace_defaults_and_keep_the_comments(tmp_path: Path) -> None:
    values = {
        "name": "my-photos",
        "targets": ("rpi5",),
        "data.path": 'a "b"\\ü\x7f',
        "teacher.arguments": {"width": 0.5, "a b": [1, "x"]},
        "teacher.learning_rate": 0.01,  # shown in [training] alone
        "distill.enabled": False,
        "data.mean": (),
    }
    text = render(values, {"teacher.learning_rate": "weights that are\nthere already", "targets": "as asked"})
    path = tmp_path / "deploy.toml"
    path.write_text(text)
    config = load_config(path)
    assert (config.name, config.targets, config.distill.enabled) == ("my-photos", ("rpi5",), False)
    assert tomllib.loads(text)["data"]["path"] == values["data.path"]
    assert config.teacher.arguments == {"width": 0.5, "a b": [1, "x"]}
    assert (config.teacher.learning_rate, config.distill.learning_rate) == (0.01, 0.1)
    assert "# as asked\ntargets = " in text
    assert "# weights that are there already\nlearning_rate = 0.01\n\n[distill]" in text
    changed = [line for line in render().splitlines() if line not in text.splitlines()]
    assert len(changed) == 5, "every other line is that of the default file"


def test_a_value_of_no_section_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"deploy\.toml has no 'teachers\.epochs'; nearest valid name: 'teacher'"):
        render({"teachers.epochs": 3})


def test_values_are_written_as_toml() -> None:
    for value in (True, 3, 1e-3, 5e-324, "line\nnext\u2028", [[1], ["a"]], {"x": {"y": [True]}}):
        assert tomllib.loads(f"v = {toml_value(value)}")["v"] == value
