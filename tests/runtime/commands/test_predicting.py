"""``predict`` on folders, videos and cameras: what is read, in which order, and when each answer is printed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dlx_deploy import cli
from dlx_deploy.runtime.commands.main import main, view_of
from dlx_deploy.runtime.errors import InputError
from dlx_deploy.runtime.package.archive import write_archive
from dlx_deploy.runtime.package.contents import assemble
from dlx_deploy.runtime.terminal import show_each

from ..fake_cv2 import fake_opencv  # type: ignore[import-not-found]

Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture(params=["package", "tool"])
def run(request: pytest.FixtureRequest, dlx: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """``predict``, by either command line."""

    def call(*argv: str, path: Path = dlx) -> tuple[int, str, str]:
        if request.param == "tool":
            code = cli.run(["predict", str(path), *argv])
        else:
            code = main(["predict", *argv], str(path))
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def pictures(tmp_path: Path, data: Any) -> Path:
    folder = tmp_path / "in [1]*"
    (folder / "b").mkdir(parents=True)
    for i, name in enumerate(("a.png", "b/[x].png", "c*.PNG")):
        Image.fromarray(data[0][i]).save(folder / name)
    return folder


@pytest.fixture
def opencv(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An OpenCV whose every video shows the first seven images, and such a video."""
    module = fake_opencv([image[..., ::-1] for image in data[0][:7]])
    monkeypatch.setitem(sys.modules, "cv2", module)
    (tmp_path / "clip.mp4").write_bytes(b"of a fake OpenCV")
    module.clip = str(tmp_path / "clip.mp4")
    return module


def labels(out: str) -> list[str]:
    return [line.split("\t")[-1].split()[0] for line in out.splitlines()]


def test_a_folder_is_its_images_in_order_of_names(run: Run, pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    (pictures / "notes.txt").write_text("no image")
    code, out, _ = run(str(pictures))
    names = [line.split("\t")[0] for line in out.splitlines()]
    assert (code, names) == (0, [str(pictures / name) for name in ("a.png", "b/[x].png", "c*.PNG")])
    assert labels(out) == ["cat", "dog", "owl"]
    assert "passed over what is no image: 1 .txt" in caplog.text
    assert labels(run(str(pictures), "--limit", "2")[1]) == ["cat", "dog"]


def test_a_folder_without_images(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, out, err = run(str(tmp_path / "empty"))
    assert (code, out) == (2, "")
    assert "empty: holds no images; an image's name ends in .bmp, " in err
    (tmp_path / "empty" / "clip.mp4").write_bytes(b"")
    assert "empty: holds no images (1 .mp4); " in run(str(tmp_path / "empty"))[2]


def test_the_frames_of_a_video(run: Run, opencv: Any) -> None:
    code, out, err = run(opencv.clip, "--every", "2")
    assert (code, err) == (0, "")
    assert [line.split("\t")[:2] for line in out.splitlines()] == [[opencv.clip, str(i)] for i in (0, 2, 4, 6)]
    assert labels(out) == ["cat", "owl", "dog", "cat"]
    code, out, _ = run(opencv.clip, "--jsonl", "--batch", "3", "--limit", "4")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["image"], row["frame"], row["time_s"]) for row in rows] == [(opencv.clip, i, i / 10) for i in range(4)]
    assert [row["top"][0]["label"] for row in rows] == ["cat", "dog", "owl", "cat"]
    assert all(row["schema"] == 1 for row in rows)
    whole = json.loads(run(opencv.clip, "--json", "--limit", "4")[1])["predictions"]
    assert whole == [{key: value for key, value in row.items() if key != "schema"} for row in rows]
    assert [capture.released for capture in opencv.captures] == [True] * 3


def test_images_and_videos_together(run: Run, opencv: Any, pictures: Path, tmp_path: Path) -> None:
    given = tmp_path / "list.txt"
    given.write_text(f"{pictures / 'a.png'}\n{opencv.clip}\n{pictures}\n")
    code, out, _ = run("--file", str(given), "--batch", "4")
    assert (code, labels(out)) == (0, ["cat", *["cat", "dog", "owl"] * 2, "cat", "cat", "dog", "owl"])


