from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlx_deploy.runtime.errors import BackendMissing, InputError
from dlx_deploy.runtime.tasks.framing import Framing
from dlx_deploy.runtime.tasks.images import load_image, open_picture

RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def test_pixels_come_back_as_they_are(tmp_path: Path) -> None:
    colour = load_image(saved(Image.fromarray(COLOUR), tmp_path / "a.png"), Framing(5, 7, 3))
    np.testing.assert_array_equal(colour, COLOUR)
    assert colour.dtype == np.uint8
    assert colour.flags.writeable
    grey = load_image(saved(Image.fromarray(GREY), tmp_path / "b.png"), Framing(5, 7, 1))
    np.testing.assert_array_equal(grey, GREY[..., None])


def test_grey_and_colour_are_converted(tmp_path: Path) -> None:
    grey = saved(Image.fromarray(GREY), tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(grey, Framing(5, 7, 3)), np.repeat(GREY[..., None], 3, axis=2))
    colour = saved(Image.fromarray(COLOUR), tmp_path / "b.png")
    np.testing.assert_array_equal(
        load_image(colour, Framing(5, 7, 1))[..., 0], np.asarray(Image.fromarray(COLOUR).convert("L"))
    )


def test_alpha_and_palette_are_dropped(tmp_path: Path) -> None:
    transparent = np.dstack([COLOUR, np.full((5, 7), 9, np.uint8)])
    path = saved(Image.fromarray(transparent, "RGBA"), tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(path, Framing(5, 7, 3)), COLOUR)
    palette = Image.fromarray(COLOUR).quantize(16)
    path = saved(palette, tmp_path / "b.png")
    np.testing.assert_array_equal(load_image(path, Framing(5, 7, 3)), np.asarray(palette.convert("RGB")))


def test_sixteen_bit_grey_is_its_high_byte(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 256 + 77
    path = saved(Image.fromarray(deep), tmp_path / "a.png")
    np.testing.assert_array_equal(load_image(path, Framing(5, 7, 1))[..., 0], GREY)


def test_resize_is_bilinear_with_antialiasing(tmp_path: Path) -> None:
    checkers = np.kron([[0, 255] * 8, [255, 0] * 8] * 8, np.ones((2, 2))).astype(np.uint8)
    path = saved(Image.fromarray(checkers), tmp_path / "a.png")
    small = load_image(path, Framing(4, 4, 1))
    assert np.ptp(small) < 40  # without antialiasing it would be black or white
    np.testing.assert_array_equal(
        small[..., 0], np.asarray(Image.fromarray(checkers).resize((4, 4), Image.Resampling.BILINEAR))
    )
    assert load_image(path, Framing(3, 9, 3)).shape == (3, 9, 3)


@pytest.mark.parametrize(
    ("orientation", "turn"), [(1, lambda x: x), (3, lambda x: x[::-1, ::-1]), (6, lambda x: np.rot90(x, -1))]
)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, turn: object) -> None:
    image = Image.fromarray(COLOUR)
    exif = image.getexif()
    exif[0x0112] = orientation
    path = saved(image, tmp_path / "a.png", exif=exif)
    expected = turn(COLOUR)  # type: ignore[operator]
    np.testing.assert_array_equal(load_image(path, Framing(*expected.shape[:2], 3)), expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.png", "no such image file"),
        ("folder", "no such image file"),
        ("pipe", r"cannot be decoded as an image \(a pipe; must be a plain file\)"),
        ("zero", r"cannot be decoded as an image \(a device; must be a plain file\)"),
        ("a\0b", r"cannot be decoded as an image \(.*null"),
    ],
)
def test_what_is_no_file(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(InputError, match=f"{name}: {message}") as e:
        load_image(tmp_path / name, Framing(5, 7, 3))
    assert e.value.exit_code == 2


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_not_an_image(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.png: cannot be decoded as an image"):
        load_image(path, Framing(5, 7, 3))


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_cut_short(tmp_path: Path, suffix: str, share: float) -> None:
    noise = RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = saved(Image.fromarray(noise), tmp_path / f"a.{suffix}")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match=f"a\\.{suffix}: cannot be decoded as an image"):
        load_image(path, Framing(5, 7, 3))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("side", "message"), [(60_000, "too large to decode"), (9_460, "9460 x 9460 pixels; at most")])
