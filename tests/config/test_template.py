"""The commented deploy.toml."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from dlx_deploy.config import Config, load_config
from dlx_deploy.config.loading import HEIRS
from dlx_deploy.config.sections import TrainingDefaults
from dlx_deploy.config.template import render

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
