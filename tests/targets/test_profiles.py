from __future__ import annotations

import re
from pathlib import Path

import pytest

import dlx_deploy.targets
from dlx_deploy.targets import Profile, list_aliases, list_targets, load_target

FOLDER = Path(dlx_deploy.targets.__file__).parent / "profiles"
FILES = sorted(FOLDER.glob("*.toml"), key=lambda path: path.stem)
NAMES = [path.stem for path in FILES]
SOURCE = re.compile(r"# (sheet|docs|measured|derived|choice|unsourced): \S")
DERIVED = re.compile(r"# derived: (\d+) (?:cores?|SM) x ([\d.]+) GHz x (\d+) OP")
TEXT_KEYS = {"schema", "name", "title", "arch", "activation", "device_tree_model"}  # digits there are no facts
REQUIRED = {
    "jetson-nano",
    "jetson-xavier-nx",
    "jetson-agx-xavier",
    "jetson-orin-nano-4gb",
    "jetson-orin-nano-8gb",
    "jetson-orin-nano-super-8gb",
    "jetson-orin-nx-8gb",
    "jetson-orin-nx-16gb",
    "jetson-agx-orin-32gb",
    "jetson-agx-orin-64gb",
    "jetson-thor",
    "jetson-t4000",
    "cpu-x86_64",
    "cpu-aarch64",
    "rpi4",
    "rpi5",
    "t4",
    "a2",
    "a10",
    "a100",
    "l4",
    "h100-pcie",
    "h100-sxm",
    "rtx",
    "rtx-3090",
    "rtx-4090",
    "rtx-5090",
    "dgx-spark",
}

# Operations per SM and clock (FP16 with FP32 accumulation, INT8), dense
PER_SM = {
    "7.2": (1024, 2048),
    "7.5": (1024, 2048),
    "8.0": (2048, 4096),
    "8.6": (1024, 2048),
    "8.7": (2048, 4096),
    "8.9": (1024, 2048),
    "9.0": (4096, 8192),
    "11.0": (8192, 16384),
    "12.0": (512, 2048),
    "12.1": (1024, 2048),
}
GEFORCE = {"rtx", "rtx-3090", "rtx-4090", "rtx-5090"}  # FP32 accumulation at half rate


def gpus() -> list[Profile]:
    return [p for p in list_targets() if p.kind != "cpu"]


def key_of(line: str) -> str:
    return line.partition("=")[0].strip()


def facts(text: str) -> list[str]:
    """The lines of a profile that state a number, a version or a precision."""
    lines = [line for line in text.splitlines() if "=" in line and not line.startswith("#")]
    return [x for x in lines if key_of(x) not in TEXT_KEYS and re.search(r"\d", x.partition("#")[0].partition("=")[2])]


def test_every_target_the_project_promises_is_there() -> None:
    assert set(NAMES) >= REQUIRED


@pytest.mark.parametrize("name", NAMES)
def test_profile_loads_under_its_file_name(name: str) -> None:
    target = load_target(name)
    assert target.profile.name == name
    assert target.note == ""


def test_list_is_every_file_in_order() -> None:
    assert [p.name for p in list_targets()] == NAMES


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_number_has_its_source_beside_it(path: Path) -> None:
    lines = facts(path.read_text(encoding="utf-8"))
    assert len(lines) > 8
    assert [line for line in lines if not SOURCE.search(line)] == []


def test_the_source_rule_catches_a_bare_number() -> None:
    assert facts('sm_count = 8\nname = "a100"\n# x = 3\ncuda = "12.6"  # docs: x') == [
        "sm_count = 8",
        'cuda = "12.6"  # docs: x',
    ]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_derived_peaks_follow_from_their_comment(path: Path) -> None:
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := DERIVED.search(line):
            value = float(line.partition("=")[2].partition("#")[0])
            units, ghz, ops = map(float, match.groups())
            assert value == pytest.approx(units * ghz * ops / 1e3, rel=0.015), line


