from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.tasks.framing import FILTERS, Framing, Placement, place, unframed
from dlx_deploy.runtime.tasks.images import fit_image, load_image
from dlx_deploy.runtime.tasks.mask_files import load_mask

RNG = np.random.default_rng(7)
SIZES = [(64, 48), (48, 64), (31, 97), (200, 33), (50, 50), (9, 7), (225, 224)]  # width, height


@pytest.fixture(autouse=True)
def rows_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this file compares with, Pillow itself, timm and torchvision, in the order that Pillow had up to 12.1."""
    resize = Image.Image.resize

    def by_rows(image: Image.Image, size: tuple[int, int], resample: int | None = None, **options: Any) -> Image.Image:
        assert not any(options.values())
        return resize(resize(image, (size[0], image.size[1]), resample), size, resample)

    monkeypatch.setattr(Image.Image, "resize", by_rows)


def picture(size: tuple[int, int], channels: int = 3) -> Image.Image:
    shape = (size[1], size[0], channels) if channels == 3 else (size[1], size[0])
    coarse = Image.fromarray(RNG.integers(0, 256, (6, 5, *shape[2:]), dtype=np.uint8)).resize(size)
    return Image.fromarray((np.asarray(coarse) // 2 + RNG.integers(0, 128, shape)).astype(np.uint8))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FILTERS)
def test_each_filter_is_pillow_s_to_the_bit(size: tuple[int, int], name: str) -> None:
    image = picture(size)
    direct = np.asarray(image.resize((20, 30), getattr(Image.Resampling, name.upper())))
    np.testing.assert_array_equal(fit_image(image, Framing(30, 20, 3, interpolation=name)), direct)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("resized", "cut"), [(29, 24), (24, 24), (37, 24)])
def test_crop_is_torchvision_s(size: tuple[int, int], resized: int, cut: int) -> None:
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    image = picture(size)
    reference = Compose([Resize(resized, InterpolationMode.BICUBIC), CenterCrop(cut)])
    framing = Framing(cut, cut, 3, "crop", (resized, resized), "bicubic")
    np.testing.assert_array_equal(fit_image(image, framing), np.asarray(reference(image)))


@pytest.mark.parametrize(("length", "kept"), [(29, 24), (31, 24), (26, 24), (24, 24), (28, 23), (26, 23)])
@pytest.mark.parametrize("crop_offset", ["round", "floor"])
def test_half_of_an_odd_number_of_px_is_rounded_as_asked(length: int, kept: int, crop_offset: str) -> None:
    """``int((length - kept) / 2)``: what Hugging Face's processors do in either of their backends."""
    pixels = np.arange(length * length, dtype=np.uint16).view(np.uint8).reshape(length, length, 2)[..., :1]
    start = int((length - kept) / 2) if crop_offset == "floor" else round((length - kept) / 2)
    framing = Framing(kept, kept, 1, "squash", (length, length), crop_offset=crop_offset)
    np.testing.assert_array_equal(fit_image(pixels, framing), pixels[start : start + kept, start : start + kept])
    padded = place(Framing(length, length, 1, "letterbox", crop_offset=crop_offset), kept, length - 1)
    assert padded == place(Framing(length, length, 1, "letterbox"), kept, length - 1)  # which is none of its business


def test_where_nothing_is_cut_off_the_offset_makes_no_other_frame() -> None:
    assert Framing(24, 24, 3, crop_offset="floor") == Framing(24, 24, 3)
    assert Framing(24, 24, 3, crop_offset="floor").plain
    assert Framing(24, 24, 3, "crop", crop_offset="floor") != Framing(24, 24, 3, "crop")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("mode", "resize"), [("center", "crop"), ("squash", "squash"), ("border", "letterbox")])
