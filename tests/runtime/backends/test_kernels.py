from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dlx_deploy.runtime.backends import kernels
from dlx_deploy.runtime.backends.kernels import missing_dot_product
from dlx_deploy.runtime.errors import BackendMissing

META = {"execution": {"exact_qdq": False, "dot_product": True}}


@pytest.fixture
def cpuinfo(tmp_path: Path) -> Any:
    def write(flags: str) -> str:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags} sse\n")
        return str(tmp_path / "cpuinfo")

    return write


@pytest.mark.parametrize(("flags", "missing"), [("avx2", True), ("avx512_vnni", False), ("avx2 avx_vnni", False)])
def test_a_cpu_that_would_saturate_is_told_by_its_flags(flags: str, missing: bool, cpuinfo: Any) -> None:
    assert (missing_dot_product(META, cpuinfo(flags), "x86_64") is not None) is missing
    assert missing_dot_product(META, cpuinfo(flags), "aarch64") is None
    for other in ({"exact_qdq": False}, {"exact_qdq": False, "dot_product": False}):
        assert missing_dot_product({"execution": other}, cpuinfo(flags), "x86_64") is None


def test_what_cannot_be_read_is_not_held_against_the_machine(tmp_path: Path) -> None:
    assert missing_dot_product(META, str(tmp_path / "none"), "x86_64") is None
    (tmp_path / "empty").write_text("model name: x\n")
    assert missing_dot_product(META, str(tmp_path / "empty"), "x86_64") is None


def test_such_a_package_is_not_opened(
    make_predictor: Any, helpers: Any, cpuinfo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(missing_dot_product, "__defaults__", (cpuinfo("avx2"), ""))
    with pytest.raises(BackendMissing, match=r"this CPU has neither of avx512_vnni, avx_vnni, .*reduce_range = true"):
        make_predictor(metadata=helpers.metadata(**META))
    monkeypatch.setattr(missing_dot_product, "__defaults__", (cpuinfo("avx_vnni"), ""))
    assert make_predictor(metadata=helpers.metadata(**META)).package.name == "tiny"
