"""Whether a package fits a board: each bad board is refused or warned of, with a remedy."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dlx_deploy.devices.asking import BoardFacts
from dlx_deploy.devices.pushing.backends import lacking_runtimes
from dlx_deploy.devices.pushing.preflight import Finding, Wish, examine

FACTS = BoardFacts(
    root="/home/pi/dlx-deploy/tiny",
    writable=True,
    free_disk_mib=9000,
    free_memory_mib=3000,
    total_memory_mib=4000,
    arch="x86_64",
    system="Linux 6.1",
    os="Debian 12",
    glibc="2.36",
    cpu_model="a CPU",
    cores=4,
    board="",
    gpus=(),
    l4t="",
    power_mode=None,
    power_mode_name=None,
    governor=None,
    clock_mhz=None,
    executable="/usr/bin/python3",
    pythons={},
    versions={"python": "3.11.2", "numpy": "2.0", "onnxruntime": "1.20.0"},
    clock_ahead_s=1.0,
    boot="b",
)
JETSON = {"name": "jetson-orin-nano-8gb", "kind": "tensorrt", "arch": "aarch64", "title": "Orin Nano"}
ORDER = {"seed": 0, "backends": ["tensorrt", "onnxruntime-cuda", "onnxruntime-cpu"]}
ORIN = {
    "arch": "aarch64",
    "board": "NVIDIA Jetson Orin Nano",
    "gpus": ("a Jetson's",),
    "l4t": "36.5.0",
    "power_mode": "pmode:0000",
    "power_mode_name": "15W",
    "versions": {"python": "3.10.12", "numpy": "1.26", "tensorrt": "10.3.0", "cuda-python": "12.6"},
}
WISH = Wish(bytes_left=10 << 20)


def found(package: Any, wish: Wish = WISH, **facts: Any) -> dict[tuple[str, str], Finding]:
    """Findings that are not in order, by check and level."""
    changed = msgspec.structs.replace(FACTS, **facts)
    return {(one.check, one.level): one for one in examine(package, changed, wish) if one.level != "ok"}


def test_a_board_that_fits_has_nothing_against_it(make_package: Any) -> None:
    assert not found(make_package().package)


def test_a_jetson_runs_tensorrt_and_tells_its_mode(make_package: Any) -> None:
    package = make_package(target=JETSON, recipe=ORDER).package
    told = {one.check: one for one in examine(package, msgspec.structs.replace(FACTS, **ORIN), WISH)}
    assert {one.level for one in told.values()} == {"ok"}
    assert (told["runtime"].found, told["power mode"].found) == ("tensorrt 10.3.0", "15W")
    assert told["JetPack"].found == "L4T 36.5.0"
    other = found(package, **{**ORIN, "power_mode_name": "7W", "l4t": "35.6.0"})
    assert other["power mode", "warning"].found == "7W, the target is described in 15W"
    assert other["JetPack", "warning"].found == "L4T 35.6.0; the target was described for 36.5.0"


@pytest.mark.parametrize(
    ("facts", "check", "text"),
    [
        (
            {"arch": "aarch64"},
            "architecture",
            "the package is for x86_64, the board is aarch64; build for this board, or push it all the same with "
            "--other-board",
        ),
        (
            {"versions": {"python": "3.6.9"}, "pythons": {"3.7": "/usr/bin/python3.7", "3.8": "/usr/bin/python3.8"}},
            "Python",
            "3.6.9 is too old; packages need 3.8 or newer; push with --python /usr/bin/python3.8",
        ),
        ({"versions": {"python": "3.7.1"}}, "Python", "install Python 3.8 or newer there"),
        (
            {"versions": {"python": "3.11.2", "onnxruntime": "1.20.0"}},
            "numpy",
            "not installed; push with --bootstrap, which brings what lacks, or install it there: /usr/bin/python3 -m "
            "pip install numpy onnxruntime",
        ),
        (
            {"versions": {"python": "3.11.2", "numpy": "2.0"}},
            "runtime",
            "nothing there runs the package (onnxruntime-cpu: it lacks onnxruntime or onnxruntime-gpu)",
        ),
        (
            {"versions": {"python": "3.8.1", "numpy": "1.2", "onnxruntime": "1.10.0"}},
            "runtime",
            "onnxruntime 1.10.0 is older than 1.17",
        ),
        (
            {"versions": {"python": "3.8.1", "numpy": "1.2", "onnxruntime": "1.10.0"}},
            "runtime",
            "; push with --bootstrap, which brings what lacks, or install it there: /usr/bin/python3 -m pip install "
            "--upgrade onnxruntime",
        ),
        ({"free_disk_mib": 70}, "disk", "70 MiB free, about 74 needed; make room on the file system of /home/pi"),
        ({"total_memory_mib": 100}, "memory", "100 MiB free, about 164 needed"),
        ({"writable": False}, "folder", "/home/pi/dlx-deploy/tiny cannot be written there"),
    ],
)
def test_a_board_that_does_not_fit_is_refused(make_package: Any, facts: dict[str, Any], check: str, text: str) -> None:
    assert text in found(make_package().package, **facts)[check, "refused"].describe()


def test_a_package_for_another_target_needs_a_word(make_package: Any) -> None:
    target = {"name": "rpi5", "kind": "cpu", "arch": "aarch64", "title": "Raspberry Pi 5"}
    package, four = make_package(target=target).package, {"arch": "aarch64", "board": "Raspberry Pi 4 Model B"}
    text = "the package is for rpi5 (Raspberry Pi 5), the board says it is 'Raspberry Pi 4 Model B'"
    assert found(package, **four)["target", "refused"].found == text
    allowed = msgspec.structs.replace(WISH, other_board=True)
    assert found(package, allowed, **four)["target", "warning"].found == text
    assert not found(package, **{**four, "board": "Raspberry Pi 5 Model B Rev 1.0"})
    nano = make_package(target={"name": "jetson-orin-nano-8gb", "kind": "tensorrt", "title": "Nano"}).package
    agx = found(nano, board="NVIDIA Jetson AGX Orin Developer Kit")["target", "refused"].found
    assert agx.startswith(
        "the package is for jetson-orin-nano-8gb (Orin Nano), the board says it is 'NVIDIA Jetson AGX"
    )
    listed = msgspec.structs.replace(WISH, target="rpi4")
    assert found(package, listed, arch="aarch64")["target", "refused"].found == (
        "the package is for rpi5, the board for rpi4 by the inventory"
    )


RUNS = {"python": "3.10.12", "numpy": "1.26.4"}


@pytest.mark.parametrize(
    ("backends", "facts", "comes"),
    [
        (["onnxruntime-cpu"], {"versions": {**RUNS, "onnxruntime": "1.20.0"}}, ()),
        (["onnxruntime-cpu"], {"versions": RUNS}, ("onnxruntime",)),
        (["onnxruntime-cpu"], {"versions": {**RUNS, "onnxruntime": "1.10.0"}}, ("onnxruntime",)),
        (["onnxruntime-cpu"], {**ORIN, "versions": {**RUNS, "tensorrt": "10.3.0"}}, ("onnxruntime",)),
        (["tensorrt", "onnxruntime-cpu"], {**ORIN, "versions": {**RUNS, "tensorrt": "10.3.0"}}, ("cuda-python",)),
        (["tensorrt", "onnxruntime-cpu"], {**ORIN, "versions": RUNS}, ("onnxruntime",)),
        (["tensorrt"], {**ORIN, "versions": RUNS}, None),
    ],
)
def test_what_is_brought_is_what_the_package_runs_on(
    make_package: Any, backends: list[str], facts: dict[str, Any], comes: tuple[str, ...] | None
) -> None:
    package, there = make_package(recipe={"backends": backends}).package, msgspec.structs.replace(FACTS, **facts)
    assert lacking_runtimes(package, there) == comes
    told = " ".join(one.describe() for one in examine(package, there, WISH) if one.check == "runtime")
    assert ("--bootstrap" in told) == bool(comes)
    assert ("install there what one of them lacks, or build with" in told) == (comes is None)


def test_what_is_passed_over_and_what_is_newer_is_said(make_package: Any) -> None:
    package = make_package(target=JETSON, recipe=ORDER).package
    bare = {**ORIN, "gpus": (), "versions": {**FACTS.versions, "onnxruntime": "9.9.0"}}
    warned = [one.found for one in examine(package, msgspec.structs.replace(FACTS, **bare), WISH) if one.level != "ok"]
    assert warned[:2] == [
        "tensorrt is passed over: it lacks tensorrt, cuda-python and an NVIDIA GPU",
        "onnxruntime-cuda is passed over: it lacks onnxruntime-gpu and an NVIDIA GPU",
    ]
    assert warned[2].startswith("onnxruntime-cpu: onnxruntime 9.9.0 is newer than 1.32")


def test_a_runtime_that_computes_the_graph_wrong_is_passed_over(
    make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dlx_deploy.devices.pushing import backends
    from dlx_deploy.runtime.hazards.table import hazard_table

    refusing = next(one for one in hazard_table().hazards if one.refuses)
    monkeypatch.setattr(backends, "hazards_for", lambda *asked: [refusing] if asked[1:] == HAZARD else [])
    package = make_package().package
    assert refusing.title in found(package)["runtime", "refused"].found
    accepted = msgspec.structs.replace(WISH, accept_hazards=True)
    assert refusing.title in found(package, accepted)["runtime", "warning"].found


HAZARD = ("onnxruntime-cpu", "1.20.0", "x86_64")
YEARS = 55 * 365.25 * 86400


@pytest.mark.parametrize(
    ("ahead_s", "level", "text"),
    [
        (-3600.0, "told", "60 minutes behind this machine's"),
        (-7200.0, "told", "2 hours behind this machine's"),
        (3 * 86400.0, "warning", "3 days ahead of this machine's"),
        (-YEARS, "warning", "55 years behind this machine's"),
    ],
)
def test_a_clock_that_is_off_is_told(make_package: Any, ahead_s: float, level: str, text: str) -> None:
    finding = found(make_package().package, clock_ahead_s=ahead_s)["clock", level]
    assert finding.found.startswith(text)
    assert "set-ntp" in finding.remedy