def test_bomb(tmp_path: Path, side: int, message: str) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    with pytest.raises(InputError, match=rf"a\.png: .*{message}"):
        load_image(path, Framing(5, 7, 3))


def test_postscript_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands it to Ghostscript, whatever the file is called."""
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail(f"started {a}"))
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(InputError, match=r"a\.png: cannot be decoded as an image \(it is EPS\); give a PNG or JPEG"):
        load_image(tmp_path / "a.png", Framing(5, 7, 3))


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff", "webp", "gif"])
def test_every_format_is_still_decoded(tmp_path: Path, suffix: str) -> None:
    assert load_image(saved(Image.fromarray(COLOUR), tmp_path / f"a.{suffix}"), Framing(5, 7, 3)).shape == (5, 7, 3)


def test_floating_point_samples(tmp_path: Path) -> None:
    path = saved(Image.fromarray(GREY.astype(np.float32)), tmp_path / "a.tiff")
    with pytest.raises(InputError, match=r"a\.tiff: has floating-point samples; save it with 8 or 16 bits"):
        load_image(path, Framing(5, 7, 1))


def test_two_channels() -> None:
    with pytest.raises(InputError, match="channels is 2; must be 1"):
        load_image("a.png", Framing(5, 7, 2))


def test_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(BackendMissing, match="install it with: pip install pillow"):
        load_image("a.png", Framing(5, 7, 3))


@pytest.mark.parametrize("name", ["a.gif", "a.tiff", "a.webp", "a.png"])
def test_several_frames_or_pages_are_refused_and_one_is_not(tmp_path: Path, name: str) -> None:
    frames = [Image.fromarray(np.roll(COLOUR, i, axis=0)) for i in range(3)]
    assert load_image(saved(frames[0], tmp_path / name), Framing(5, 7, 3)).shape == (5, 7, 3)
    path = saved(frames[0], tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=f"{name}: holds 3 frames or pages, and one is read; save the one that counts"):
        load_image(path, Framing(5, 7, 3))


def test_a_camera_s_previews_are_no_pages(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(COLOUR, i, axis=0)) for i in range(2)]
    saved(frames[0], tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
    saved(frames[0], tmp_path / "b.jpg")
    np.testing.assert_array_equal(
        load_image(tmp_path / "a.jpg", Framing(5, 7, 3)), load_image(tmp_path / "b.jpg", Framing(5, 7, 3))
    )


def test_a_file_of_no_format_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.png: cannot be decoded as an image \(no format that is read\)"):
        load_image(tmp_path / "a.png", Framing(5, 7, 3))


def test_a_png_and_a_jpeg_are_decoded_as_pillow_does_and_by_no_module_but_theirs(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8)).save(tmp_path / "a.jpg")
    script = (
        "import sys\n"
        "from dlx_deploy.runtime.tasks.images import open_picture\n"
        "for name in sys.argv[1:]:\n"
        "    print(open_picture(name, 3).tobytes().hex())\n"
        "    print(*(m for m in ('Bmp', 'Gif', 'Jpeg', 'Ppm') if f'PIL.{m}ImagePlugin' in sys.modules))\n"
    )
    names = [str(tmp_path / "a.png"), str(tmp_path / "a.jpg")]
    done = subprocess.run([sys.executable, "-c", script, *names], check=True, capture_output=True, text=True)
    wanted = [Image.open(name).convert("RGB").tobytes().hex() for name in names]
    assert done.stdout.splitlines() == [wanted[0], "", wanted[1], "Jpeg"]


@pytest.mark.parametrize("head", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_what_only_begins_like_a_picture_is_refused_in_the_same_words(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(head + b"and no more")
    with pytest.raises(InputError, match=r"x\.png: cannot be decoded as an image \("):
        open_picture(path, 3)
