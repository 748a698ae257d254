"""Commands on a package that a board does: what goes there, what comes back, and where it is kept."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlx_deploy.commands import on_board
from dlx_deploy.commands.options import finish
from dlx_deploy.devices.board import RemoteBoard
from dlx_deploy.errors import ConfigError
from dlx_deploy.report.proofs import proofs_beside
from dlx_deploy.report.proven import lines_of_proofs
from dlx_deploy.runtime.errors import BudgetMissed, RuntimeFault, Undecided
from dlx_deploy.runtime.package.bundle import parse_bundle, signed_digest
from dlx_deploy.runtime.tasks.labelled_arrays import write_arrays
from dlx_deploy.runtime.views import Outcome
from tests.conftest import Here
from tests.devices.fake_board import FakeBoard
from tests.report.test_proofs import package
from tests.runtime.conftest import make_images
from tests.runtime.package.signatures import bundle, make_key, private_pem, public_pem, statement, write

__all__ = ["package"]

BOARD = "ssh://edge@board"


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBoard:
    return FakeBoard(tmp_path / "board", monkeypatch)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    images, labels = make_images(12)
    path = tmp_path / "test.npz"
    write_arrays(path, {"images": images}, {"label": labels}, [f"{i}.png" for i in range(12)])
    return path


def test_a_package_is_verified_there_and_its_proof_comes_back(
    package: Path, labelled: Path, board: FakeBoard, here: Here
) -> None:
    page = package.with_suffix(".report.html")
    page.write_text("as it was before")
    done = here("verify", package, "--on", BOARD, "--data", labelled, "--json")
    assert done.code == 6, done.err  # twelve images are too few to say
    seen = json.loads(done.out)
    assert (seen["package"]["name"], seen["proof"]["accuracy"], seen["proof"]["budgets"]) == ("tiny", "undecided", [])
    assert f"the proof is attached to {package.with_suffix('.manifest.json')}" in done.err
    (proof,) = proofs_beside(package).values()
    assert proof.taken == seen["proof"]["taken"]
    assert "accuracy undecided" in "\n".join(lines_of_proofs(proofs_beside(package)))
    assert "undecided" in page.read_text()
    kept = sorted(path.suffix for path in (board.home / ".cache/dlx-deploy/kept").iterdir())
    assert kept == [".dlx", ".npz"]
    package.with_suffix(".manifest.json").unlink()
    again = here("verify", package, "--on", BOARD, "--data", labelled)
    assert again.code == 6
    assert "the proof is not attached: " in again.err
    assert "no manifest of a build is there" in again.err


def test_the_golden_answers_and_the_latency_are_those_of_the_board(
    package: Path, board: FakeBoard, here: Here, tmp_path: Path
) -> None:
    (tmp_path / "boards.toml").write_text('[boards.orin]\nssh = "ssh://edge@board"\n[boards.other]\nssh = "b"\n')
    assert here("selftest", package, "--on", "orin").code == 0
    wrong = here("bench", package, "--on", "orin", "--streams", "0")
    assert (wrong.code, "error: on ssh://edge@board: --streams is 0; must be 1 to 256" in wrong.err) == (2, True)
    refused = here("bench", package, "x.png", "--on", "orin")
    assert (refused.code, "x.png: no such image file" in refused.err) == (2, True)
    other = here("selftest", package, "--on", BOARD, "--python", "python9")
    assert (other.code, "ssh://edge@board has no python9" in other.err) == (4, True)
    board.refuses("ssh: connect to host board port 22: Connection refused")
    away = here("selftest", package, "--on", BOARD)
    assert (away.code, away.out) == (4, "")
    assert "error: ssh://edge@board cannot be reached: no ssh server listens there" in away.err


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / 'my "pictures"'
    folder.mkdir()
    for i, pixels in enumerate(make_images(3)[0]):
        Image.fromarray(pixels.squeeze()).save(folder / f"{i}.png")
    return folder


def test_files_go_over_and_are_called_what_they_are_here(
    package: Path, board: FakeBoard, here: Here, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pictures / "1.png"
    said = here("predict", package, one, f"{pictures}/", "--on", BOARD).out
    assert said == here("predict", package, one, f"{pictures}/").out
    assert said.splitlines()[1].startswith(f"{pictures}/0.png\t")
    kept = board.home / ".cache/dlx-deploy/kept"
    assert sorted(path.suffix for path in kept.iterdir()) == [".dlx", ".files"]
    before = {path: path.stat().st_ino for path in kept.iterdir()}
    assert here("predict", package, one, pictures, "--on", BOARD).out.startswith(f"{one}\t")
    assert {path: path.stat().st_ino for path in kept.iterdir()} == before, "sent once"
    asked = ("predict", package, one, pictures, "--jsonl", "--limit", "2")
    assert here(*asked).out == here(*asked, "--on", BOARD).out != ""
    assert len(list(kept.glob("*.files/*/*"))) == 3 + 1, "and not what is not asked"
    (pictures / "no.png").write_bytes(b"no picture")
    wrong = here("predict", package, pictures / "no.png", "--on", BOARD)
    assert wrong.code == 2
    assert f"error: on {BOARD}: {pictures}/no.png: " in wrong.err
    (tmp_path / "list.txt").write_text(f"{one}\n")
    listed = here("predict", package, "--file", tmp_path / "list.txt", "--on", BOARD)
    assert listed.out.startswith(f"{one}\t")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{one}\n{one}\n"))
    assert here("predict", package, "-", "--on", BOARD).out == listed.out * 2
    assert len(list(kept.glob("*.txt"))) == 2, "lines go over as lines"


def signed(package: Path, key: Any) -> Path:
    made = bundle(statement(package.read_bytes()), key)
    return write(package.with_name(f"{package.name}.sig"), json.dumps(made).encode())


ASKED = [("selftest",), ("bench",), ("predict", "x.png"), ("verify", "--data", "test.npz")]


@pytest.mark.parametrize("asked", ASKED, ids=[words[0] for words in ASKED])
def test_a_signature_is_verified_there_before_anything_of_the_package_runs(
    package: Path,
    labelled: Path,
    board: FakeBoard,
    here: Here,
    monkeypatch: pytest.MonkeyPatch,
    asked: tuple[str, ...],
) -> None:
    """What was changed there, or on the way, is refused by the verifier that came along, and by no code of its own."""
    monkeypatch.chdir(labelled.parent)
    Image.fromarray(make_images(1)[0][0].squeeze()).save("x.png")
    key, put, ran = make_key(), RemoteBoard.put, list[object]()
    signed(package, key)
    flags = ("--on", BOARD, "--public-key", write(package.with_name("p.pem"), public_pem(key)))

    def meddling(self: RemoteBoard, path: Path) -> str:
        there = put(self, path)
        if path == package:
            (board.home / there).write_bytes(path.read_bytes() + b"more")
        return there

    monkeypatch.setattr(RemoteBoard, "put", meddling)
    monkeypatch.setattr(RemoteBoard, "run", lambda *given: ran.append(given))
    done = here(asked[0], package, *asked[1:], *flags)
    assert (done.code, ran) == (2, []), done.err
    assert f"error: on {BOARD}: .cache/dlx-deploy/kept/" in done.err
    assert "changed after it was signed" in done.err


def test_who_signed_it_is_said_there_too_and_so_of_a_baseline(
    package: Path, labelled: Path, board: FakeBoard, here: Here, tmp_path: Path
) -> None:
    key = make_key()
    signed(package, key)
    flags = ("--on", BOARD, "--public-key", write(tmp_path / "p.pem", public_pem(key)))
    done = here("selftest", package, *flags)
    assert done.code == 0, done.err
    assert f"{BOARD}: {package.name} is signed there by key " in done.err
    kept = sorted(path.suffix for path in (board.home / ".cache/dlx-deploy/kept").iterdir())
    assert kept == [".dlx", ".sig"]
    old = Path(shutil.copy(package, tmp_path / "old.dlx"))
    done = here("verify", package, "--data", labelled, "--baseline", old, *flags)
    assert (done.code, f"{old}: a signature is required, and {old}.sig is not there" in done.err) == (2, True)


def test_a_board_that_cannot_verify_is_told_what_it_lacks(
    package: Path, board: FakeBoard, here: Here, tmp_path: Path
) -> None:
    key = make_key()
    signed(package, key)
    (board.folder / "claims/cryptography.py").write_text("raise ImportError('none here')")
    done = here("selftest", package, "--on", BOARD, "--public-key", write(tmp_path / "p.pem", public_pem(key)))
    assert done.code == 4
    assert f"error: on {BOARD}: a signature is required, and verifying it needs cryptography" in done.err


def test_reading_is_a_part_of_what_is_timed_there(package: Path, board: FakeBoard, here: Here, pictures: Path) -> None:
    asked = ("--rounds", "30", "--max-seconds", "1", "--json")
    done = here("bench", package, pictures / "0.png", pictures / "1.png", "--on", BOARD, *asked)
    assert done.code in (0, 3, 6), done.err
    assert json.loads(done.out)["inputs"] == 2


def test_what_cannot_come_back_from_a_board_is_refused(
    package: Path, board: FakeBoard, here: Here, pictures: Path, tmp_path: Path
) -> None:
    done = here("predict", package, pictures, "--on", BOARD, "--out", tmp_path / "o")
    assert (done.code, "files would be written there, and none come back; leave it away" in done.err) == (2, True)
    done = here("predict", package, "--camera", "0", "--on", BOARD)
    assert (done.code, "--camera 0 has no end, and with --on answers come at it; give --limit N" in done.err) == (
        2,
        True,
    )
    done = here("predict", package, pictures, "--camera", "0", "--limit", "1", "--on", BOARD)
    assert (done.code, "a camera and other inputs are there" in done.err) == (2, True)


def test_labelled_arrays_take_the_place_of_files(package: Path, labelled: Path, here: Here, tmp_path: Path) -> None:
    before = labelled.read_bytes()
    images, labels = make_images(12)
    write_arrays(labelled, {"images": images}, {"label": labels}, [f"{i}.png" for i in range(12)])
    assert labelled.read_bytes() == before
    changed = images.copy()
    changed[3] = 7
    write_arrays(tmp_path / "new.npz", {"images": changed[:4]}, {"label": labels[:4]}, [*"abcd"])
    new = here("verify", package, "--data", tmp_path / "new.npz")
    assert (new.code, "1 of 4 images (first: d) are not in the package's reference table" in new.err) == (2, True)
    write_arrays(tmp_path / "no.npz", {"pixels": images}, {"label": labels})
    np.savez(tmp_path / "rows.npz", **{"input.images": images, "target.label": labels[:3]})
    (tmp_path / "cut.npz").write_bytes(before[:50])
    for name, said in (
        (
            "no.npz",
            "holds input.pixels, target.label; must hold input.images, target.label, maybe names, and no others",
        ),
        ("rows.npz", "its arrays have input.images 12, target.label 3 rows; must all have as many"),
        ("cut.npz", "not a readable file of arrays"),
    ):
        done = here("verify", package, "--data", tmp_path / name)
        assert (done.code, said in done.err) == (2, True), done.err


def test_a_manifest_is_signed_with_the_proof_in_it(package: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("model_signing", reason="model-signing is not installed: pip install '.[sign]'")
    manifest, key, said = package.with_suffix(".manifest.json"), package.with_name("k.pem"), list[str]()
    write(key, private_pem(make_key()))
    monkeypatch.setattr(on_board, "say", said.append)
    on_board._sign(manifest, key)
    signature = package.with_name(f"{manifest.name}.sig")
    assert said[0].startswith(f"{manifest} is signed by key ")
    bundle = parse_bundle(signature.read_bytes(), "it")
    assert signed_digest(bundle.payload, "it") == hashlib.sha256(manifest.read_bytes()).hexdigest()
    on_board._sign(manifest, None)
    assert said[-1] == (
        f"warning: {signature} is of the manifest as it was before the proof; sign it again with --sign-key"
    )
    done = here("verify", package, "--data", "x", "--sign-key", key)
    assert (done.code, "--sign-key signs what a board has shown: give the board by --on" in done.err) == (2, True)
    done = here("verify", package, "--data", "x", "--on", "ssh://none@none", "--sign-key", manifest)
    said = f"error: --sign-key {manifest}: no private key that can be read"
    assert (done.code, said in done.err) == (2, True)  # before anything is asked of a board
    done = here("verify", package, "--data", "x", "--on", "ssh://none@none", "--sign-key", "none.pem")
    said = "error: --sign-key none.pem: cannot be read (No such file or directory); name the PEM file of your private"
    assert (done.code, said in done.err) == (2, True)
    signature.unlink()
    signature.mkdir()
    with pytest.raises(
        ConfigError, match=r"\.sig: cannot be written \(.*\); what is in its way must be a file"
    ) as caught:
        on_board._sign(manifest, key)
    assert "--output" not in str(caught.value)


@pytest.mark.parametrize(("failure", "raised"), [(None, ConfigError), (BudgetMissed("too slow"), BudgetMissed)])
def test_the_verdict_is_shown_where_attaching_fails(
    failure: RuntimeFault | None, raised: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    def attaching() -> None:
        raise ConfigError("the key is gone")

    view = Outcome({"p50": 3}, "p50 3 ms", failure)
    with pytest.raises(raised):
        on_board.finish_proven(view, attaching, lambda: finish(view, False))
    shown = capsys.readouterr()
    assert shown.out == "p50 3 ms\n"
    assert ("the key is gone" in shown.err) == (failure is not None)  # else it is the error that ends the command


def test_a_gate_comes_before_a_proof_that_is_not_attached() -> None:
    gate, undecided, other = BudgetMissed("too slow"), Undecided("too few"), ConfigError("cannot be written")
    assert on_board._first([other, undecided, gate]) is gate
    assert on_board._first([other]) is other
