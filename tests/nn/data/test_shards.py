"""Images inside of larger files: WebDataset's tar files, Hugging Face's Parquet and Arrow files."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlx_deploy.building import load_work
from dlx_deploy.config import Data
from dlx_deploy.errors import ConfigError, DataError, EnvironmentMissing
from dlx_deploy.nn.data.catalogue import open_catalogue
from dlx_deploy.nn.data.dataset import Dataset, open_data
from dlx_deploy.nn.data.kinds import kind_of
from dlx_deploy.nn.data.slices import SLICES, read_slices
from dlx_deploy.progress import silent
from dlx_deploy.report.contact_sheet import contact_sheet
from dlx_deploy.tasks import prepare, survey

NAMES = ["dog", "cat"]


def encoded(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def tar(path: Path, files: Mapping[str, bytes | str], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as out:  # type: ignore[call-overload]
        for name, data in files.items():
            raw = data.encode() if isinstance(data, str) else data
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            out.addfile(member, io.BytesIO(raw))
    return path


def samples(numbers: Sequence[int], label: str = ".cls") -> dict[str, bytes | str]:
    """An image and its class for each of ``numbers``; the class alternates."""
    files: dict[str, bytes | str] = {}
    for n in numbers:
        files[f"x/{n:04}.png"] = encoded(n)
        files[f"x/{n:04}{label}"] = NAMES[n % 2]
    return files


def prepared(out: Path, path: Path, **more: Any) -> tuple[Dataset, dict[str, float]]:
    metrics = prepare(Data(kind=kind_of(path), path=str(path), height=4, width=5, **more), out, 0)
    return open_data(out), metrics


def seeds_of(data: Dataset, split: str) -> list[tuple[int, str]]:
    """Which images a split holds, and as what, in its order."""
    known = {np.asarray(Image.open(io.BytesIO(encoded(n)))).tobytes(): n for n in range(120)}
    images, numbers = data.split(split)
    return [(known[image.tobytes()], data.classes[n]) for image, n in zip(images, numbers, strict=True)]


def test_tar_files_are_read_sample_by_sample(tmp_path: Path) -> None:
    root = tmp_path / "wd"
    tar(root / "train-000000.tar", samples(range(20)))
    tar(root / "train-000001.tar", samples(range(20, 40), ".label.txt"))
    tar(root / "val/0.tar", {f"{n}.{end}": data for n in range(40, 50) for end, data in (
        ("png", encoded(n)), ("json", json.dumps({"label": NAMES[n % 2], "more": [1]})))})  # fmt: skip
    tar(root / "Test.tar", samples(range(50, 60)) | {"x/readme.txt": "hello", "x/._0050.png": b"junk"})
    tar(root / "calibration-0.tar", {f"{n}.png": encoded(n) for n in range(60, 65)})
    data, _ = prepared(tmp_path / "out", root)
    assert data.classes == ("cat", "dog")
    for split, numbers in (("train", range(40)), ("validation", range(40, 50)), ("test", range(50, 60))):
        assert sorted(seeds_of(data, split)) == [(n, NAMES[n % 2]) for n in numbers]
    assert data.splits["calibration"] == 5
    prepared(tmp_path / "again", root)
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_one_tar_file_is_split_by_group(tmp_path: Path) -> None:
    path = tar(tmp_path / "all.tar", samples(range(60)))
    data, metrics = prepared(tmp_path / "out", path, group_by=r"(\d\d\d)\d")
    tens = [{n // 10 for n, _ in seeds_of(data, split)} for split in ("train", "validation", "test")]
    assert all(tens)
    assert not (tens[0] & tens[1] | tens[0] & tens[2] | tens[1] & tens[2])
    assert metrics["test_images"] == 20


def test_numbers_are_lines_of_the_file_of_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = {f"{n}.{end}": data for n in range(12) for end, data in (("png", encoded(n)), ("cls", str(n % 3)))}
    path = tar(tmp_path / "all.tar", files)
    assert prepared(tmp_path / "plain", path, test_fraction=0.5)[0].classes == ("0", "1", "2")
    (tmp_path / "classes.txt").write_text("zebra\nant\ncat\n")
    data, _ = prepared(tmp_path / "out", path, test_fraction=0.5, classes=str(tmp_path / "classes.txt"))
    assert {(n % 3, label) for n, label in seeds_of(data, "test")} == {(0, "zebra"), (1, "ant"), (2, "cat")}
    assert "labels are numbers, so they are taken for lines of it, from 0 on: 0 is 'zebra'" in caplog.text
    (tmp_path / "classes.txt").write_text("zebra\nant\n")
    with pytest.raises(DataError, match=r"classes\.txt: has no class '0' \(3 such\)"):
        prepared(tmp_path / "few", path, classes=str(tmp_path / "classes.txt"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.png": b"x"}, r"'all\.tar/a\.png' has no class|'a\.png' has no class \(1 of 1 such in all\); rule: every"),
        ({"a.txt": "x"}, r"all\.tar: holds no images; a sample is NAME\.jpg"),
        ({"a.png": b"x", "a.jpg": b"x", "a.cls": "1"}, r"'a' has 2 images \(jpg, png\); keep one"),
        ({"a.png": b"x", "a.cls": "\x1b[0m"}, r"a\.cls: the label is '\\x1b\[0m'; must be a name in one line"),
        ({"a.png": b"x", "a.cls": b"\xff"}, r"a\.cls: the label is not UTF-8"),
        ({"\udcff.png": b"x", "\udcff.cls": "a"}, r"the name '\\udcff\.png' is not UTF-8"),
        ({"a.png": b"x", "a.json": "{"}, r"a\.json: not JSON"),
        ({"a.png": b"x", "a.json": '{"label": [1]}'}, r"a\.json: the label is a list; must be a name or a whole"),
        ({"a.png": b"x", "a.cls": "A", "b.png": b"x", "b.cls": "a"}, r"labels 'A' and 'a' differ in their writing"),
    ],
)
def test_tar_files_that_say_nothing(tmp_path: Path, files: Mapping[str, bytes | str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_catalogue(Data(kind="webdataset", path=str(tar(tmp_path / "all.tar", files))))


def test_damaged_shards(tmp_path: Path) -> None:
    path = tar(tmp_path / "all.tar", samples(range(40)) | {"bad.png": b"no image", "bad.cls": "dog"})
    with pytest.raises(
        DataError, match=r"1 of \d+ images cannot be used; the first: .*all\.tar/bad\.png: cannot be dec"
    ):
        prepared(tmp_path / "out", path)
    data, metrics = prepared(tmp_path / "some", path, max_bad_fraction=0.1)
    assert metrics["bad_images"] == 1
    assert json.loads((tmp_path / "some/left_out.json").read_text())["files"][0]["file"] == "bad.png"
    assert sorted(n for split in ("train", "validation", "test") for n, _ in seeds_of(data, split)) == list(range(40))
    for split in ("train", "validation", "test"):
        assert all(label == NAMES[n % 2] for n, label in seeds_of(data, split))
    whole = path.read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: whole.index(b"bad.png") + 100])
    with pytest.raises(DataError, match=r"cut\.tar: cannot be read as an uncompressed tar"):
        open_catalogue(Data(kind="webdataset", path=str(tmp_path / "cut.tar")))
    second = whole.index(b"x/0003.png")
    (tmp_path / "hurt.tar").write_bytes(whole[:second] + b"?" * 300 + whole[second + 300 :])
    with pytest.raises(DataError, match=r"hurt\.tar: .*no end mark at byte \d+: it is cut short or damaged"):
        open_catalogue(Data(kind="webdataset", path=str(tmp_path / "hurt.tar")))
    (tmp_path / "no.tar").write_bytes(b"x" * 2000)
    with pytest.raises(DataError, match=r"no\.tar: cannot be read as an uncompressed tar"):
        open_catalogue(Data(kind="webdataset", path=str(tmp_path / "no.tar")))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train.tar.gz"], r"'train\.tar\.gz' is a compressed tar; .*decompress it"),
        (["train.tar", "more.tar"], r"'more\.tar' \(1 such\) is of no split, and others are of train; its name must"),
        (["notes.txt"], r"holds no \.tar files; data\.kind 'webdataset' has them as train-00000\.tar"),
    ],
)
def test_folders_without_usable_shards_are_refused_by_a_plan(tmp_path: Path, names: list[str], message: str) -> None:
    (tmp_path / "wd").mkdir()
    for name in names:
        tar(tmp_path / "wd" / name, samples([1]))
    given = ["data.kind=webdataset", f"data.path='{tmp_path / 'wd'}'", "data.height=4"]
    with pytest.raises(ConfigError, match=message):
        load_work(None, None, given, tmp_path / "store")
    with pytest.raises(
        ConfigError, match=r"nowhere: no such folder or file; data\.kind 'webdataset' needs \.tar files"
    ):
        load_work(None, None, ["data.kind=webdataset", f"data.path='{tmp_path}/nowhere'", "data.height=4"], tmp_path)


def test_a_plan_looks_into_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train-0.parquet").write_bytes(b"none")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    given = ["data.kind=huggingface", f"data.path='{tmp_path}'", "data.height=4"]
    load_work(None, None, given, tmp_path / "store")
    with pytest.raises(EnvironmentMissing, match=r"data\.kind 'huggingface' needs pyarrow; .*\[parquet\]"):
        prepared(tmp_path / "out", tmp_path)


CLASSES = ["zebra", "ant", "cat"]
FEATURES = {"photo": {"_type": "Image"}, "species": {"_type": "ClassLabel", "names": CLASSES}}


def arrow_table(
    numbers: Sequence[int], features: Mapping[str, object] | None = None, **columns: Sequence[object]
) -> Any:
    """Of images with a class as Hugging Face's library writes it; ``columns`` in place of its own."""
    pyarrow = pytest.importorskip("pyarrow")
    own = {"photo": [{"bytes": encoded(n), "path": None} for n in numbers], "species": [n % 3 for n in numbers]}
    table = pyarrow.table(columns or own)
    said = json.dumps({"info": {"features": FEATURES if features is None else features}})
    return table.replace_schema_metadata({"huggingface": said})


