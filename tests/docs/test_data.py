"""Each layout that docs/data.md shows is made, looked at and prepared."""

from __future__ import annotations

import csv
import io
import itertools
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dlx_deploy
from dlx_deploy.config import Data, load_config
from dlx_deploy.nn.data.catalogue_checks import check_source
from dlx_deploy.tasks import prepare, survey

PAGE = (Path(dlx_deploy.__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```(text|csv)\n((?:(?!```).*\n)+)```\n\n```toml\n((?:(?!```).*\n)+)```$", PAGE, re.MULTILINE)
COPIES = "abcdefghij"
SEEDS = itertools.count()
IMAGES = (".jpg", ".png", ".jpeg")


def encoded() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(next(SEEDS)).integers(0, 256, (9, 9, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def several(name: str) -> list[str]:
    """The names of as many files as a split needs, in place of one."""
    path = Path(name)
    return [str(path.with_name(f"{path.stem}{letter}{path.suffix}")) for letter in COPIES]


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(data)


def make_text(root: Path, lines: list[str]) -> None:
    packed: dict[str, dict[str, bytes]] = {}
    for line in lines:
        name, _, content = line.partition(": ")
        if ".tar/" in name:
            tar, _, inside = name.partition(".tar/")
            packed.setdefault(f"{tar}.tar", {}).update({n: content.encode() or encoded() for n in several(inside)})
        elif name.endswith(".parquet"):
            make_parquet(root / name)
        elif name.lower().endswith(IMAGES):
            for copy in several(name):
                write(root / copy, encoded())
        else:
            write(root / name, f"{content}\n".encode())
    for name, files in packed.items():
        write(root / name, b"")
        with tarfile.open(root / name, "w") as out:
            for inside, data in files.items():
                member = tarfile.TarInfo(inside)
                member.size = len(data)
                out.addfile(member, io.BytesIO(data))


def make_parquet(path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    write(path, b"")
    images = [{"bytes": encoded(), "path": None} for _ in range(20)]
    parquet.write_table(pyarrow.table({"image": images, "label": [i % 2 for i in range(20)]}), path)


def make_list(root: Path, text: str) -> None:
    rows = [{**row, "path": copy} for row in csv.DictReader(io.StringIO(text)) for copy in several(row["path"])]
    for row in rows:
        write(root / "photos" / row["path"], encoded())
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write(root / "list.csv", out.getvalue().encode())


def test_every_layout_has_an_example() -> None:
    kinds = {kind for _, _, toml in EXAMPLES for kind in re.findall(r'^kind = "(.*)"', toml, re.MULTILINE)}
    assert kinds == {"imagefolder", "imagelist", "webdataset", "huggingface"}
    assert len(EXAMPLES) == 6


@pytest.mark.parametrize(("form", "files", "toml"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example(tmp_path: Path, form: str, files: str, toml: str) -> None:
    if form == "csv":
        make_list(tmp_path, files)
    else:
        make_text(tmp_path, files.splitlines())
    (tmp_path / "deploy.toml").write_text(f"[data]\n{toml}")
    data: Data = load_config(tmp_path / "deploy.toml").data
    check_source(data)
    assert survey(data, 0).survey.refusals == ()
    metrics = prepare(data, tmp_path / "out", 0)
    assert metrics["classes"] == 2
    assert min(metrics[f"{split}_images"] for split in ("calibration", "validation", "test")) >= 1
    assert (metrics["train_images"] > 0) == (data.use != "evaluation")