@pytest.mark.parametrize("target", [(24, 24), (24, 40), (31, 20)])
def test_each_rule_is_timm_s(size: tuple[int, int], mode: str, resize: str, target: tuple[int, int]) -> None:
    from timm.data.transforms_factory import transforms_imagenet_eval

    image = picture(size)
    reference = transforms_imagenet_eval(
        target, 0.875, mode, interpolation="bicubic", mean=(0.4, 0.5, 0.6), normalize=False
    )
    box = (int(target[0] / 0.875), int(target[1] / 0.875))
    framing = Framing(*target, 3, resize, box, "bicubic", (102, 128, 153))
    np.testing.assert_array_equal(fit_image(image, framing), reference(image).permute(1, 2, 0).numpy())


def test_file_picture_and_array_become_the_same(tmp_path: Path) -> None:
    image, framing = picture((40, 30)), Framing(16, 16, 3, "letterbox", (18, 18), "lanczos", (1, 2, 3))
    image.save(tmp_path / "a.png")
    read = load_image(tmp_path / "a.png", framing)
    pixels = np.asarray(image)
    for given, order in (
        (image, "rgb"),
        (pixels, "rgb"),
        (pixels[..., ::-1], "bgr"),
        (np.dstack([pixels, pixels[..., 0]]), "rgb"),
    ):
        np.testing.assert_array_equal(fit_image(given, framing, order), read)
    grey = Framing(16, 16, 1)
    np.testing.assert_array_equal(fit_image(pixels[..., ::-1], grey, "bgr"), load_image(tmp_path / "a.png", grey))
    flat = np.asarray(image.convert("L"))
    for given in (flat, flat[..., None]):
        np.testing.assert_array_equal(fit_image(given, grey), load_image(tmp_path / "a.png", grey))


def test_a_network_that_reads_blue_first_gets_it_so() -> None:
    image = picture((40, 30))
    framing = {order: Framing(16, 16, 3, color_order=order) for order in ("rgb", "bgr")}
    red_first, blue_first = (fit_image(image, framing[order]) for order in ("rgb", "bgr"))
    np.testing.assert_array_equal(blue_first, red_first[..., ::-1])
    exact = np.asarray(image.resize((16, 16)))
    np.testing.assert_array_equal(fit_image(exact[..., ::-1], framing["bgr"], "bgr"), exact[..., ::-1])


def test_a_picture_of_the_right_size_needs_no_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.asarray(picture((16, 12)))
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    given = fit_image(pixels, Framing(12, 16, 3))
    np.testing.assert_array_equal(given, pixels)
    assert given.flags.writeable
    assert not np.shares_memory(given, pixels)


