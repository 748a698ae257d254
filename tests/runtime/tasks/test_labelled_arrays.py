"""Files of arrays: what their task asks for and no others, and whatever else comes is refused in words."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.image_classification import image_classification
from dlx_deploy.runtime.tasks.labelled_arrays import read_arrays
from dlx_deploy.runtime.tasks.semantic_segmentation import semantic_segmentation

TASK = image_classification(Framing(8, 6, 3), ("a", "b"))
IMAGES = np.random.default_rng(0).integers(0, 255, (4, 8, 6, 3), np.uint8)
LABELS = np.array([0, 1, 0, 1])
GOOD = {"input.images": IMAGES, "target.label": LABELS}


def header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    """Of an array whose data are not there."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def members(path: Path, images: bytes, method: int = zipfile.ZIP_STORED) -> None:
    label = io.BytesIO()
    np.save(label, LABELS)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("input.images.npy", images)
        archive.writestr("target.label.npy", label.getvalue())


def replaced(path: Path, old: bytes, new: bytes) -> None:
    np.savez(path, **GOOD)  # type: ignore[arg-type]
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))


def bare_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, IMAGES)


def garbled(path: Path) -> None:
    np.savez_compressed(path, **GOOD)  # type: ignore[arg-type]
    data = bytearray(path.read_bytes())
    data[170:400] = bytes(byte ^ 0x5A for byte in data[170:400])
    path.write_bytes(data)


def duplicate(path: Path) -> None:
    members(path, b"")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("input.images.npy", b"")


CENTRAL = b"PK\x01\x02\x2d\x03\x2d\x00"  # of a member's entry: the versions, then its flags


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bare_npy, "BadZipFile"),
        (garbled, "write it again"),
        (lambda path: members(path, b"x"), "not a readable file of arrays"),
        (lambda path: members(path, header((2**80,))), r"says uint8\[1208925819614629174706176\], 12.* and has 0"),
        (lambda path: members(path, header((2**45,))), "35184372088832 bytes, and has 0"),
        (lambda path: members(path, header((2**40, 0))), r"rows; must all have as many|not a readable file"),
        (lambda path: members(path, header((1,), "|O") + b"12345678"), r"says object\[1\]"),
        (
            lambda path: members(path, header((4, 8, 6, 3)), zipfile.ZIP_BZIP2),
            "compressed by method 12; must be stored",
        ),
        (lambda path: replaced(path, CENTRAL + b"\0\0", CENTRAL + b"\1\0"), "RuntimeError: .*encrypted"),
        (lambda path: path.mkdir(), "IsADirectoryError"),
        (duplicate, "holds input.images, input.images, target.label; must hold input.images, target.label, maybe"),
    ],
)
def test_what_is_damaged_or_foreign_is_refused(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "x.npz"
    make(path)
    with pytest.raises(InputError, match=message):
        read_arrays(path, TASK)


def test_a_size_that_the_file_cannot_hold_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    members(path, header((2**30,)))
    size = len(header((2**30,)))
    data = path.read_bytes()
    path.write_bytes(data.replace(size.to_bytes(4, "little") * 2, (2**30 + size).to_bytes(4, "little") * 2))
    with pytest.raises(InputError, match="claims 1073741952 bytes, more than its file can hold"):
        read_arrays(path, TASK)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"target.group": LABELS},
            "holds input.images, target.group, target.label; must hold input.images, target.label,",
        ),
        ({"other": LABELS}, "holds input.images, other, target.label; .* and no others"),
        (
            {"input.images": IMAGES[:, :4]},
            r"input.images is uint8\[4, 4, 6, 3\]; must be uint8\[N, 8, 6, 3\], as the mo",
        ),
        ({"input.images": IMAGES / 255}, r"input.images is float64\[4, 8, 6, 3\]; must be uint8"),
        ({"names": np.array([["a", "b"]] * 4)}, r"names is <U1\[4, 2\]; must be strings \[N\], or left out"),
        ({"names": LABELS}, r"names is int64\[4\]; must be strings"),
        ({"names": np.array(["a"])}, "names 1, target.label 4 rows; must all have as many"),
    ],
)
def test_what_is_not_asked_for_or_does_not_fit_is_refused(
    tmp_path: Path, changed: dict[str, np.ndarray], message: str
) -> None:
    path = tmp_path / "x.npz"
    arrays: dict[str, Any] = {**GOOD, **changed}
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=message):
        read_arrays(path, TASK)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(tmp_path: Path, save: Any) -> None:
    masks = np.asfortranarray(IMAGES[..., 0] % 2)
    save(tmp_path / "x.npz", **{"input.images": IMAGES, "target.mask": masks, "names": np.array([*"abcd"])})
    found = read_arrays(tmp_path / "x.npz", semantic_segmentation(Framing(8, 6, 3), ["a", "b"]))
    assert np.array_equal(found.given["images"], IMAGES)  # type: ignore[index]
    assert np.array_equal(found.targets["mask"], masks)
    assert found.names == ["a", "b", "c", "d"]