@pytest.mark.parametrize("profile", [p for p in gpus() if p.roofline.int8_tops], ids=lambda p: p.name)
def test_tensor_core_peaks_follow_from_sm_and_clock(profile: Profile) -> None:
    fp16_op, int8_op = PER_SM[profile.compute_capability]
    if profile.name in GEFORCE:
        fp16_op = 512
    tera = profile.sm_count * profile.clock_mhz / 1e6
    assert profile.roofline.fp16_tflops == pytest.approx(tera * fp16_op, rel=0.01)
    assert profile.roofline.int8_tops == pytest.approx(tera * int8_op, rel=0.01)


@pytest.mark.parametrize("profile", [p for p in gpus() if p.roofline.int8_tops], ids=lambda p: p.name)
def test_int8_is_twice_fp16_but_four_times_on_geforce(profile: Profile) -> None:
    ratio = profile.roofline.int8_tops / profile.roofline.fp16_tflops
    assert ratio == pytest.approx(4.0 if profile.name in GEFORCE else 2.0, rel=0.01)


def test_sparse_marketing_numbers_are_nowhere() -> None:
    """The dense peaks of the data sheets; the same boards are sold as 40, 100, 275 and 2070."""
    dense = {"jetson-orin-nano-8gb": 20, "jetson-orin-nx-16gb": 30, "jetson-agx-orin-64gb": 85, "jetson-thor": 517}
    assert {n: int(load_target(n).profile.roofline.int8_tops) for n in dense} == dense


def test_opset_follows_the_parser() -> None:
    for p in gpus():
        version = p.software.tensorrt
        assert p.opset == (13 if version.startswith("8.2") else 16 if version.startswith("8.5") else 20), p.name
        assert version in p.software.tensorrt_known, p.name
    assert {p.opset for p in list_targets() if p.kind == "cpu"} == {20}


def test_style_and_judge_follow_the_kind() -> None:
    for p in list_targets():
        q = p.quantization
        if p.kind == "cpu":
            assert (q.style, q.activation, q.per_channel, q.reduce_range, p.judge) == (
                "cpu", "uint8", True, True, "native",
            ), p.name  # fmt: skip
        else:
            assert (q.style, q.activation, q.symmetric, q.reduce_range, p.judge) == (
                "tensorrt", "int8", True, False, "exact-qdq",
            ), p.name  # fmt: skip


@pytest.mark.parametrize("name", ["jetson-nano", "jetson-tx2"])
def test_boards_without_int8_offer_none(name: str) -> None:
    profile = load_target(name).profile
    assert profile.precisions == ("fp32", "fp16")
    assert profile.roofline.int8_tops == 0


def test_dla_only_where_there_is_one() -> None:
    cores = {p.name: p.dla.cores for p in list_targets() if p.dla.cores}
    assert cores == {
        "jetson-xavier-nx": 2,
        "jetson-agx-xavier": 2,
        "jetson-orin-nx-8gb": 1,
        "jetson-orin-nx-16gb": 2,
        "jetson-agx-orin-32gb": 2,
        "jetson-agx-orin-64gb": 2,
    }
    assert load_target("jetson-orin-nx-16gb").profile.dla.tensorrt_ranges == (("8.5", "10.7"),)


def test_sparsity_begins_with_ampere() -> None:
    for p in gpus():
        assert p.sparsity_2_4 == (float(p.compute_capability) >= 8.0), p.name


def test_jetson_workspace_leaves_memory_for_the_rest() -> None:
    for p in gpus():
        share = 1 / 8 if p.name.startswith("jetson") else 1 / 4  # CPU and GPU share a Jetson's memory
        assert 0 < p.workspace_mib <= p.memory_gib * 1024 * share, p.name


def test_aliases_lead_to_profiles_and_hide_none() -> None:
    aliases = list_aliases()
    assert aliases["jetson"].target == "jetson-orin-nano-8gb"
    assert {alias.target for alias in aliases.values()} <= set(NAMES)
    assert not set(aliases) & set(NAMES)
    assert all(alias.reason for alias in aliases.values())