def test_a_picture_in_memory_is_turned_upright() -> None:
    image = picture((12, 16))
    image.getexif()[0x0112] = 6
    np.testing.assert_array_equal(fit_image(image, Framing(12, 16, 3)), np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a.png", "the image is a str; must be Pillow's, or uint8[h, w]"),
        (np.zeros((4, 4, 3), np.float32), "the image is float32[4, 4, 3]; must be Pillow's"),
        (np.zeros((4, 4, 2), np.uint8), "the image is uint8[4, 4, 2]; must be"),
        (np.zeros((0, 4, 3), np.uint8), "the image is uint8[0, 4, 3]; must be"),
        (np.zeros((1, 4, 4, 3), np.uint8), "the image is uint8[1, 4, 4, 3]; must be"),
        (np.broadcast_to(np.uint8(0), (10_000, 10_000)), "the image has 10000 x 10000 pixels; at most"),
        (Image.new("F", (4, 4)), "the image: has floating-point samples"),
    ],
)
def test_what_is_no_picture(given: object, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        fit_image(given, Framing(4, 4, 3))


def test_what_cannot_be_decoded_or_ordered() -> None:
    with pytest.raises(InputError, match="channels is 2; must be 1"):
        fit_image(np.zeros((4, 4, 3), np.uint8), Framing(4, 4, 2))
    with pytest.raises(InputError, match="color_order is 'grb'; must be one of rgb, bgr"):
        fit_image(np.zeros((4, 4, 3), np.uint8), Framing(4, 4, 3), "grb")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"height": 0}, "height and width are 0 and 24; must be at least 1 px"),
        ({"resize": "stretch"}, "resize is 'stretch'; must be one of squash, crop, letterbox"),
        ({"interpolation": "cubic"}, "interpolation is 'cubic'; must be one of nearest, box, bilinear"),
        ({"color_order": "hsv"}, "color_order is 'hsv'; must be one of rgb, bgr"),
        ({"crop_offset": "ceil"}, "crop_offset is 'ceil'; must be one of round, floor"),
        ({"box": (24, 23)}, r"the box is \[24, 23\]; must be .* at least 24 and 24"),
        ({"box": (24,)}, r"the box is \[24\]; must be a height and a width"),
        ({"fill": (1, 2)}, r"fill is \[1, 2\]; must be one value or one for each channel"),
        ({"fill": (256,)}, r"fill is \[256\]; must be .* 0 to 255"),
    ],
)
def test_values_that_there_are_not(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Framing(**{"height": 24, "width": 24, "channels": 3, **values})  # type: ignore[arg-type]


def test_a_strip_is_not_resized_to_gigabytes(tmp_path: Path) -> None:
    Image.new("L", (30_000, 2)).save(tmp_path / "strip.png")
    with pytest.raises(InputError, match=r"strip\.png: has 30000 x 2 pixels, and would be resized to 3360000 x 224"):
        load_image(tmp_path / "strip.png", Framing(224, 224, 3, "crop"))
    assert load_image(tmp_path / "strip.png", Framing(224, 224, 3, "letterbox")).shape == (224, 224, 3)


@pytest.mark.parametrize("resize", ["squash", "crop", "letterbox"])
@pytest.mark.parametrize("size", SIZES)
def test_a_mask_moves_with_its_image(tmp_path: Path, resize: str, size: tuple[int, int]) -> None:
    values = np.asarray(picture(size, channels=1)) % 5
    Image.fromarray(values).save(tmp_path / "m.png")
    framing = Framing(24, 32, 3, resize, (28, 36), "nearest", (7,))
    mask = load_mask(tmp_path / "m.png", framing, 5, 9)
    moved = fit_image(values, Framing(24, 32, 1, resize, (28, 36), "nearest", (255,)))[..., 0]
    np.testing.assert_array_equal(mask, moved)
    assert (255 in mask) == (resize == "letterbox" and (moved == 255).any())


def test_a_mask_finds_its_way_back() -> None:
    size = (64, 48)
    inside = np.ones((24, 24), np.uint8)
    cut = np.asarray(unframed(inside, Framing(24, 24, 3, "crop"), size, 255))
    assert cut.shape == (48, 64)
    assert (cut[:, 8:56] == 1).all()
    assert (cut[:, :8] == 255).all()
    assert (cut[:, 56:] == 255).all()
    padded = np.full((24, 24), 3, np.uint8)
    padded[3:21] = 1
    assert (np.asarray(unframed(padded, Framing(24, 24, 3, "letterbox"), size, 255)) == 1).all()


def test_where_a_picture_lies() -> None:
    assert place(Framing(24, 24, 3, "crop", (29, 29)), 64, 48) == Placement(38, 29, -7, -2)  # 2.5 px: halves go to even
    assert place(Framing(24, 24, 3, "letterbox"), 64, 48) == Placement(24, 18, 0, 3)
    assert Framing(24, 24, 3, fill=(9,)).plain
    assert not Framing(24, 24, 3, box=(25, 24)).plain


@pytest.mark.parametrize("name", FILTERS)
def test_pixels_do_not_depend_on_pillow_s_version(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 12.2 on Pillow itself takes the columns of a tall picture first: other values by one bit."""
    monkeypatch.undo()
    framing = Framing(12, 10, 3, interpolation=name)
    for size in ((9, 2000), (7, 250), (40, 120), (61, 97)):
        image = picture(size)
        rows = image.resize((10, size[1]), getattr(Image.Resampling, name.upper()))
        np.testing.assert_array_equal(fit_image(image, framing), fit_image(rows, framing))
