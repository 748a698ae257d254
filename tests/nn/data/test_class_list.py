"""Files of class names, which fix the order of classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlx_deploy.errors import DataError
from dlx_deploy.nn.data.class_list import read_class_list
from dlx_deploy.nn.data.listing import warn_once

from .layouts import folders, prepared


@pytest.fixture(autouse=True)
def _say_again() -> None:
    warn_once.cache_clear()


CLASS_FILES = {
    "classes.txt": "wren\nfinch\n",
    "list.json": '["wren", "finch"]',
    "class_to_idx.json": '{"finch": 1, "wren": 0}',
    "config.json": '{"id2label": {"1": "finch", "0": "wren"}, "label2id": {"finch": 1, "wren": 0}}',
}


@pytest.mark.parametrize("name", CLASS_FILES)
def test_a_file_of_class_names_fixes_their_order(tmp_path: Path, name: str) -> None:
    root = folders(tmp_path / "set", {"train/finch": 6, "train/wren": 6, "test/finch": 3, "test/wren": 3})
    path = root / name
    path.write_text(CLASS_FILES[name])
    assert prepared(tmp_path / "sorted", root, validation_fraction=0.2)[0].classes == ("finch", "wren")
    data, _ = prepared(tmp_path / "out", root, classes=str(path), validation_fraction=0.2)
    assert data.classes == ("wren", "finch")
    assert {int(n) for n in data.targets("test")} == {0, 1}


def test_synsets_name_folders(tmp_path: Path) -> None:
    root = folders(tmp_path / "set", {"test/n02012849": 4, "test/n03126707": 4})
    (tmp_path / "synsets.txt").write_text("n03126707 crane\nn01440764 tench, Tinca tinca\nn02012849 crane\n")
    given = {"use": "evaluation", "classes": str(tmp_path / "synsets.txt")}
    with pytest.raises(DataError, match=r"test: nothing of class 'n01440764 tench, Tinca tinca' \(1 such\)"):
        prepared(tmp_path / "out", root, **given)
    data, _ = prepared(tmp_path / "out", root, **given, allow_missing_classes=True)
    assert data.classes == ("n03126707 crane", "n01440764 tench, Tinca tinca", "n02012849 crane")
    assert set(data.targets("test")) == {0, 2}
    keras = tmp_path / "imagenet_class_index.json"
    keras.write_text('{"0": ["n03126707", "crane"], "1": ["n02012849", "crane"]}')
    assert read_class_list(keras).names == ("n03126707 crane", "n02012849 crane")


def test_a_class_list_and_folders_that_do_not_fit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = folders(tmp_path / "set", {"train/a": 6, "train/b": 6, "test/a": 2, "test/b": 2})
    names = root / "classes.txt"
    names.write_text("a\nb\nc\n")
    with pytest.raises(
        DataError, match=r"classes\.txt: class 'c' has no training image in .*\(1 such\), so no network"
    ):
        prepared(tmp_path / "out", root, classes=str(names))
    names.write_text("a\n")
    with pytest.raises(DataError, match=r"classes\.txt: has no class 'b' \(1 such\), which .*set holds; data\.classes"):
        prepared(tmp_path / "out", root, classes=str(names))
    prepared(tmp_path / "out", root, validation_fraction=0.2)
    assert "classes.txt is not read: classes are in the order of their names" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 0, "b": 2}', r"its numbers are not 0 to 1, one each"),
        ('{"a": "b"}', r"'a' has no number"),
        ("3", r"it holds a int"),
        ("[]", r"it holds a list"),
        ("[[1, 2]]", r"\[1, 2\] is no name"),
        ("{", r"no list of classes \(Expecting"),
        ('["a", "a"]', r"'a' comes twice; rule: a name of its own"),
        ('["a", "A"]', r"'A' and 'a' look alike"),
        ('["a\\u001b"]', r"holds a character that cannot be seen"),
    ],
)
def test_class_files_that_say_nothing(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_class_list(tmp_path / "x.json")
    with pytest.raises(DataError, match=r"none\.txt: no such file; it names the classes"):
        read_class_list(tmp_path / "none.txt")