def write(path: Path, table: Any) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(table, path, row_group_size=7)
    else:
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as out:
            out.write_table(table)
    return path


@pytest.mark.parametrize("names", [("data/train-0.parquet", "data/test-0.parquet"), ("train/0.arrow", "test/0.arrow")])
def test_hugging_face_data_on_disk(tmp_path: Path, names: tuple[str, str]) -> None:
    root = tmp_path / "hf"
    for name, numbers in zip(names, (range(36), range(40, 55)), strict=True):
        write(root / name, arrow_table(numbers))
    data, _ = prepared(tmp_path / "out", root)
    assert data.classes == tuple(CLASSES)
    drawn = sorted(seeds_of(data, "train") + seeds_of(data, "validation"))
    assert drawn == [(n, CLASSES[n % 3]) for n in range(36)]
    assert sorted(seeds_of(data, "test")) == [(n, CLASSES[n % 3]) for n in range(40, 55)]
    surveyed = survey(Data(kind="huggingface", path=str(root)), 0)
    assert surveyed.survey.tallies["format"] == {"PNG": 51}
    assert contact_sheet(surveyed, silent).count("<img ") == len(surveyed.survey.examples)


def test_tables_without_images_or_classes(tmp_path: Path) -> None:
    def refused(message: str, table: Any, error: type[Exception] = DataError) -> None:
        with pytest.raises(error, match=message):
            prepared(tmp_path / "out", write(tmp_path / "x.parquet", table))

    image = [{"bytes": encoded(n), "path": None} for n in range(6)]
    refused(r"has no column of images, only text; call it 'image'", arrow_table([], {}, text=["a"]))
    refused(r"has 2 columns of images \(image, img\); keep one", arrow_table([], {}, image=image, img=image))
    two = {"label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    refused(r"'0' has no class \(2 of 6 such in all\)", arrow_table([], two, image=image, label=[-1, 0, 1, 0, 5, 1]))
    outside = [{"bytes": None, "path": "/etc/passwd"}, *image[1:]]
    refused(
        r"cannot be used; the first: .*: its bytes are not in the file but at '/etc/passwd'; embed them",
        arrow_table([], {}, image=outside * 3, label=["a", "b"] * 9),
    )
    for names, message in (
        (["a", "a"], "'a' comes twice"),
        (["a", "A"], "labels 'A' and 'a' differ in their writing only"),
        (["a", "\x1b"], r"x\.parquet, row 1: the label is .*must be a name in one line"),
    ):
        refused(
            message, arrow_table([], {"label": {"_type": "ClassLabel", "names": names}}, image=image, label=[0, 1] * 3)
        )
    (tmp_path / "y.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"y\.parquet: cannot be read \("):
        prepared(tmp_path / "out", tmp_path / "y.parquet")
    write(tmp_path / "two/a.parquet", arrow_table(range(6)))
    write(
        tmp_path / "two/b.parquet",
        arrow_table(range(6), {**FEATURES, "species": {"_type": "ClassLabel", "names": ["ant", "cat", "zebra"]}}),
    )
    with pytest.raises(DataError, match=r"'a\.parquet' and 'b\.parquet' have other classes, or another order"):
        prepared(tmp_path / "out", tmp_path / "two")


def test_what_shards_say_of_samples_may_be_slices(tmp_path: Path) -> None:
    """A key of the JSON, in any case, or a file of that name; only the split that is judged must have it."""
    root = tmp_path / "wd"
    tar(root / "train-0.tar", samples(range(20)))
    files = samples(range(20, 40))
    for n in range(20, 40):
        files[f"x/{n:04}.json"] = json.dumps({"Camera": n % 3, "group": f"g{n // 2}"})
        files[f"x/{n:04}.light"] = "day\n" if n % 2 else "night"
    tar(root / "test-0.tar", files)
    data, metrics = prepared(tmp_path / "out", root, slices=("camera", "light"))
    assert metrics["test_groups"] == 10
    columns, order = read_slices(tmp_path / SLICES), [n for n, _ in seeds_of(data, "test")]
    assert columns == {
        "camera": [str(n % 3) for n in order],
        "light": ["night" if n % 2 == 0 else "day" for n in order],
    }
    assert "slices" not in {path.stem for path in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, r"test-1\.tar: x/0060: has no column 'camera'; has png, cls|has no column 'camera'"),
        ({"cam": 1}, r"test-1\.tar: x/0060: has no column 'camera'; nearest: 'cam'"),
        ({"camera": None}, r"x/0060: the column 'camera' is empty; a sample that may be judged is of a slice"),
        ({"camera": [1]}, r"x/0060: the column 'camera' is a list; must be a string or a number"),
        ({"camera": "nan"}, r"x/0060: the column 'camera' is 'nan', which stands for a missing one"),
        ({"camera": 1, "Camera": 2}, r"x/0060: says 'camera' 2 times \(camera, Camera\); keep one"),
    ],
)
def test_a_shard_that_does_not_say_a_slice_is_refused(tmp_path: Path, said: dict[str, object], message: str) -> None:
    root = tmp_path / "wd"
    tar(root / "train-0.tar", samples(range(20)))
    first = {f"x/{n:04}.json": json.dumps({"camera": n}) for n in range(20, 24)}
    tar(root / "test-0.tar", samples(range(20, 24)) | first)
    tar(root / "test-1.tar", samples(range(60, 62)) | ({"x/0060.json": json.dumps(said)} if said else {}))
    with pytest.raises(DataError, match=message):
        prepared(tmp_path / "out", root, slices=("camera",))


def test_columns_of_a_table_may_be_slices(tmp_path: Path) -> None:
    """Classes by their names; a column that only some shards have is refused."""
    own = {"label": FEATURES["species"], "site": {"_type": "ClassLabel", "names": ["north", "south"]}}

    def shard(name: str, numbers: Sequence[int], **more: Sequence[object]) -> None:
        image = [{"bytes": encoded(n), "path": None} for n in numbers]
        given = {"image": image, "label": [n % 3 for n in numbers], **more}
        write(tmp_path / "hf" / name, arrow_table([], own, **given))

    shard("train-0.parquet", range(36))
    shard("test-0.parquet", range(40, 55), site=[n % 2 for n in range(40, 55)], Year=[2000 + n for n in range(40, 55)])
    data, _ = prepared(tmp_path / "out", tmp_path / "hf", slices=("site", "year"))
    columns, order = read_slices(tmp_path / SLICES), [n for n, _ in seeds_of(data, "test")]
    assert columns == {"site": [("north", "south")[n % 2] for n in order], "year": [str(2000 + n) for n in order]}
    shard("test-1.parquet", range(60, 66), site=[0] * 6)
    with pytest.raises(DataError, match=r"test-1\.parquet, row 0: has no column 'year'; has image, label, site"):
        prepared(tmp_path / "again", tmp_path / "hf", slices=("year",))
    shard("test-1.parquet", range(60, 66), site=[0, None, 1, 1, 0, 0])
    with pytest.raises(DataError, match=r"test-1\.parquet, row 1: the column 'site' is empty"):
        prepared(tmp_path / "again", tmp_path / "hf", slices=("site",))


def test_classes_are_the_column_that_is_called_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A ``ClassLabel`` of another name is something else of the images, and that it is not read is said; images are
    those of the type, as a column called so may hold their paths."""
    sites = {"site": {"_type": "ClassLabel", "names": ["north", "south"]}, "photo": FEATURES["photo"]}
    given = {
        "photo": [{"bytes": encoded(n), "path": None} for n in range(12)],
        "image": [f"{n}.png" for n in range(12)],
        "site": [n // 6 for n in range(12)],
    }
    plain = write(tmp_path / "x.parquet", arrow_table([], sites, **given, label=[NAMES[n % 2] for n in range(12)]))
    catalogue = open_catalogue(Data(kind="huggingface", path=str(plain)))
    assert catalogue.classes == ("cat", "dog")
    assert "classes are those of the column 'label', by its name, and not of 'site', a ClassLabel" in caplog.text
    alone = write(tmp_path / "y.parquet", arrow_table([], sites, **given))
    assert open_catalogue(Data(kind="huggingface", path=str(alone))).classes == ("north", "south")


def test_a_column_that_is_asked_for_as_a_slice_or_is_the_group_is_not_the_class(tmp_path: Path) -> None:
    sites = {"_type": "ClassLabel", "names": ["north", "south"]}
    given = {
        "image": [{"bytes": encoded(n), "path": None} for n in range(60)],
        "label": [NAMES[n % 2] for n in range(60)],
    }
    for other, slices in (("site", ("Site",)), ("group", ())):
        column = [n // 2 % 2 for n in range(60)] if slices else [n // 30 for n in range(60)]
        write(tmp_path / "x.parquet", arrow_table([], {other: sites}, **given, **{other: column}))
        catalogue = open_catalogue(Data(kind="huggingface", path=str(tmp_path / "x.parquet"), slices=slices))
        assert catalogue.classes == ("cat", "dog")
    both = {"label": {"_type": "ClassLabel", "names": NAMES}, "site": sites}
    numbers = {**given, "label": [n % 2 for n in range(60)], "site": [n // 2 % 2 for n in range(60)]}
    write(tmp_path / "x.parquet", arrow_table([], both, **numbers))
    asked = Data(kind="huggingface", path=str(tmp_path / "x.parquet"), slices=("label", "site"))
    catalogue = open_catalogue(asked)
    assert catalogue.classes == tuple(NAMES)
    assert catalogue.samples["train"][1].slices == ("cat", "north")


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ({"site": [0, -1, 1, 0, 1, 0]}, r"row 1: the column 'site' is -1, and its classes are 0 to 1"),
        ({"site": [0, 1, 2, 0, 1, 0]}, r"row 2: the column 'site' is 2, and its classes are 0 to 1"),
        ({"site": [0] * 6, "Site": [1] * 6}, r"row 0: says 'site' 2 times \(site, Site\); keep one"),
        ({"Site": [b"a", b"\xff", b"b", b"c", b"d", b"e"]}, r"row 1: the column 'site' is not UTF-8"),
    ],
)
def test_a_column_that_is_no_slice_is_refused_by_its_row(
    tmp_path: Path, site: Mapping[str, Sequence[object]], message: str
) -> None:
    own = {"label": FEATURES["species"], "site": {"_type": "ClassLabel", "names": ["north", "south"]}}
    given = {"image": [{"bytes": encoded(n), "path": None} for n in range(6)], "label": [n % 3 for n in range(6)]}
    path = write(tmp_path / "x.parquet", arrow_table([], own, **given, **site))
    with pytest.raises(DataError, match=rf"x\.parquet, {message}"):
        open_catalogue(Data(kind="huggingface", path=str(path), slices=("site",)))


def test_bytes_are_slices_by_their_text(tmp_path: Path) -> None:
    given = {
        "image": [{"bytes": encoded(n), "path": None} for n in range(6)],
        "label": [NAMES[n % 2] for n in range(6)],
    }
    path = write(tmp_path / "x.parquet", arrow_table([], {}, **given, site=[b"a", b"b"] * 3))
    catalogue = open_catalogue(Data(kind="huggingface", path=str(path), slices=("site",)))
    assert [sample.slices for sample in catalogue.samples["train"]] == [("a",), ("b",)] * 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"x/0003.light": b"n\xe4cht"}, r"x/0003: the column 'light' is not UTF-8"),
        (
            {"x/0003.light": "day", "x/0003.light.txt": "night"},
            r"x/0003: says 'light' 2 times \(light, light\); keep one",
        ),
        (
            {"x/0003.light": "day", "x/0003.json": '{"Light": "night"}'},
            r"x/0003: says 'light' 2 times \(Light, light\)",
        ),
    ],
)
def test_what_files_beside_an_image_say_of_a_slice_is_text_and_said_once(
    tmp_path: Path, more: Mapping[str, bytes | str], message: str
) -> None:
    files = samples(range(6)) | {f"x/{n:04}.light": "day" for n in range(6) if n != 3}
    path = tar(tmp_path / "all.tar", {**files, **more})
    with pytest.raises(DataError, match=message):
        open_catalogue(Data(kind="webdataset", path=str(path), slices=("light",)))


def test_slices_are_of_the_split_that_the_test_is_drawn_from(tmp_path: Path) -> None:
    """Also where there is only a validation split, and nothing is trained."""
    files = samples(range(40)) | {f"x/{n:04}.light": "day" if n % 3 else "night" for n in range(40)}
    tar(tmp_path / "wd/validation-0.tar", files)
    data, _ = prepared(tmp_path / "out", tmp_path / "wd", slices=("light",), use="evaluation")
    order = [n for n, _ in seeds_of(data, "test")]
    assert read_slices(tmp_path / SLICES) == {"light": ["day" if n % 3 else "night" for n in order]}
