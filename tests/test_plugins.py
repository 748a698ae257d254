"""What other packages offer, where several offer the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlx_deploy.plugins import load_plugin, provider


@pytest.mark.parametrize("names", [("one", "two"), ("two", "one")])
def test_the_version_in_a_key_is_of_what_is_loaded(
    names: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in names:
        about = tmp_path / name / f"{name}-1.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text("[dlx_deploy.models]\nsame = json:loads\n")
        monkeypatch.syspath_prepend(tmp_path / name)
    assert provider("model", "same") == load_plugin("model", "same", (), "").distribution
    assert provider("model", "other") == ""