def test_a_camera(run: Run, opencv: Any) -> None:
    code, out, err = run("--camera", "0", "--limit", "3")
    assert (code, labels(out), err) == (0, ["cat", "dog", "owl"], "")
    assert out.startswith("camera 0\t0\tcat 0.")
    assert opencv.captures[0].released
    code, out, err = run("--camera", "0", "--jsonl")
    assert (code, len(out.splitlines())) == (2, 7)
    assert err == "error: camera 0: gives no more frames after 7; is it still connected?\n"
    code, out, err = run("--camera", "0", "--json")
    assert (code, out) == (2, "")
    assert "a camera has no end, and --json is one document: give --jsonl, or --limit N" in err
    assert len(json.loads(run("--camera", "0", "--json", "--limit", "2")[1])["predictions"]) == 2


def test_what_does_not_go_together(run: Run, opencv: Any, pictures: Path) -> None:
    image = str(pictures / "a.png")
    for arguments, message in (
        ((image, "--camera", "0"), "a camera and other inputs are there; one of them must be"),
        (("--file", image, "--camera", "0"), "a camera and other inputs are there"),
        ((image, "--every", "2"), "every is 2, and nothing here has frames: it is for videos and cameras"),
        ((opencv.clip, "--every", "0"), "every is 0; must be 1 or more"),
        ((image, "--limit", "0"), "limit is 0; must be 1 or more"),
        ((image, "--batch", "65537"), "batch is 65537; must be 1 or more, and at most 65536"),
        (("none.mp4",), "none.mp4: no such video file"),
        (("--camera", "clip.mp4"), "camera is 'clip.mp4'; must be its number"),
    ):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert f"error: {message}" in err


def test_a_camera_gives_no_texts(run: Run, tmp_path: Path) -> None:
    from ..tasks.test_texts import contents  # type: ignore[import-not-found]

    write_archive(tmp_path / "texts.dlx", assemble(contents()))
    code, _, err = run("--camera", "0", path=tmp_path / "texts.dlx")
    assert (code, err) == (2, "error: a camera gives images, and the package reads texts; leave --camera out\n")
    code, out, _ = run("the cat", "oak", "--jsonl", path=tmp_path / "texts.dlx")
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["the cat", "oak"]


def test_a_device_gives_what_a_stream_gave(dlx: Path, opencv: Any) -> None:
    view = view_of(["predict", opencv.clip], str(dlx))
    assert len(view.data["predictions"]) == 7
    with pytest.raises(InputError, match="a camera has no end"):
        _ = view_of(["predict", "--camera", "0"], str(dlx)).data
    assert labels(view_of(["predict", "--camera", "0", "--limit", "2"], str(dlx)).text) == ["cat", "dog"]


def test_a_reader_that_left_is_given_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    class Left:
        def write(self, text: str) -> None:
            raise BrokenPipeError

        def fileno(self) -> int:
            return os.open(os.devnull, os.O_WRONLY)

    made = []

    def lines() -> Iterator[str]:
        for i in range(9):
            made.append(i)
            yield str(i)

    monkeypatch.setattr(sys, "stdout", Left())
    show_each(lines())
    assert made == [0]


STREAM = """
import sys, time
import numpy as np
from dlx_deploy.runtime.commands.main import main
from tests.runtime.fake_cv2 import fake_opencv

class Slow(list):
    def __len__(self):
        return 10**9
    def __getitem__(self, number):
        time.sleep(0.01)
        return np.zeros((6, 4, 3), np.uint8)

sys.modules["cv2"] = fake = fake_opencv(Slow())
code = main(["predict", "--camera", "0", "--jsonl"], sys.argv[1])
print("released", fake.captures[0].released, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "interrupted by SIGTERM\n")],
)
def test_a_stream_that_is_stopped_closes_its_camera(dlx: Path, number: int, code: int, said: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STREAM, str(dlx)],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job's children ignore it
    )
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())  # each line is flushed: it comes long before the end
    assert (first["image"], first["frame"]) == ("camera 0", 0)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, f"{said}released True\n")


def test_a_pipe_that_closes_ends_the_stream_quietly(dlx: Path) -> None:
    command = f"set -o pipefail; {sys.executable} -c '{STREAM}' {dlx} | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 1, "released True\n")
